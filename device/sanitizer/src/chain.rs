// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A chain of descriptors, as it stands in guest memory.

use vm_memory::{Bytes, GuestAddress};
use vnet_contract::ring::{desc_bytes, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_SIZE};
use vnet_dma::DmaMap;

/// A chain as it was found at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The descriptors of the ring that it takes.
    pub(crate) indices: Vec<u16>,
    /// What they hold.
    descs: Vec<Desc>,
    /// What its indirect table holds, as far as it is followed.
    table: Vec<Desc>,
}

impl Chain {
    /// Reads the chain that begins with `head`, from a descriptor table of `size` at `table`; `None`
    /// if it is no chain. That is for the engine to refuse.
    pub(crate) fn read(mem: &DmaMap, table: u64, size: u16, head: u16) -> Option<Self> {
        let mut chain = Self::default();
        chain.fill(mem, table, size, head).then_some(chain)
    }

    /// The same, as far as it can be read.
    pub(crate) fn read_part(mem: &DmaMap, table: u64, size: u16, head: u16) -> Self {
        let mut chain = Self::default();
        chain.fill(mem, table, size, head);
        chain
    }

    /// True if that is all of the chain.
    fn fill(&mut self, mem: &DmaMap, table: u64, size: u16, head: u16) -> bool {
        let whole = follow(mem, table, size, head, |index, desc| {
            self.indices.push(index);
            self.descs.push(desc);
        });
        let Some((at, len)) = self.indirect().filter(|_| whole.is_some()) else {
            return whole.is_some();
        };
        if !len.is_multiple_of(DESC_SIZE) || len > desc_bytes(size) {
            return false;
        }
        let entries = (len / DESC_SIZE) as u16;
        follow(mem, at, entries, 0, |_, desc| self.table.push(desc)).is_some()
    }

    /// Where its indirect table is, if it has one, and the length of that.
    pub(crate) fn indirect(&self) -> Option<(u64, usize)> {
        let first = self.descs.first()?;
        (first.flags & DESC_F_INDIRECT != 0).then_some((first.addr, first.len as usize))
    }

    /// The buffer of this descriptor of the ring, or the first of the table that it points to.
    pub(crate) fn buffer_of(&self, index: u16) -> Option<u64> {
        let descs = self.indices.iter().zip(&self.descs);
        let mut named = descs.filter(|(at, _)| **at == index).map(|(_, desc)| desc);
        self.table.first().or(named.next()).map(|desc| desc.addr)
    }

    /// The buffers, as address and length.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (u64, usize)> + Clone + '_ {
        let descs = match self.table.is_empty() {
            true => &self.descs,
            false => &self.table,
        };
        descs.iter().map(|desc| (desc.addr, desc.len as usize))
    }

    /// Number of descriptors, those of a table included.
    pub(crate) fn descriptors(&self) -> usize {
        self.descs.len() + self.table.len()
    }

    /// Sum of the lengths.
    pub(crate) fn bytes(&self) -> usize {
        self.buffers().map(|(_, len)| len).sum()
    }

    /// Copies the first bytes of the chain out; says how many there were.
    pub(crate) fn start(&self, mem: &DmaMap, bytes: &mut [u8]) -> usize {
        let mut done = 0usize;
        for (addr, len) in self.buffers() {
            let end = bytes.len().min(done.saturating_add(len));
            if mem
                .read_slice(&mut bytes[done..end], GuestAddress(addr))
                .is_err()
            {
                break;
            }
            done = end;
        }
        done
    }
}

/// Follows a chain through a table of `size` descriptors; `None` if it does not end well.
fn follow(
    mem: &DmaMap,
    table: u64,
    size: u16,
    head: u16,
    mut each: impl FnMut(u16, Desc),
) -> Option<()> {
    let mut index = head;
    for _ in 0..size {
        if index >= size {
            return None;
        }
        let at = table.wrapping_add(u64::from(index) * DESC_SIZE as u64);
        let words: [u64; 2] = mem.read_obj(GuestAddress(at)).ok()?;
        let desc = Desc::from_words(words.map(u64::from_le));
        each(index, desc);
        if desc.flags & DESC_F_NEXT == 0 {
            return Some(());
        }
        index = desc.next;
    }
    None
}
