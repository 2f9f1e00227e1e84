// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a ring looks at a moment, for somebody who wants to see it.
//!
//! It is read in guest memory without the lock of the queue, so that a look costs the path nothing but
//! the moment in which the outline is taken. Both sides may move on meanwhile, and a driver may write what it
//! likes: a picture of nonsense is nonsense, and takes no longer.

use std::sync::atomic::Ordering;

use vm_memory::Permissions;
use vnet_contract::ring::{self, Desc, DESC_F_NEXT};
use vnet_dma::{DmaMap, Finder};

use crate::unshared::Outline;
use crate::view::{load, Array};
use crate::Fault;

/// A ring at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Number of descriptors.
    pub size: u16,
    /// The driver's avail index.
    pub avail: u16,
    /// Next entry of the avail ring that the device fetches.
    pub next_avail: u16,
    /// The device's used index, as the driver sees it.
    pub used: u16,
    /// Where the driver wants an interrupt.
    pub used_event: u16,
    /// Where the device wants a doorbell.
    pub avail_event: u16,
    /// For each descriptor of the table whether the device owns it.
    pub owned: Vec<bool>,
}

impl Outline {
    /// How the ring looks now.
    pub fn picture(&self, mem: &DmaMap) -> Result<Picture, Fault> {
        let number = |ring: u64, offset: usize| {
            let address = ring.wrapping_add(offset as u64);
            load::<u16>(mem, address, Ordering::Acquire).map(u16::from_le)
        };
        // This one first: the other may move on meanwhile, but not past it.
        let used = number(self.used, ring::RING_IDX)?;
        let avail = number(self.avail, ring::RING_IDX)?;
        Ok(Picture {
            size: self.size,
            avail,
            next_avail: self.next_avail,
            used,
            used_event: number(self.avail, ring::used_event_offset(self.size))?,
            avail_event: number(self.used, ring::avail_event_offset(self.size))?,
            owned: self.owned(mem, used, avail)?,
        })
    }

    /// The descriptors of the chains from one entry of the avail ring up to another, as far as they make
    /// sense. Chains are used in order, so those are the device's. Each descriptor is looked at once.
    fn owned(&self, mem: &DmaMap, from: u16, to: u16) -> Result<Vec<bool>, Fault> {
        let size = usize::from(self.size);
        let mut owned = vec![false; size];
        let mut finder = Finder::new(mem);
        let entries = self.avail.wrapping_add(ring::RING_ENTRIES as u64);
        let entries = Array::<u16>::new(&mut finder, entries, size, Permissions::Read);
        let words = Array::<u64>::new(&mut finder, self.desc, 2 * size, Permissions::Read);
        for ahead in 0..to.wrapping_sub(from).min(self.size) {
            let entry = from.wrapping_add(ahead) & (self.size - 1);
            let mut at = usize::from(u16::from_le(entries.load(entry.into())?));
            while let Some(known @ false) = owned.get_mut(at) {
                *known = true;
                let word = u64::from_le(words.load(2 * at + 1)?);
                let desc = Desc::from_words([0, word]);
                if desc.flags & DESC_F_NEXT == 0 {
                    break;
                }
                at = desc.next.into();
            }
        }
        Ok(owned)
    }
}
