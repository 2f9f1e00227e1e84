// SPDX-License-Identifier: GPL-2.0

//! The memory of one ring: descriptor table, avail ring, used ring and tables for long chains in one
//! coherent allocation.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*,
};
use netdev::dma::{
    full_barrier,
    SharedMemory, //
};
use vnet_contract::ring;
use vnet_ring::{
    Memory,
    Tables,
    Used, //
};

/// Ring memory, laid out one part behind the other.
pub(crate) struct RingMemory {
    memory: SharedMemory,
    size: u16,
    avail: usize,
    used: usize,
    tables: Tables,
    /// Where the tables begin, and the distance from one to the next.
    tables_at: usize,
    table_stride: usize,
}

/// The card and the CPU write different parts: keep them on different cache lines. So should chains.
const PART_ALIGN: usize = 64;

impl RingMemory {
    pub(crate) fn new(dev: &Device<Bound>, size: u16, tables: Tables) -> Result<Self> {
        let avail = ring::desc_bytes(size).next_multiple_of(PART_ALIGN);
        let used = (avail + ring::avail_bytes(size)).next_multiple_of(PART_ALIGN);
        let tables_at = (used + ring::used_bytes(size)).next_multiple_of(PART_ALIGN);
        let table_stride = ring::desc_bytes(tables.entries).next_multiple_of(PART_ALIGN);
        let bytes = tables_at + usize::from(tables.count) * table_stride;
        Ok(Self {
            memory: SharedMemory::new(dev, bytes)?,
            size,
            avail,
            used,
            tables,
            tables_at,
            table_stride,
        })
    }

    /// Bus addresses of descriptor table, avail ring and used ring.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        let base = self.memory.dma_address();
        [base, base + self.avail as u64, base + self.used as u64]
    }

    /// Place of an entry, inside the ring for any value.
    #[inline]
    fn entry(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Place of a table.
    #[inline]
    fn table(&self, table: u16) -> usize {
        self.tables_at + usize::from(table) * self.table_stride
    }

    #[inline]
    fn write(&mut self, at: usize, desc: ring::Desc) {
        let [addr, rest] = desc.to_words();
        self.memory.write64(at, addr);
        self.memory.write64(at + 8, rest);
    }
}

impl Memory for RingMemory {
    #[inline]
    fn size(&self) -> u16 {
        self.size
    }

    fn tables(&self) -> Tables {
        self.tables
    }

    #[inline]
    fn table_address(&self, table: u16) -> u64 {
        self.memory.dma_address() + self.table(table) as u64
    }

    #[inline]
    fn write_table(&mut self, table: u16, entry: u16, desc: ring::Desc) {
        // Beyond the memory, nothing is written.
        self.write(self.table(table) + ring::desc_bytes(entry), desc);
    }

    fn clear(&mut self) {
        self.memory.clear();
    }

    #[inline]
    fn write_desc(&mut self, index: u16, desc: ring::Desc) {
        self.write(self.entry(index) * ring::DESC_SIZE, desc);
    }

    #[inline]
    fn write_avail(&mut self, entry: u16, head: u16) {
        let at = self.avail + ring::RING_ENTRIES + self.entry(entry) * ring::AVAIL_ENTRY_SIZE;
        self.memory.write16(at, head);
    }

    #[inline]
    fn publish_avail_index(&mut self, index: u16) {
        self.memory
            .store_release(self.avail + ring::RING_IDX, index);
    }

    #[inline]
    fn write_used_event(&mut self, index: u16) {
        let at = self.avail + ring::used_event_offset(self.size);
        self.memory.write16(at, index);
    }

    #[inline]
    fn used_index(&self) -> u16 {
        self.memory.load_acquire(self.used + ring::RING_IDX)
    }

    #[inline]
    fn used(&self, entry: u16) -> Used {
        let at = self.used + ring::RING_ENTRIES + self.entry(entry) * ring::USED_ENTRY_SIZE;
        Used {
            id: self.memory.read32(at),
            len: self.memory.read32(at + 4),
        }
    }

    #[inline]
    fn avail_event(&self) -> u16 {
        self.memory
            .read16(self.used + ring::avail_event_offset(self.size))
    }

    #[inline]
    fn full_barrier(&self) {
        full_barrier();
    }
}
