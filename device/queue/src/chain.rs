// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The checked walk along a descriptor chain.

use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};
use vnet_contract::queue::Error;
use vnet_contract::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
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
    /// Number of descriptors.
    pub(crate) descriptors: u16,
    /// Sum of the lengths.
    pub(crate) bytes: usize,
    /// Where the parts of the chain end in the vector that they were added to.
    pub(crate) parts_end: usize,
}

/// Walks the chain from `head` and adds its buffers to `parts`; nothing is added on error.
/// A chain of more than `max_bytes` is refused before its memory is looked up.
pub(crate) fn walk<'m>(
    ring: &Ring,
    mem: &'m DmaMap,
    head: u16,
    direction: Direction,
    max_bytes: usize,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Result<Chain, Fault> {
    let before = parts.len();
    let result = try_walk(ring, mem, head, direction, max_bytes, parts);
    if result.is_err() {
        parts.truncate(before);
    }
    result
}

fn try_walk<'m>(
    ring: &Ring,
    mem: &'m DmaMap,
    head: u16,
    direction: Direction,
    max_bytes: usize,
    parts: &mut Vec<VolatileSlice<'m>>,
) -> Result<Chain, Fault> {
    let (write_flag, access) = match direction {
        Direction::Read => (0, Permissions::Read),
        Direction::Write => (DESC_F_WRITE, Permissions::Write),
    };
    let mut bytes = 0;
    let mut index = head;
    // A chain without a loop has at most as many descriptors as the ring.
    for descriptors in 1..=ring.size() {
        if index >= ring.size() {
            return Err(Fault::new(Error::DescIndex, index));
        }
        let desc = ring.descriptor(mem, index)?;
        if desc.flags & DESC_F_INDIRECT != 0 {
            return Err(Fault::new(Error::Indirect, index));
        }
        if desc.flags & DESC_F_WRITE != write_flag {
            return Err(Fault::new(Error::Direction, index));
        }
        let len = desc.len as usize;
        if len == 0 || len > max_bytes - bytes {
            return Err(Fault::new(Error::BufferLength, index));
        }
        bytes += len;
        let buffer_fault = |_| Fault::new(Error::BufferFault, index);
        for part in mem
            .get_slices(GuestAddress(desc.addr), len, access)
            .map_err(buffer_fault)?
        {
            parts.push(part.map_err(buffer_fault)?);
        }
        if desc.flags & DESC_F_NEXT == 0 {
            return Ok(Chain {
                head,
                descriptors,
                bytes,
                parts_end: parts.len(),
            });
        }
        index = desc.next;
    }
    Err(Fault::new(Error::ChainLength, head))
}
