// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The checked walk along a descriptor chain.

use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};
use vnet_contract::queue::Error;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_dma::DmaMap;

use crate::ring::Ring;
use crate::view::View;
use crate::Fault;

/// What the device does with the buffers of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device reads them.
    Read,
    /// The device writes them.
    Write,
}

/// A chain whose descriptors were found good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// Index of the first descriptor, which goes into the used entry.
    pub(crate) head: u16,
    /// Number of descriptors that were read for it.
    pub(crate) descriptors: u16,
    /// Sum of the lengths.
    pub(crate) bytes: usize,
    /// Length of the first buffer.
    pub(crate) first: usize,
    /// Where the parts of the chain end in the vector that they were added to.
    pub(crate) parts_end: usize,
}

impl Direction {
    /// `DESC_F_WRITE`, if that is how the descriptors have it, and what memory must allow.
    #[inline]
    fn asks(self) -> (u16, Permissions) {
        match self {
            Direction::Read => (0, Permissions::Read),
            Direction::Write => (DESC_F_WRITE, Permissions::Write),
        }
    }
}

/// Walks the chain from `head` and adds its buffers to `parts`; nothing is added on error.
/// A chain of more than `max_bytes` is refused before its memory is looked up.
#[inline]
pub(crate) fn walk<'m>(
    ring: &mut Ring,
    view: &mut View<'m>,
    head: u16,
    direction: Direction,
    max_bytes: usize,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Result<Chain, Fault> {
    if head >= ring.size() {
        return Err(Fault::new(Error::DescIndex, head));
    }
    let first = ring.descriptor(view, head)?;
    // With that apart, what a chain costs is a fifth less for a small frame.
    if let Some(part) = single(view, &first, direction, max_bytes) {
        let bytes = part.len();
        parts.push(part);
        return Ok(Chain {
            head,
            descriptors: 1,
            bytes,
            first: bytes,
            parts_end: parts.len(),
        });
    }
    let before = parts.len();
    let walk = Walk {
        head,
        direction,
        max_bytes,
    };
    let result = walk.run(ring, view, first, parts, |_, _| {});
    if result.is_err() {
        parts.truncate(before);
    }
    result
}

/// The same, and tells `note` of each descriptor that is read: its index, in the ring or in the table
/// that the one before pointed to, and what it says.
pub(crate) fn walk_noting<'m>(
    ring: &mut Ring,
    view: &mut View<'m>,
    head: u16,
    direction: Direction,
    max_bytes: usize,
    parts: &mut Vec<VolatileSlice<'m>>,
    note: impl FnMut(u16, Desc),
) -> Result<Chain, Fault> {
    if head >= ring.size() {
        return Err(Fault::new(Error::DescIndex, head));
    }
    let first = ring.descriptor(view, head)?;
    let walk = Walk {
        head,
        direction,
        max_bytes,
    };
    walk.run(ring, view, first, parts, note)
}

/// Looks up the memory of a buffer; `None` if part of it lies where the device may not access it.
#[inline]
pub(crate) fn find<'m>(
    view: &mut View<'m>,
    addr: u64,
    len: usize,
    direction: Direction,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Option<()> {
    let (_, access) = direction.asks();
    match view.finder.slice(addr, len, access) {
        Some(part) => parts.push(part),
        None => scattered(view.mem(), addr, len, access, parts)?,
    }
    Some(())
}

/// The buffer of a chain that is one buffer in one range of memory, as most are, by its first descriptor.
#[inline]
pub(crate) fn single<'m>(
    view: &mut View<'m>,
    first: &Desc,
    direction: Direction,
    max_bytes: usize,
) -> Option<VolatileSlice<'m>> {
    let (flags, access) = direction.asks();
    let len = first.len as usize;
    if first.flags != flags || !(1..=max_bytes).contains(&len) {
        return None;
    }
    view.finder.slice(first.addr, len, access)
}

struct Walk {
    head: u16,
    direction: Direction,
    max_bytes: usize,
}

impl Walk {
    /// Walks the chain whose first descriptor is `first`.
    #[inline(never)]
    fn run<'m>(
        &self,
        ring: &mut Ring,
        view: &mut View<'m>,
        first: Desc,
        parts: &mut Vec<VolatileSlice<'m>>,
        mut note: impl FnMut(u16, Desc),
    ) -> Result<Chain, Fault> {
        let head = self.head;
        note(head, first);
        if first.flags & DESC_F_INDIRECT == 0 {
            let get = |view: &View<'m>, index| {
                let desc = ring.descriptor(view, index)?;
                note(index, desc);
                Ok(desc)
            };
            return self.follow(view, head, first, ring.size(), get, |index| index, parts);
        }
        let table = ring.table(view.mem(), head, first)?;
        let entries = table.len();
        note(0, table.get(0));
        let get = |_: &View<'m>, index| {
            note(index, table.get(index));
            Ok(table.get(index))
        };
        // A fault in a table is told of by the ring's descriptor, as the table may be gone by then;
        // but an index beyond the table is told as it is.
        let mut chain = self.follow(view, 0, table.get(0), entries, get, |_| head, parts)?;
        // All of the table was read, however little of it the chain uses.
        chain.descriptors = entries;
        Ok(chain)
    }

    /// Follows `next` from the descriptor `desc` at `index` on, through a table of `entries`.
    /// `name` gives what a fault of the descriptor at an index names.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn follow<'m>(
        &self,
        view: &mut View<'m>,
        mut index: u16,
        mut desc: Desc,
        entries: u16,
        mut get: impl FnMut(&View<'m>, u16) -> Result<Desc, Fault>,
        name: impl Fn(u16) -> u16,
        parts: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<Chain, Fault> {
        let (write_flag, _) = self.direction.asks();
        let first = desc.len as usize;
        let mut bytes = 0;
        // A chain without a loop has at most as many descriptors as the table.
        for descriptors in 1..=entries {
            if descriptors > 1 {
                index = desc.next;
                if index >= entries {
                    return Err(Fault::new(Error::DescIndex, index));
                }
                desc = get(view, index)?;
            }
            let fault = |error| Fault::new(error, name(index));
            if desc.flags & DESC_F_INDIRECT != 0 {
                return Err(fault(Error::Indirect));
            }
            if desc.flags & DESC_F_WRITE != write_flag {
                return Err(fault(Error::Direction));
            }
            let len = desc.len as usize;
            if len == 0 || len > self.max_bytes - bytes {
                return Err(fault(Error::BufferLength));
            }
            bytes += len;
            find(view, desc.addr, len, self.direction, parts)
                .ok_or_else(|| fault(Error::BufferFault))?;
            if desc.flags & DESC_F_NEXT == 0 {
                return Ok(Chain {
                    head: self.head,
                    descriptors,
                    bytes,
                    first,
                    parts_end: parts.len(),
                });
            }
        }
        Err(Fault::new(Error::ChainLength, self.head))
    }
}

/// Adds a buffer that does not lie in one range of guest memory; `None` if part of it lies in none.
#[cold]
fn scattered<'m>(
    mem: &'m DmaMap,
    addr: u64,
    len: usize,
    access: Permissions,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Option<()> {
    let slices = mem.get_slices(GuestAddress(addr), len, access).ok()?;
    for part in slices {
        parts.push(part.ok()?);
    }
    Some(())
}
