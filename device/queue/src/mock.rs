// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Guest memory and a driver without manners, for tests.

use std::fs::File;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use vm_memory::{Bytes, GuestAddress};
use vnet_contract::hdr::NetHdr;
use vnet_contract::ring::{self, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_dma::{AddressSpace, DmaMap, Mapping};

use crate::RingConfig;

/// Guest memory that both sides can reach.
#[derive(Clone, Debug)]
pub struct Memory {
    /// What the device sees. Bus mastering is on; ranges can be added and removed.
    pub space: AddressSpace,
    /// What the guest sees, whatever happens to the device's view.
    pub guest: Arc<DmaMap>,
}

impl Memory {
    /// Memory at the given (address, size) ranges.
    pub fn new(ranges: &[(u64, u64)]) -> Self {
        let space = AddressSpace::new();
        let own = AddressSpace::new();
        for &(address, size) in ranges {
            let file = memfd(size);
            for s in [&space, &own] {
                s.map(Mapping {
                    address,
                    size,
                    file: Some(file.try_clone().expect("dup")),
                    offset: 0,
                    read: true,
                    write: true,
                })
                .expect("test memory is mappable");
            }
        }
        space.set_bus_master(true);
        own.set_bus_master(true);
        let guest = own.memory().expect("bus mastering is on");
        Self { space, guest }
    }

    /// The device's snapshot.
    pub fn device(&self) -> Arc<DmaMap> {
        self.space.memory().expect("bus mastering is on")
    }

    /// Writes as the guest.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.guest
            .write_slice(bytes, GuestAddress(address))
            .expect("within guest memory");
    }

    /// Reads as the guest.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.guest
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("within guest memory");
        bytes
    }
}

/// A file in memory.
pub fn memfd(size: u64) -> File {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd_create");
    ftruncate(&fd, size).expect("ftruncate");
    File::from(fd)
}

/// The driver's end of a ring. It does what it is told, right or wrong.
#[derive(Clone, Debug)]
pub struct Driver {
    /// What the device is told of the ring.
    pub config: RingConfig,
    mem: Memory,
    size: u16,
    avail: u16,
    used: u16,
}

impl Driver {
    /// A ring at `base`, which needs less than [`Driver::bytes`] of memory.
    pub fn new(mem: &Memory, base: u64, size: u16, features: u64) -> Self {
        let desc = base;
        let avail = desc + ring::desc_bytes(size) as u64;
        let used = (avail + ring::avail_bytes(size) as u64).next_multiple_of(ring::USED_ALIGN);
        Self {
            config: RingConfig {
                size: size.into(),
                desc,
                avail,
                used,
                index_avail: 0,
                index_used: 0,
                features,
            },
            mem: mem.clone(),
            size,
            avail: 0,
            used: 0,
        }
    }

    /// Memory that a ring of this size may take.
    pub fn bytes(size: u16) -> u64 {
        u64::from(size) * 32 + 64
    }

    /// Starts with both indices at `index`.
    pub fn start_at(mut self, index: u16) -> Self {
        self.config.index_avail = index;
        self.config.index_used = index;
        self.avail = index;
        self.used = index;
        self.set_avail_idx(index);
        self.store16(self.config.used + ring::RING_IDX as u64, index);
        self.set_used_event(index);
        self
    }

    /// Writes a descriptor.
    pub fn desc(&self, index: u16, desc: Desc) {
        let at = self.config.desc + u64::from(index) * ring::DESC_SIZE as u64;
        self.descriptors(at, &[desc]);
    }

    /// Writes a chain of (address, length) buffers over consecutive descriptors from `head`.
    pub fn chain(&self, head: u16, buffers: &[(u64, u32)], write: bool) {
        for (index, desc) in (head..).zip(chain(head, buffers, write)) {
            self.desc(index, desc);
        }
    }

    /// Writes a table of descriptors at `address`, and a descriptor at `index` that points to it.
    pub fn indirect(&self, index: u16, address: u64, table: &[Desc]) {
        self.descriptors(address, table);
        self.desc(
            index,
            Desc {
                addr: address,
                len: (table.len() * ring::DESC_SIZE) as u32,
                flags: DESC_F_INDIRECT,
                next: 0,
            },
        );
    }

    fn descriptors(&self, address: u64, table: &[Desc]) {
        let words = table.iter().flat_map(|desc| desc.to_words());
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        self.mem.write(address, &bytes);
    }

    /// Offers a chain to the device. Returns true if the device wants a doorbell.
    pub fn offer(&mut self, head: u16) -> bool {
        let slot = u64::from(self.avail % self.size);
        let at = self.config.avail + ring::RING_ENTRIES as u64 + slot * 2;
        self.store16(at, head);
        let old = self.avail;
        self.avail = old.wrapping_add(1);
        self.set_avail_idx(self.avail);
        fence(Ordering::SeqCst);
        ring::need_event(self.avail_event(), self.avail, old)
    }

    /// Writes the avail index.
    pub fn set_avail_idx(&self, idx: u16) {
        self.store16(self.config.avail + ring::RING_IDX as u64, idx);
    }

    /// Where the device wants the next doorbell.
    pub fn avail_event(&self) -> u16 {
        self.load16(self.config.used + ring::avail_event_offset(self.size) as u64)
    }

    /// Says where the next interrupt is wanted.
    pub fn set_used_event(&self, idx: u16) {
        self.store16(
            self.config.avail + ring::used_event_offset(self.size) as u64,
            idx,
        );
    }

    /// Asks for an interrupt with the next used entry; true if there is one already.
    pub fn rearm(&self) -> bool {
        self.set_used_event(self.used);
        fence(Ordering::SeqCst);
        self.used_idx() != self.used
    }

    /// The device's used index.
    pub fn used_idx(&self) -> u16 {
        self.load16(self.config.used + ring::RING_IDX as u64)
    }

    /// Takes the next used entry: head and length.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_idx() == self.used {
            return None;
        }
        let slot = u64::from(self.used % self.size);
        let at = self.config.used + ring::RING_ENTRIES as u64 + slot * 8;
        self.used = self.used.wrapping_add(1);
        let load = |at| {
            let v: u32 = self
                .mem
                .guest
                .load(GuestAddress(at), Ordering::Relaxed)
                .expect("within guest memory");
            u32::from_le(v)
        };
        Some((load(at), load(at + 4)))
    }

    fn load16(&self, at: u64) -> u16 {
        let v: u16 = self
            .mem
            .guest
            .load(GuestAddress(at), Ordering::Acquire)
            .expect("within guest memory");
        u16::from_le(v)
    }

    fn store16(&self, at: u64, v: u16) {
        self.mem
            .guest
            .store(v.to_le(), GuestAddress(at), Ordering::Release)
            .expect("within guest memory");
    }
}

/// A chain of (address, length) buffers over consecutive descriptors from `head` of their table.
pub fn chain(head: u16, buffers: &[(u64, u32)], write: bool) -> Vec<Desc> {
    let one = |(i, &(addr, len)): (u16, &(u64, u32))| {
        let last = usize::from(i) + 1 == buffers.len();
        Desc {
            addr,
            len,
            flags: if write { DESC_F_WRITE } else { 0 } | if last { 0 } else { DESC_F_NEXT },
            next: if last { 0 } else { head + i + 1 },
        }
    };
    (0..).zip(buffers).map(one).collect()
}

/// Header and frame as they stand in a transmit buffer.
pub fn packet(header: NetHdr, frame: &[u8]) -> Vec<u8> {
    [&header.to_bytes()[..], frame].concat()
}
