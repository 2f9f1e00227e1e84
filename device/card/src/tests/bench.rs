// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card on the bench: short ways to its registers, and some guest memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use vnet_backend::Endpoint;
use vnet_contract::features::FEATURES;
use vnet_contract::pci::{MAX_QUEUES, MSIX_PBA_OFFSET};
use vnet_contract::queue::Error as Rule;
use vnet_contract::regs::{self, queue_reg, Reset};
use vnet_contract::ring::{Desc, DESC_SIZE, RING_IDX};
use vnet_dma::Mapping;
use vnet_loopback::Null;

use crate::{Card, Config};

pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
pub(super) const PAIRS: u16 = 2;

/// Where guest memory is on the bus.
pub(super) const MEMORY: u64 = 0x10_0000;
pub(super) const MEMORY_SIZE: u64 = 0x10_0000;
/// From the ring of one queue to that of the next.
pub(super) const RING_STRIDE: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where frames are, behind all rings.
const FRAMES: u64 = MAX_QUEUES as u64 * RING_STRIDE;

const COMMAND: u64 = 4;
pub(super) const MEMORY_SPACE: u16 = 2;
pub(super) const BUS_MASTER: u16 = 4;
pub(super) const PM_CTRL: u64 = 0x44;

pub(super) struct Bench {
    pub(super) card: Card,
    memory: File,
}

/// A card that nobody has touched.
pub(super) fn new_card(endpoint: Box<dyn Endpoint>) -> Card {
    Card::new(config(), endpoint).unwrap()
}

pub(super) fn config() -> Config {
    Config {
        queue_pairs: PAIRS,
        max_mtu: 9000,
        ..Config::new(MAC)
    }
}

impl Bench {
    /// A card behind nothing, with memory space, bus mastering and memory.
    pub(super) fn new() -> Self {
        Self::with(Box::new(Null::new()))
    }

    pub(super) fn with(endpoint: Box<dyn Endpoint>) -> Self {
        Self::prepare(new_card(endpoint))
    }

    /// Gives a new card memory space, bus mastering and memory.
    pub(super) fn prepare(card: Card) -> Self {
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let memory = File::from(memory);
        memory.set_len(MEMORY_SIZE).unwrap();
        let mut bench = Self { card, memory };
        bench.map();
        bench.command(MEMORY_SPACE | BUS_MASTER);
        bench
    }

    /// Maps memory, as it is after [`Self::prepare`].
    pub(super) fn map(&mut self) {
        self.map_part(0..MEMORY_SIZE);
    }

    /// Maps only this part of it.
    pub(super) fn map_part(&mut self, part: Range<u64>) {
        self.card
            .map(Mapping {
                address: MEMORY + part.start,
                size: part.end - part.start,
                file: Some(self.memory.try_clone().unwrap()),
                offset: part.start,
                read: true,
                write: true,
            })
            .unwrap();
    }

    /// Takes it away.
    pub(super) fn unmap(&mut self) {
        self.card.unmap(MEMORY, MEMORY_SIZE);
    }

    /// The same guest with another card.
    pub(super) fn exchange(&mut self, card: Card) -> Card {
        std::mem::replace(&mut self.card, card)
    }

    pub(super) fn command(&mut self, value: u16) {
        self.card.write_config(COMMAND, &value.to_le_bytes());
    }

    pub(super) fn read(&mut self, offset: u32) -> u32 {
        let mut data = [0xa5; 4];
        self.card.read_registers(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, offset: u32, value: u32) {
        self.card
            .write_registers(offset.into(), &value.to_le_bytes());
    }

    pub(super) fn illegal(&mut self) -> u32 {
        self.read(regs::ILLEGAL_ACCESSES)
    }

    pub(super) fn accept(&mut self, features: u64) {
        self.write(regs::DRIVER_FEATURES_LO, features as u32);
        self.write(regs::DRIVER_FEATURES_HI, (features >> 32) as u32);
        self.write(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
    }

    /// Programs a queue with a ring in guest memory, and enables it.
    pub(super) fn start(&mut self, queue: u16) {
        let ring = MEMORY + u64::from(queue) * RING_STRIDE;
        for (reg, value) in [
            (regs::Q_SIZE, 64),
            (regs::Q_DESC_LO, ring as u32),
            (regs::Q_AVAIL_LO, (ring + AVAIL) as u32),
            (regs::Q_USED_LO, (ring + USED) as u32),
            (regs::Q_CTRL, regs::Q_CTRL_ENABLE),
        ] {
            self.write(queue_reg(queue, reg), value);
        }
    }

    /// Puts one frame of 60 bytes, with its header, into the ring of a transmit queue, and rings.
    pub(super) fn send(&mut self, queue: u16) {
        let desc = Desc {
            addr: MEMORY + FRAMES,
            len: 12 + 60,
            flags: 0,
            next: 0,
        };
        self.send_chain(queue, desc);
    }

    /// Offers the first chain of a transmit queue again, as the `count`th, and rings.
    pub(super) fn send_again(&mut self, queue: u16, count: u16) {
        let ring = u64::from(queue) * RING_STRIDE;
        let index = ring + AVAIL + RING_IDX as u64;
        self.memory
            .write_all_at(&count.to_le_bytes(), index)
            .unwrap();
        self.write(regs::doorbell_reg(queue), count.into());
    }

    /// Puts this descriptor into the ring of a queue as its first chain, and rings.
    pub(super) fn send_chain(&mut self, queue: u16, desc: Desc) {
        let ring = u64::from(queue) * RING_STRIDE;
        let mut bytes = [0; DESC_SIZE];
        for (word, out) in desc.to_words().iter().zip(bytes.chunks_exact_mut(8)) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        self.memory.write_all_at(&bytes, ring).unwrap();
        let index = ring + AVAIL + RING_IDX as u64;
        self.memory
            .write_all_at(&1u16.to_le_bytes(), index)
            .unwrap();
        self.write(regs::doorbell_reg(queue), 1);
    }

    /// The used index of a queue.
    pub(super) fn used(&self, queue: u16) -> u16 {
        let index = u64::from(queue) * RING_STRIDE + USED + RING_IDX as u64;
        let mut bytes = [0; 2];
        self.memory.read_exact_at(&mut bytes, index).unwrap();
        u16::from_le_bytes(bytes)
    }

    /// Waits for what a worker does.
    pub(super) fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !done(self) {
            assert!(std::time::Instant::now() < end);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    pub(super) fn wait_used(&mut self, queue: u16, index: u16) {
        self.wait(|b| b.used(queue) == index);
    }

    pub(super) fn is_running(&mut self, queue: u16) -> bool {
        let status = self.read(queue_reg(queue, regs::Q_STATUS));
        let running = status & regs::Q_STATUS_RUNNING != 0;
        let control = self.read(queue_reg(queue, regs::Q_CTRL));
        assert_eq!(control == regs::Q_CTRL_ENABLE, running);
        running
    }

    /// The error that stopped a queue, and its detail.
    pub(super) fn error(&mut self, queue: u16) -> Option<(Rule, u32)> {
        // The worker may stop the queue between two reads.
        let (status, listed) = loop {
            let status = self.read(queue_reg(queue, regs::Q_STATUS));
            let listed = self.read(regs::QUEUE_ERRORS) & 1 << queue != 0;
            if self.read(queue_reg(queue, regs::Q_STATUS)) == status {
                break (status, listed);
            }
        };
        assert_eq!(status & regs::Q_STATUS_ERROR != 0, listed);
        let info = self.read(queue_reg(queue, regs::Q_ERROR_INFO));
        Rule::from_code(regs::Q_STATUS_CODE.get(status) as u8).map(|rule| (rule, info))
    }

    pub(super) fn pending(&self) -> u8 {
        let mut data = [0; 1];
        self.card.read_msix(MSIX_PBA_OFFSET.into(), &mut data);
        data[0]
    }

    /// Compares every register with the reset value that the contract gives.
    pub(super) fn assert_reset_values(&mut self) {
        let offered = u64::from(self.read(regs::DEVICE_FEATURES_LO));
        assert!(offered != 0 && FEATURES.len() < 32);
        let expect = |r: &regs::Register| match r.reset {
            Reset::Value(v) if r.feature & !offered == 0 => Some(v),
            _ => None,
        };
        let mut list: Vec<(u32, u32)> = Vec::new();
        for r in regs::GLOBAL.iter().filter(|r| r.offset != regs::DOORBELL) {
            if let Some(value) = expect(r) {
                list.extend((0..r.count).map(|i| (r.offset + i * r.stride, value)));
            }
        }
        for queue in 0..2 * PAIRS {
            let block = regs::QUEUE
                .iter()
                .filter_map(|r| Some((r.offset, expect(r)?)));
            list.extend(block.map(|(reg, value)| (queue_reg(queue, reg), value)));
            let counters = regs::STATS
                .iter()
                .filter_map(|r| Some((r.offset, expect(r)?)));
            list.extend(counters.flat_map(|(reg, value)| {
                let at = regs::stats_reg(queue, reg);
                [(at, value), (at + 4, 0)]
            }));
        }
        for (offset, value) in list {
            assert_eq!(self.read(offset), value, "{offset:#x}");
        }
        let (lo, hi) = regs::mac_to_regs(MAC);
        assert_eq!((self.read(regs::MAC_LO), self.read(regs::MAC_HI)), (lo, hi));
        assert_eq!(self.read(regs::STATUS), regs::STATUS_READY);
        assert_eq!(self.pending(), 0);
    }
}
