// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Indirect descriptors: chains that lie in a table of their own.

use vm_memory::{GuestAddress, GuestMemory, Permissions};
use vnet_contract::queue::Error;
use vnet_contract::ring::{desc_bytes, Desc, DESC_F_INDIRECT, DESC_SIZE};
use vnet_dma::DmaMap;

use crate::Fault;

/// Takes tables out of guest memory, one at a time.
#[derive(Debug)]
pub(crate) struct Indirect {
    /// A table as long as the ring, which is the longest there may be.
    buffer: Box<[u8]>,
}

/// The copy of a table: whatever the guest does to its own, the walk sees this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'b>(&'b [[u8; DESC_SIZE]]);

impl Indirect {
    /// For a ring of `size` descriptors.
    pub(crate) fn new(size: u16) -> Self {
        Self {
            buffer: vec![0; desc_bytes(size)].into_boxed_slice(),
        }
    }

    /// Copies the table that `desc`, the ring's descriptor at `index`, points to.
    pub(crate) fn table(
        &mut self,
        mem: &DmaMap,
        index: u16,
        desc: Desc,
    ) -> Result<Table<'_>, Fault> {
        let len = desc.len as usize;
        let fits = len != 0 && len.is_multiple_of(DESC_SIZE) && len <= self.buffer.len();
        if desc.flags != DESC_F_INDIRECT || !fits {
            return Err(Fault::new(Error::Indirect, index));
        }
        let fault = |_| Fault::new(Error::BufferFault, index);
        let mut done = 0;
        for part in mem
            .get_slices(GuestAddress(desc.addr), len, Permissions::Read)
            .map_err(fault)?
        {
            done += part.map_err(fault)?.copy_to(&mut self.buffer[done..len]);
        }
        let (entries, _) = self.buffer[..len].as_chunks();
        Ok(Table(entries))
    }
}

impl Table<'_> {
    /// Number of descriptors; not zero.
    pub(crate) fn len(self) -> u16 {
        // A table is no longer than a ring.
        self.0.len() as u16
    }

    /// The descriptor at `index`, which must be below the length.
    pub(crate) fn get(self, index: u16) -> Desc {
        let (words, _) = self.0[usize::from(index)].as_chunks();
        Desc::from_words([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
    }
}
