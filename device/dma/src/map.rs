// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! An immutable snapshot of the address space.

use std::fs::File;
use std::iter::FusedIterator;
use std::ops::RangeInclusive;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryResult, Permissions, VolatileSlice,
};

use crate::range::Range;
use crate::Stretch;

/// A snapshot of the address space: sorted ranges that do not overlap.
#[derive(Clone, Debug, Default)]
pub struct DmaMap {
    ranges: Arc<Vec<Arc<Range>>>,
    /// Ranges that are not shared are reached, too, by their mirrors.
    mirrored: bool,
}

impl DmaMap {
    /// Number of ranges, those without memory included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The file that holds the memory at this address, if the card can reach it.
    pub fn file(&self, addr: u64) -> Option<&Arc<File>> {
        self.find(addr)?.file()
    }

    /// The ranges that the card can reach and that have a byte in this stretch, each whole.
    pub fn within_reach(
        &self,
        stretch: RangeInclusive<u64>,
    ) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let touched = self.touched(*stretch.start(), *stretch.end());
        let shared = self.ranges[touched].iter().filter(|r| r.file().is_some());
        shared.map(|r| r.first..=r.last)
    }

    /// True if there is memory that the card may write, but that is not shared.
    pub fn has_withheld(&self) -> bool {
        self.ranges.iter().any(|range| range.is_withheld())
    }

    /// True if there are ranges that are not shared.
    pub(crate) fn has_unshared(&self) -> bool {
        self.ranges.iter().any(|range| range.has_mirror())
    }

    /// The same map with the mirrors of ranges that are not shared.
    pub(crate) fn mirrored(&self) -> Self {
        Self {
            ranges: Arc::clone(&self.ranges),
            mirrored: true,
        }
    }

    /// Calls `found` with those parts of a stretch that have mirrors here.
    pub(crate) fn unshared(&self, stretch: Stretch, mut found: impl FnMut(Stretch)) {
        let Stretch {
            mut address,
            mut len,
        } = stretch;
        while self.mirrored && len > 0 {
            let Some(range) = self.find(address) else {
                return;
            };
            // Less one, for it may be the whole space.
            let beyond = range.last - address;
            let part =
                usize::try_from(beyond).map_or(len, |beyond| len.min(beyond.saturating_add(1)));
            if range.has_mirror() {
                found(Stretch { address, len: part });
            }
            len -= part;
            match address.checked_add(part as u64) {
                Some(next) => address = next,
                None => return,
            }
        }
    }

    /// The pieces of a stretch, to write what was read into, which read-only ranges allow here.
    pub(crate) fn mirrors_of(
        &self,
        addr: u64,
        count: usize,
        access: Permissions,
    ) -> impl Iterator<Item = VolatileSlice<'_>> {
        Slices::new(self, GuestAddress(addr), count, access).flatten()
    }

    /// The range that holds `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Range> {
        let after = self.ranges.partition_point(|r| r.first <= addr);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (addr <= range.last).then_some(range.as_ref())
    }

    /// This map with more ranges, and the first addresses of those that it does not have because
    /// they overlap others. Copies the map once, however many they are.
    pub(crate) fn with(&self, mut more: Vec<Range>) -> (Self, Vec<u64>) {
        more.sort_by_key(|range| range.first);
        let mut ranges: Vec<Arc<Range>> = Vec::with_capacity(self.ranges.len() + more.len());
        let mut there = self.ranges.iter().peekable();
        let mut overlapping = Vec::new();
        for range in more {
            while let Some(before) = there.next_if(|other| other.first <= range.first) {
                ranges.push(Arc::clone(before));
            }
            if ranges
                .last()
                .is_some_and(|before| before.last >= range.first)
                || there.peek().is_some_and(|after| after.first <= range.last)
            {
                overlapping.push(range.first);
            } else {
                ranges.push(Arc::new(range));
            }
        }
        ranges.extend(there.cloned());
        (Self::of(ranges), overlapping)
    }

    /// This map without the ranges that have a byte in `first..=last`; `None` if there are none.
    pub(crate) fn without(&self, first: u64, last: u64) -> Option<Self> {
        let gone = self.touched(first, last);
        if gone.is_empty() {
            return None;
        }
        let mut ranges = Vec::with_capacity(self.ranges.len() - gone.len());
        ranges.extend_from_slice(&self.ranges[..gone.start]);
        ranges.extend_from_slice(&self.ranges[gone.end..]);
        Some(Self::of(ranges))
    }

    /// Where the ranges are that have a byte in `first..=last`.
    fn touched(&self, first: u64, last: u64) -> std::ops::Range<usize> {
        let from = self.ranges.partition_point(|r| r.last < first);
        let to = self.ranges.partition_point(|r| r.first <= last);
        from..to.max(from)
    }

    fn of(ranges: Vec<Arc<Range>>) -> Self {
        Self {
            ranges: Arc::new(ranges),
            mirrored: false,
        }
    }

    /// The part of `range` from `addr` on, at most `count` bytes, if `access` is allowed.
    pub(crate) fn part<'m>(
        &self,
        range: &'m Range,
        addr: u64,
        count: usize,
        access: Permissions,
    ) -> Option<VolatileSlice<'m>> {
        range.slice(addr, count, access, self.mirrored)
    }
}

impl GuestMemory for DmaMap {
    // Named because the trait wants a type; bus addresses are all there is.
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        Slices::new(self, addr, count, access).all(|s| s.is_ok())
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, ()>>> {
        Ok(Slices::new(self, addr, count, access))
    }
}

/// The pieces of memory that make up a stretch of bus addresses; one piece per range that the
/// stretch touches. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Slices<'a> {
    map: &'a DmaMap,
    addr: u64,
    left: usize,
    access: Permissions,
}

impl<'a> Slices<'a> {
    fn new(map: &'a DmaMap, addr: GuestAddress, count: usize, access: Permissions) -> Self {
        Self {
            map,
            addr: addr.0,
            left: count,
            access,
        }
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a, BS<'a, ()>>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let slice = self
            .map
            .find(self.addr)
            .and_then(|r| self.map.part(r, self.addr, self.left, self.access));
        let Some(slice) = slice else {
            self.left = 0;
            return Some(Err(Error::InvalidGuestAddress(GuestAddress(self.addr))));
        };
        self.left -= slice.len();
        if self.left > 0 {
            match self.addr.checked_add(slice.len() as u64) {
                Some(next) => self.addr = next,
                None => {
                    self.left = 0;
                    return Some(Err(Error::GuestAddressOverflow));
                }
            }
        }
        Some(Ok(slice))
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, BS<'a, ()>> for Slices<'a> {}
