// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card, and software that reads and writes it anyhow.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use vnet_backend::Endpoint;
use vnet_card::{Card, Config};
use vnet_contract::pci::MAX_VECTORS;
use vnet_contract::regs::{self, queue_reg};
use vnet_contract::ring::Desc;
use vnet_dma::Mapping;
use vnet_irq::EventFd;
use vnet_loopback::{Loopback, Null};
use vnet_queue::mock::memfd;
use vnet_sanitizer::Sanitizer;

use crate::input::{bytes, mostly, rarely};

const PAIRS: u16 = 2;
const MEMORY: u64 = 0x10_0000;
const MEMORY_SIZE: u64 = 0x1_0000;
/// A ring for each queue, then frames.
const RING_STRIDE: u64 = 0x2000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x1800;
const FRAMES: u64 = 2 * PAIRS as u64 * RING_STRIDE;

const COMMAND: u64 = 0x04;
const PM_CTRL: u64 = 0x44;
/// Memory space and bus master.
const COMMAND_ON: [u8; 2] = [6, 0];

/// Accesses of any kind. Whatever software does, the registers keep to their rules, and a reset
/// brings back the reset values.
pub fn registers(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let endpoint: Box<dyn Endpoint> = match u.arbitrary()? {
        true => Box::new(Loopback::new()),
        false => Box::new(Null::new()),
    };
    let mut bench = Bench::new(card(endpoint, rarely(u, 3)?));
    while !u.is_empty() {
        bench.step(u)?;
        bench.awake();
        bench.assert_rules();
    }
    bench.reset();
    Ok(())
}

pub(crate) fn card(endpoint: Box<dyn Endpoint>, sanitized: bool) -> Card {
    let config = Config {
        queue_pairs: PAIRS,
        max_mtu: 9000,
        ..Config::new([0x52, 0x54, 0, 1, 2, 3])
    };
    let card = Card::new(config, endpoint).expect("a good configuration");
    if !sanitized {
        return card;
    }
    let sanitizer = Sanitizer::new(Duration::ZERO, Instant::now());
    card.sanitized(Arc::new(sanitizer)).expect("a thread")
}

/// A card and its guest.
pub(crate) struct Bench {
    card: Card,
    memory: File,
}

impl Bench {
    pub(crate) fn new(card: Card) -> Self {
        Self::with_guest(card, memfd(MEMORY_SIZE))
    }

    /// The guest is there already, and has its memory.
    pub(crate) fn with_guest(card: Card, memory: File) -> Self {
        let mut bench = Self { card, memory };
        bench.map();
        bench.card.write_config(COMMAND, &COMMAND_ON);
        bench
    }

    /// Ends the card.
    pub(crate) fn into_guest(self) -> File {
        self.memory
    }

    /// Has the card awake, whatever config space holds now.
    pub(crate) fn awake(&mut self) {
        self.card.write_config(PM_CTRL, &[0]);
        self.card.write_config(COMMAND, &COMMAND_ON);
    }

    fn map(&mut self) {
        // Fails if it is there already.
        let _ = self.card.map(Mapping {
            address: MEMORY,
            size: MEMORY_SIZE,
            file: Some(self.memory.try_clone().expect("dup")),
            offset: 0,
            read: true,
            write: true,
        });
    }

    fn read(&mut self, offset: u32) -> u32 {
        let mut data = [0xa5; 4];
        self.card.read_registers(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.card
            .write_registers(offset.into(), &value.to_le_bytes());
    }

    pub(crate) fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=19)? {
            0..=2 => {
                let offset = offset(u)?;
                let mut data = vec![0; mostly(u, &[4u8, 8, 1])?.into()];
                self.card.read_registers(offset, &mut data);
            }
            3..=9 => {
                let offset = offset(u)?;
                if rarely(u, 8)? {
                    self.card.write_registers(offset, bytes(u, 20)?);
                } else {
                    let value = value(u)?.to_le_bytes();
                    self.card.write_registers(offset, &value);
                }
            }
            10 => {
                let offset = mostly(u, &[COMMAND, PM_CTRL, 0x52, 0x68])?;
                self.card.write_config(offset, bytes(u, 8)?);
                self.card.read_config(offset, &mut [0; 8]);
            }
            11 => {
                let offset = mostly(u, &[0x800, 0x7f8])?;
                self.card
                    .read_msix(offset, &mut vec![0; bytes(u, 20)?.len()]);
            }
            12 => {
                self.write(regs::DRIVER_FEATURES_LO, mostly(u, &[0, 1 << 10, 1 << 11])?);
                self.write(regs::DRIVER_FEATURES_HI, mostly(u, &[0])?);
                self.write(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
            }
            13 | 14 => self.start(u.int_in_range(0..=2 * PAIRS - 1)?),
            15 | 16 => self.send(u)?,
            17 => self.interrupts(u)?,
            18 => match rarely(u, 2)? {
                true => self
                    .card
                    .unmap(mostly(u, &[MEMORY, 0])?, mostly(u, &[1, u64::MAX])?),
                false => self.map(),
            },
            _ => match u.int_in_range(0..=2)? {
                0 => self.card.reset_function(),
                1 => self.card.disconnect(),
                _ => self.write(regs::CTRL, regs::CTRL_RESET),
            },
        }
        Ok(())
    }

    /// Programs a queue with a ring in guest memory, and enables it.
    fn start(&mut self, queue: u16) {
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

    /// Puts a chain into the ring of a queue, moves the index, and rings.
    fn send(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let queue = u.int_in_range(0..=2 * PAIRS - 1)?;
        let ring = u64::from(queue) * RING_STRIDE;
        let desc = Desc {
            addr: mostly(u, &[MEMORY + FRAMES])?,
            len: mostly(u, &[12 + 60, 2000])?,
            // Receive queues have the even numbers.
            flags: mostly(u, &[if queue % 2 == 0 { 2 } else { 0 }])?,
            next: 0,
        };
        let mut bytes = Vec::new();
        bytes.extend(desc.to_words().iter().flat_map(|word| word.to_le_bytes()));
        self.put(ring, &bytes);
        let index: u16 = mostly(u, &[1, 2, 64])?;
        self.put(ring + AVAIL + 2, &index.to_le_bytes());
        self.write(regs::doorbell_reg(queue), 1);
        Ok(())
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).expect("a memory file");
    }

    fn interrupts(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let start = mostly(u, &[0, 1, u32::from(PAIRS)])?;
        let count = mostly(u, &[1, 2, 3])?;
        let vectors = self.card.vectors();
        let within = u64::from(start) + u64::from(count) <= u64::from(PAIRS) + 1;
        let done = match u.int_in_range(0..=2)? {
            0 => {
                let fds = (0..count.min(u32::from(MAX_VECTORS))).map(|_| eventfd());
                let short = count > u32::from(MAX_VECTORS);
                vectors.attach(start, fds.collect()).is_ok() || short
            }
            1 => vectors.detach(start, count).is_ok(),
            _ => vectors.raise(start, count).is_ok(),
        };
        assert!(done == within || count == 0 || count > u32::from(MAX_VECTORS));
        Ok(())
    }

    /// What holds at any time.
    pub(crate) fn assert_rules(&mut self) {
        assert_eq!(self.read(regs::ID), regs::ID_VALUE);
        assert_eq!(self.read(regs::CTRL), 0);
        assert!((68..=9000).contains(&self.read(regs::MTU)));
        assert_eq!(self.read(regs::RX_MODE) & !regs::RX_MODE_MASK, 0);
        assert_eq!(self.read(regs::RX_OFFLOADS) & !regs::RX_OFFLOADS_MASK, 0);
        assert_eq!(self.read(regs::EVENT_ENABLE) & !regs::EVENT_MASK, 0);
        assert_eq!(self.read(regs::EVENT_CAUSE) & !regs::EVENT_MASK, 0);
        let vector = self.read(regs::EVENT_VECTOR);
        assert!(vector == 0xffff || vector <= u32::from(PAIRS));
        let status = self.read(regs::STATUS);
        // A panic in a worker would fail the card, and a driver cannot.
        assert_eq!(
            status & (regs::STATUS_READY | regs::STATUS_FAILED),
            regs::STATUS_READY
        );
        let negotiated = status & regs::STATUS_FEATURES_OK != 0;
        for queue in 0..2 * PAIRS {
            // A worker may find a fault between two reads, so each look is one read.
            let status = self.read(queue_reg(queue, regs::Q_STATUS));
            let running = status & regs::Q_STATUS_RUNNING != 0;
            let failed = status & regs::Q_STATUS_ERROR != 0;
            assert!(!(running && failed));
            assert!(!running || negotiated);
            assert_eq!(failed, regs::Q_STATUS_CODE.get(status) != 0);
        }
    }

    /// What holds even if the state was made up, which may say that the card has failed. A panic, after which
    /// it would as well, ends the process of a fuzz target.
    pub(crate) fn assert_serves(&mut self) {
        assert_eq!(self.read(regs::ID), regs::ID_VALUE);
    }

    /// Resets the card; then its registers are as they were at first.
    pub(crate) fn reset(&mut self) {
        self.write(regs::CTRL, regs::CTRL_RESET);
        self.assert_reset();
    }

    fn assert_reset(&mut self) {
        let offered = u64::from(self.read(regs::DEVICE_FEATURES_LO))
            | u64::from(self.read(regs::DEVICE_FEATURES_HI)) << 32;
        for register in regs::GLOBAL.iter().filter(|r| r.offset != regs::DOORBELL) {
            let regs::Reset::Value(value) = register.reset else {
                continue;
            };
            if register.feature & !offered == 0 {
                for i in 0..register.count {
                    let at = register.offset + i * register.stride;
                    assert_eq!(self.read(at), value, "{at:#x}");
                }
            }
        }
        for queue in 0..2 * PAIRS {
            for register in regs::QUEUE {
                let regs::Reset::Value(value) = register.reset else {
                    continue;
                };
                if register.feature & !offered == 0 {
                    let at = queue_reg(queue, register.offset);
                    assert_eq!(self.read(at), value, "{at:#x}");
                }
            }
        }
        assert_eq!(self.read(regs::STATUS), regs::STATUS_READY);
    }
}

fn eventfd() -> EventFd {
    use rustix::event::{eventfd, EventfdFlags};
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    EventFd::new(fd).expect("is one")
}

/// An offset, more often than not of a register.
fn offset(u: &mut Unstructured<'_>) -> Result<u64> {
    let queue = u.int_in_range(0..=2 * PAIRS)?;
    Ok(match u.int_in_range(0..=9)? {
        0..=3 => {
            let register = u.choose(regs::GLOBAL)?;
            let i = u.int_in_range(0..=register.count - 1)?;
            u64::from(register.offset + i * register.stride)
        }
        4..=7 => u64::from(queue_reg(queue, u.choose(regs::QUEUE)?.offset)),
        8 => u64::from(regs::stats_reg(queue, u.int_in_range(0..=15)? * 4)),
        _ => mostly(u, &[0x3ffc, 0x4000, 0x3ffe])?,
    })
}

fn value(u: &mut Unstructured<'_>) -> Result<u32> {
    mostly(u, &[0, 1, 2, 3, 64, MEMORY as u32, 0xffff, u32::MAX])
}
