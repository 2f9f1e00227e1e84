// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Access to the memory of one ring.

use vnet_contract::ring::Desc;

use crate::Tables;

/// An entry of the used ring as the card wrote it: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain that comes back.
    pub id: u32,
    /// Bytes that the card wrote into the chain.
    pub len: u32,
}

/// The descriptor table, avail ring and used ring of one queue, laid out as
/// [`vnet_contract::ring`] says, little-endian.
///
/// The card reads and writes this memory at any time, so every access must be one that the
/// compiler neither splits, repeats nor drops (volatile or atomic). Values are in CPU byte order;
/// the implementation converts. Indices passed in are below [`Memory::size`]; an implementation
/// must nevertheless stay inside its memory for any value, since this trait is safe.
pub trait Memory {
    /// Number of descriptors.
    fn size(&self) -> u16;

    /// The tables for long chains, if the card accepted them (`INDIRECT_DESC`).
    fn tables(&self) -> Tables {
        Tables::NONE
    }

    /// Bus address of a table. Asked only for one that [`Self::tables`] has.
    fn table_address(&self, table: u16) -> u64 {
        let _ = table;
        0
    }

    /// Stores a descriptor of a table. No ordering. Done only in one that [`Self::tables`] has.
    fn write_table(&mut self, table: u16, entry: u16, desc: Desc) {
        let _ = (table, entry, desc);
    }

    /// Sets all three parts to zero. Called only while the card does not use the ring.
    fn clear(&mut self);

    /// Stores a descriptor. No ordering.
    fn write_desc(&mut self, index: u16, desc: Desc);

    /// Stores an entry of the avail ring. No ordering.
    fn write_avail(&mut self, entry: u16, head: u16);

    /// Stores the avail index with *release* ordering: whoever sees it sees the descriptors and
    /// the avail entries written before.
    fn publish_avail_index(&mut self, index: u16);

    /// Stores `used_event`. No ordering.
    fn write_used_event(&mut self, index: u16);

    /// Loads the used index with *acquire* ordering: used entries and buffers read after this are
    /// as the card left them before it moved the index.
    fn used_index(&self) -> u16;

    /// Loads an entry of the used ring. No ordering.
    fn used(&self, entry: u16) -> Used;

    /// Loads `avail_event`. No ordering.
    fn avail_event(&self) -> u16;

    /// Full barrier: stores before it are visible to the card before any load after it is done.
    ///
    /// Both notification protocols rest on this store-load order. The other side is a process on
    /// the host, so a barrier that is only meant between the CPUs of the guest is not enough: in
    /// a guest with one emulated CPU, QEMU's TCG turns a locked instruction (Linux's `smp_mb` on
    /// x86) into plain accesses but keeps `mfence` (`mb`, `dma_mb`).
    fn full_barrier(&self);
}
