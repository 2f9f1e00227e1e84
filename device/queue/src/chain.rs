// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The checked walk along a descriptor chain.

use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};
use vnet_contract::queue::Error;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_dma::DmaMap;

use crate::ring::Ring;
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
    /// Where the parts of the chain end in the vector that they were added to.
    pub(crate) parts_end: usize,
}

/// Walks the chain from `head` and adds its buffers to `parts`; nothing is added on error.
/// A chain of more than `max_bytes` is refused before its memory is looked up.
pub(crate) fn walk<'m>(
    ring: &mut Ring,
    mem: &'m DmaMap,
    head: u16,
    direction: Direction,
    max_bytes: usize,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Result<Chain, Fault> {
    let before = parts.len();
    let walk = Walk {
        mem,
        head,
        direction,
        max_bytes,
    };
    let result = walk.run(ring, parts);
    if result.is_err() {
        parts.truncate(before);
    }
    result
}

struct Walk<'m> {
    mem: &'m DmaMap,
    head: u16,
    direction: Direction,
    max_bytes: usize,
}

impl<'m> Walk<'m> {
    fn run(&self, ring: &mut Ring, parts: &mut Vec<VolatileSlice<'m>>) -> Result<Chain, Fault> {
        let head = self.head;
        if head >= ring.size() {
            return Err(Fault::new(Error::DescIndex, head));
        }
        let first = ring.descriptor(self.mem, head)?;
        if first.flags & DESC_F_INDIRECT == 0 {
            let get = |index| ring.descriptor(self.mem, index);
            return self.follow(head, first, ring.size(), get, |index| index, parts);
        }
        let table = ring.table(self.mem, head, first)?;
        let entries = table.len();
        let get = |index| Ok(table.get(index));
        // A fault in a table is told of by the ring's descriptor: the table may be gone by then.
        let mut chain = self.follow(0, table.get(0), entries, get, |_| head, parts)?;
        // All of the table was read, however little of it the chain uses.
        chain.descriptors = entries;
        Ok(chain)
    }

    /// Follows `next` from the descriptor `desc` at `index` on, through a table of `entries`.
    /// `name` gives what a fault of the descriptor at an index names.
    fn follow(
        &self,
        mut index: u16,
        mut desc: Desc,
        entries: u16,
        get: impl Fn(u16) -> Result<Desc, Fault>,
        name: impl Fn(u16) -> u16,
        parts: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<Chain, Fault> {
        let (write_flag, access) = match self.direction {
            Direction::Read => (0, Permissions::Read),
            Direction::Write => (DESC_F_WRITE, Permissions::Write),
        };
        let mut bytes = 0;
        // A chain without a loop has at most as many descriptors as the table.
        for descriptors in 1..=entries {
            if descriptors > 1 {
                index = desc.next;
                if index >= entries {
                    return Err(Fault::new(Error::DescIndex, index));
                }
                desc = get(index)?;
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
            for part in self
                .mem
                .get_slices(GuestAddress(desc.addr), len, access)
                .map_err(|_| fault(Error::BufferFault))?
            {
                parts.push(part.map_err(|_| fault(Error::BufferFault))?);
            }
            if desc.flags & DESC_F_NEXT == 0 {
                return Ok(Chain {
                    head: self.head,
                    descriptors,
                    bytes,
                    parts_end: parts.len(),
                });
            }
        }
        Err(Fault::new(Error::ChainLength, self.head))
    }
}
