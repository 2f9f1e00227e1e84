// SPDX-License-Identifier: GPL-2.0

//! The memory of one ring: descriptor table, avail ring and used ring in one coherent allocation.

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
    Used, //
};

/// Ring memory, laid out one part behind the other.
pub(crate) struct RingMemory {
    memory: SharedMemory,
    size: u16,
    avail: usize,
    used: usize,
}

/// The card and the CPU write different parts: keep them on different cache lines.
const PART_ALIGN: usize = 64;

impl RingMemory {
    pub(crate) fn new(dev: &Device<Bound>, size: u16) -> Result<Self> {
        let avail = ring::desc_bytes(size).next_multiple_of(PART_ALIGN);
        let used = (avail + ring::avail_bytes(size)).next_multiple_of(PART_ALIGN);
        Ok(Self {
            memory: SharedMemory::new(dev, used + ring::used_bytes(size))?,
            size,
            avail,
            used,
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
}

impl Memory for RingMemory {
    #[inline]
    fn size(&self) -> u16 {
        self.size
    }

    fn clear(&mut self) {
        self.memory.clear();
    }

    #[inline]
    fn write_desc(&mut self, index: u16, desc: ring::Desc) {
        let at = self.entry(index) * ring::DESC_SIZE;
        let [addr, rest] = desc.to_words();
        self.memory.write64(at, addr);
        self.memory.write64(at + 8, rest);
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
