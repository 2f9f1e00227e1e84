// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Rings in guest memory.

use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use vnet_contract::ring as layout;
use vnet_contract::ring::Desc;
use vnet_ring::{Memory, Used};

use crate::GuestRam;

/// The three parts of one ring in guest memory, for `vnet-ring`.
#[derive(Clone, Debug)]
pub struct DmaRing {
    ram: Arc<GuestRam>,
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
}

impl DmaRing {
    /// A ring of `size` descriptors in memory that is taken from `ram`.
    pub fn new(ram: &Arc<GuestRam>, size: u16) -> Self {
        Self {
            desc: ram.alloc(layout::desc_bytes(size) as u64, layout::DESC_ALIGN),
            avail: ram.alloc(layout::avail_bytes(size) as u64, layout::AVAIL_ALIGN),
            used: ram.alloc(layout::used_bytes(size) as u64, layout::USED_ALIGN),
            ram: Arc::clone(ram),
            size,
        }
    }

    /// Bus addresses of descriptor table, avail ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.desc, self.avail, self.used]
    }

    fn store16(&self, addr: u64, value: u16, order: Ordering) {
        self.ram.store(addr, value.to_le(), order);
    }

    fn load16(&self, addr: u64, order: Ordering) -> u16 {
        u16::from_le(self.ram.load(addr, order))
    }
}

impl Memory for DmaRing {
    fn size(&self) -> u16 {
        self.size
    }

    fn clear(&mut self) {
        let zero = vec![0; layout::desc_bytes(self.size)];
        self.ram.write(self.desc, &zero);
        self.ram
            .write(self.avail, &zero[..layout::avail_bytes(self.size)]);
        self.ram
            .write(self.used, &zero[..layout::used_bytes(self.size)]);
    }

    fn write_desc(&mut self, index: u16, desc: Desc) {
        let addr = self.desc + u64::from(index) * layout::DESC_SIZE as u64;
        for (word, at) in desc.to_words().into_iter().zip([addr, addr + 8]) {
            self.ram.store(at, word.to_le(), Ordering::Relaxed);
        }
    }

    fn write_avail(&mut self, entry: u16, head: u16) {
        let at = layout::RING_ENTRIES + usize::from(entry) * layout::AVAIL_ENTRY_SIZE;
        self.store16(self.avail + at as u64, head, Ordering::Relaxed);
    }

    fn publish_avail_index(&mut self, index: u16) {
        self.store16(
            self.avail + layout::RING_IDX as u64,
            index,
            Ordering::Release,
        );
    }

    fn write_used_event(&mut self, index: u16) {
        let at = layout::used_event_offset(self.size) as u64;
        self.store16(self.avail + at, index, Ordering::Relaxed);
    }

    fn used_index(&self) -> u16 {
        self.load16(self.used + layout::RING_IDX as u64, Ordering::Acquire)
    }

    fn used(&self, entry: u16) -> Used {
        let at = layout::RING_ENTRIES + usize::from(entry) * layout::USED_ENTRY_SIZE;
        let addr = self.used + at as u64;
        Used {
            id: u32::from_le(self.ram.load(addr, Ordering::Relaxed)),
            len: u32::from_le(self.ram.load(addr + 4, Ordering::Relaxed)),
        }
    }

    fn avail_event(&self) -> u16 {
        let at = layout::avail_event_offset(self.size) as u64;
        self.load16(self.used + at, Ordering::Relaxed)
    }

    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A ring without a driver: what a test writes is what the card sees.
#[derive(Debug)]
pub struct RawQueue {
    /// The ring's memory.
    pub ring: DmaRing,
    avail_index: u16,
}

impl RawQueue {
    /// An empty ring of `size` descriptors.
    pub fn new(ram: &Arc<GuestRam>, size: u16) -> Self {
        let mut ring = DmaRing::new(ram, size);
        ring.clear();
        Self {
            ring,
            avail_index: 0,
        }
    }

    /// Clears the ring and begins at index 0.
    pub fn restart(&mut self) {
        self.ring.clear();
        self.avail_index = 0;
    }

    /// Writes a descriptor.
    pub fn desc(&mut self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let desc = Desc {
            addr,
            len,
            flags,
            next,
        };
        self.ring.write_desc(index, desc);
    }

    /// Writes a table of descriptors at `addr`, and a descriptor at `index` that points to it.
    pub fn indirect(&mut self, index: u16, addr: u64, table: &[Desc]) {
        let words = table.iter().flat_map(|desc| desc.to_words());
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        self.ring.ram.write(addr, &bytes);
        self.desc(index, addr, bytes.len() as u32, layout::DESC_F_INDIRECT, 0);
    }

    /// Puts `head` into the avail ring and moves the index by one.
    pub fn offer(&mut self, head: u16) {
        self.ring
            .write_avail(self.avail_index & (self.ring.size - 1), head);
        self.move_index(1);
    }

    /// Moves the avail index.
    pub fn move_index(&mut self, by: u16) {
        self.avail_index = self.avail_index.wrapping_add(by);
        self.ring.publish_avail_index(self.avail_index);
        self.ring.full_barrier();
    }

    /// The avail index as last shown.
    pub fn avail_index(&self) -> u16 {
        self.avail_index
    }

    /// The used index that the card wrote.
    pub fn used_index(&self) -> u16 {
        self.ring.used_index()
    }
}
