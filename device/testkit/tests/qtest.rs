// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! QEMU's own vfio-user client, without a guest: the test plays the CPU.
//!
//! `VNET_QEMU` names a QEMU with `vfio-user-pci`. Without it these tests say that they are skipped.
#![allow(missing_docs)]

use std::ffi::OsString;

use rustix::process::Signal;
use serde_json::json;
use vnet_contract::hdr::NetHdr;
use vnet_contract::ring::{self as layout, Desc, DESC_F_WRITE};
use vnet_contract::{features, pci, queue, regs};
use vnet_testkit::{Function, Qemu, Qtest, Server, LIMIT};

/// Guest memory for the rings of queue 0 and 1, and for buffers.
const RINGS: u64 = 0x10_0000;
const BUFFERS: u64 = 0x20_0000;
/// Where interrupts arrive: plain memory stands for an interrupt controller.
const MESSAGES: u64 = 0x30_0000;
/// Tables of the IOMMU.
const TABLES: u64 = 0x40_0000;

const SIZE: u16 = 64;
const COMMAND: u8 = 0x04;

const CAP_POWER: u8 = 0x01;
const CAP_EXPRESS: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;

struct Machine {
    qemu: Qemu,
    card: Function,
    msix: u8,
}

impl Machine {
    fn new(program: &OsString, server: &Server, more: &[&str]) -> Self {
        let mut qemu = Qemu::start(program, Some(server.socket()), more).unwrap();
        let card = qemu.enumerate().unwrap();
        Self::with(qemu, card)
    }

    fn with(mut qemu: Qemu, card: Function) -> Self {
        let msix = card.capability(&mut qemu.cpu, CAP_MSIX).unwrap();
        Self {
            qemu,
            card,
            msix: msix.expect("has MSI-X"),
        }
    }

    fn reg(&mut self, offset: u32) -> u32 {
        self.qemu.reg(offset).unwrap()
    }

    fn set_reg(&mut self, offset: u32, value: u32) {
        self.qemu.set_reg(offset, value).unwrap();
    }

    /// MSI-X control: enable and function mask.
    fn msix_control(&mut self, value: u16) {
        let at = self.msix + 2;
        self.card.write16(&mut self.qemu.cpu, at, value).unwrap();
    }

    fn table(vector: u64, field: u64) -> u64 {
        Qemu::BAR2 + u64::from(pci::MSIX_TABLE_OFFSET) + vector * 16 + field
    }

    /// Lets a vector write its number to its own word of memory.
    fn program_vector(&mut self, vector: u64) {
        let cpu = &mut self.qemu.cpu;
        let to = MESSAGES + vector * 4;
        cpu.write32(to, 0).unwrap();
        cpu.write32(Self::table(vector, 0), to as u32).unwrap();
        cpu.write32(Self::table(vector, 4), 0).unwrap();
        let data = message(vector);
        cpu.write32(Self::table(vector, 8), data).unwrap();
    }

    fn mask(&mut self, vector: u64, masked: bool) {
        let at = Self::table(vector, 12);
        self.qemu.cpu.write32(at, masked.into()).unwrap();
    }

    fn pending(&mut self) -> u64 {
        let at = Qemu::BAR2 + u64::from(pci::MSIX_PBA_OFFSET);
        self.qemu.cpu.read64(at).unwrap()
    }

    /// Waits for the message of a vector, and clears it.
    fn expect_message(&mut self, vector: u64) {
        let at = MESSAGES + vector * 4;
        self.qemu.wait32(at, message(vector)).unwrap();
        self.qemu.cpu.write32(at, 0).unwrap();
    }

    fn expect_no_message(&mut self, vector: u64) {
        std::thread::sleep(vnet_testkit::QUIET);
        let at = MESSAGES + vector * 4;
        assert_eq!(self.qemu.cpu.read32(at).unwrap(), 0, "vector {vector}");
    }

    /// Makes the card raise its control interrupt on a vector: a queue that must not start.
    fn raise(&mut self, vector: u32) {
        self.set_reg(regs::EVENT_CAUSE, regs::EVENT_MASK);
        self.set_reg(regs::EVENT_VECTOR, vector);
        self.set_reg(regs::EVENT_ENABLE, regs::EVENT_QUEUE_ERROR);
        self.set_reg(regs::queue_reg(0, regs::Q_SIZE), 3);
        self.set_reg(regs::queue_reg(0, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
        let cause = self.reg(regs::EVENT_CAUSE);
        assert_eq!(cause, regs::EVENT_QUEUE_ERROR);
    }

    /// Resets the card, puts both rings at `base` as the card sees it, and sends one frame through
    /// the loopback. Vector 0 belongs to both queues.
    fn loop_a_frame(&mut self, offset: u64, seed: u8) {
        self.start_queues(offset);
        let frame = self.send(offset, seed);
        self.expect_frame(&frame);
    }

    /// Programs both queues; bus addresses are guest addresses plus `offset`.
    fn start_queues(&mut self, offset: u64) {
        self.negotiate(features::MRG_RXBUF);
        self.qemu.cpu.write(RINGS, &[0; 0x4000]).unwrap();
        self.post(queue::rx_index(0), offset);
        for q in [queue::rx_index(0), queue::tx_index(0)] {
            self.start_queue(q, 0, offset);
        }
    }

    /// Resets the card and accepts features, and all frames.
    fn negotiate(&mut self, features: u64) {
        self.set_reg(regs::CTRL, regs::CTRL_RESET);
        assert_eq!(self.reg(regs::CTRL), 0);
        self.set_reg(regs::DRIVER_FEATURES_LO, features as u32);
        self.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
        assert_ne!(self.reg(regs::STATUS) & regs::STATUS_FEATURES_OK, 0);
        self.set_reg(regs::RX_MODE, regs::RX_MODE_PROMISC);
    }

    /// Posts one receive buffer.
    fn post(&mut self, q: u16, offset: u64) {
        let desc = Desc {
            addr: BUFFERS + offset,
            len: 2048,
            flags: DESC_F_WRITE,
            next: 0,
        };
        self.publish(q, desc);
    }

    fn start_queue(&mut self, q: u16, vector: u32, offset: u64) {
        let [desc, avail, used] = ring(q).map(|addr| addr + offset);
        for (reg, value) in [
            (regs::Q_SIZE, u32::from(SIZE)),
            (regs::Q_VECTOR, vector),
            (regs::Q_DESC_LO, desc as u32),
            (regs::Q_DESC_HI, (desc >> 32) as u32),
            (regs::Q_AVAIL_LO, avail as u32),
            (regs::Q_AVAIL_HI, (avail >> 32) as u32),
            (regs::Q_USED_LO, used as u32),
            (regs::Q_USED_HI, (used >> 32) as u32),
            (regs::Q_CTRL, regs::Q_CTRL_ENABLE),
        ] {
            self.set_reg(regs::queue_reg(q, reg), value);
        }
        let status = self.reg(regs::queue_reg(q, regs::Q_STATUS));
        assert_eq!(status, regs::Q_STATUS_RUNNING, "queue {q}");
    }

    /// Writes the first chain of a ring, and its index.
    fn publish(&mut self, q: u16, desc: Desc) {
        let [table, avail, _] = ring(q);
        let cpu = &mut self.qemu.cpu;
        for (n, word) in desc.to_words().into_iter().enumerate() {
            cpu.write64(table + 8 * n as u64, word).unwrap();
        }
        // Flags 0 and index 1; entry 0 is descriptor 0 already.
        cpu.write32(avail, 1 << 16).unwrap();
    }

    /// Sends one frame and returns it.
    fn send(&mut self, offset: u64, seed: u8) -> Vec<u8> {
        let frame: Vec<u8> = (0..100u8).map(|n| n.wrapping_add(seed)).collect();
        let bytes = [&NetHdr::default().to_bytes()[..], &frame].concat();
        self.qemu.cpu.write(BUFFERS + 0x1000, &bytes).unwrap();
        let desc = Desc {
            addr: BUFFERS + 0x1000 + offset,
            len: bytes.len() as u32,
            flags: 0,
            next: 0,
        };
        self.publish(queue::tx_index(0), desc);
        self.set_reg(regs::doorbell_reg(queue::tx_index(0)), 1);
        frame
    }

    /// Waits for the frame in the receive buffer.
    fn expect_frame(&mut self, frame: &[u8]) {
        for q in [queue::rx_index(0), queue::tx_index(0)] {
            let [.., used] = ring(q);
            self.qemu.wait32(used, 1 << 16).unwrap();
        }
        let [.., used] = ring(queue::rx_index(0));
        let len = self.qemu.cpu.read32(used + 8).unwrap();
        assert_eq!(len as usize, frame.len() + 12);
        let got = self.qemu.cpu.read(BUFFERS, len as usize).unwrap();
        assert_eq!(got[12..], *frame);
    }
}

fn message(vector: u64) -> u32 {
    0x4e00 + vector as u32
}

/// Guest addresses of the three parts of a queue's ring.
fn ring(q: u16) -> [u64; 3] {
    let desc = RINGS + u64::from(q) * 0x2000;
    let avail = desc + layout::desc_bytes(SIZE) as u64;
    let used = (avail + layout::avail_bytes(SIZE) as u64).next_multiple_of(layout::USED_ALIGN);
    [desc, avail, used]
}

#[test]
fn configuration_space() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start_with("null", &["--queues", "2"]).unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    let (card, cpu) = (m.card, &mut m.qemu.cpu);
    assert_eq!(card.read32(cpu, 0x00).unwrap(), 0x10f0_1af4);
    assert_eq!(card.read32(cpu, 0x08).unwrap() >> 8, pci::CLASS_CODE);
    assert_eq!(card.read32(cpu, 0x2c).unwrap(), 0x0001_1af4);
    assert_eq!(card.read8(cpu, 0x3d).unwrap(), 0, "no INTx");
    for cap in [CAP_POWER, CAP_EXPRESS, CAP_MSIX] {
        assert!(card.capability(cpu, cap).unwrap().is_some(), "{cap:#x}");
    }
    assert_eq!(card.capability(cpu, 0x05).unwrap(), None, "no MSI");
    let control = card.read16(cpu, m.msix + 2).unwrap();
    assert_eq!(control & 0x7ff, 2, "three vectors");
    // The command register keeps what it can keep.
    card.write16(cpu, COMMAND, 0x0406).unwrap();
    assert_eq!(card.read16(cpu, COMMAND).unwrap(), 0x0406);
    card.write8(cpu, 0x3c, 11).unwrap();
    assert_eq!(card.read8(cpu, 0x3c).unwrap(), 11);
    m.qemu.quit().unwrap();
}

#[test]
fn bars() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("null").unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    let (card, cpu) = (m.card, &mut m.qemu.cpu);
    card.write16(cpu, COMMAND, 0).unwrap();
    for (bar, size) in [(0x10, pci::BAR_REGS_SIZE), (0x18, pci::BAR_MSIX_SIZE)] {
        let before = card.read32(cpu, bar).unwrap();
        card.write32(cpu, bar, u32::MAX).unwrap();
        card.write32(cpu, bar + 4, u32::MAX).unwrap();
        let (lo, hi) = (
            card.read32(cpu, bar).unwrap(),
            card.read32(cpu, bar + 4).unwrap(),
        );
        assert_eq!(lo & 0xf, 4, "64-bit memory, not prefetchable");
        let mask = u64::from(hi) << 32 | u64::from(lo & !0xf);
        assert_eq!(mask.wrapping_neg(), size);
        card.write32(cpu, bar, before).unwrap();
        card.write32(cpu, bar + 4, 0).unwrap();
    }
    card.write32(cpu, 0x30, u32::MAX).unwrap();
    assert_eq!(card.read32(cpu, 0x30).unwrap(), 0, "no ROM");
    // The registers move with the BAR, and answer only with memory space on.
    card.write16(cpu, COMMAND, 0x6).unwrap();
    assert_eq!(cpu.read32(Qemu::BAR0).unwrap(), regs::ID_VALUE);
    let moved = Qemu::BAR0 + 0x2_0000;
    card.write32(cpu, 0x10, moved as u32).unwrap();
    assert_eq!(cpu.read32(moved).unwrap(), regs::ID_VALUE);
    assert_ne!(cpu.read32(Qemu::BAR0).unwrap(), regs::ID_VALUE);
    card.write16(cpu, COMMAND, 0x4).unwrap();
    assert_ne!(cpu.read32(moved).unwrap(), regs::ID_VALUE);
}

#[test]
fn registers_and_frames() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    assert_eq!(m.reg(regs::ID), regs::ID_VALUE);
    assert_eq!(m.reg(regs::VERSION), regs::VERSION_VALUE);
    assert_eq!(m.reg(regs::STATUS), regs::STATUS_READY);
    let both = m.qemu.cpu.read64(Qemu::BAR0).unwrap();
    assert_eq!(both >> 32, u64::from(regs::VERSION_VALUE));
    m.set_reg(regs::MTU, 4000);
    assert_eq!(m.reg(regs::MTU), 4000);
    for seed in 0..3 {
        m.loop_a_frame(0, seed);
    }
    m.qemu.quit().unwrap();
}

#[test]
fn msix() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    for vector in 0..3 {
        m.program_vector(vector);
    }
    // Enabled while all vectors are masked, which they are after reset: the card, which nobody has
    // given an eventfd yet, keeps the interrupt in its pending bit.
    m.msix_control(0x8000);
    m.raise(1);
    m.expect_no_message(1);
    assert_eq!(m.pending(), 1 << 1);
    m.mask(1, false);
    m.expect_message(1);
    assert_eq!(m.pending(), 0);
    m.mask(1, true);
    m.msix_control(0);
    // Enabled with the function masked, then unmasked, as Linux does it.
    m.msix_control(0xc000);
    for vector in 0..3 {
        m.mask(vector, false);
    }
    m.msix_control(0x8000);
    for vector in 0..3 {
        m.raise(vector);
        m.expect_message(u64::from(vector));
        for other in (0..3).filter(|&o| o != vector) {
            let at = MESSAGES + u64::from(other) * 4;
            assert_eq!(m.qemu.cpu.read32(at).unwrap(), 0);
        }
    }
    // A vector that is masked later keeps its eventfd. QEMU holds the interrupt back, in a pending
    // bit that it does not show: reads of pending bits go to the card, which has sent it.
    m.mask(1, true);
    m.raise(1);
    m.expect_no_message(1);
    m.mask(1, false);
    m.expect_message(1);
    // So does every vector while the function is masked.
    m.msix_control(0xc000);
    m.raise(2);
    m.expect_no_message(2);
    m.msix_control(0x8000);
    m.expect_message(2);
    // Disabled and enabled again.
    m.msix_control(0);
    m.msix_control(0x8000);
    m.raise(0);
    m.expect_message(0);
    // A frame raises the vector of its queue.
    m.loop_a_frame(0, 1);
    m.expect_message(0);
    m.qemu.quit().unwrap();
}

#[test]
fn sixteen_pairs() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let pairs = pci::MAX_QUEUE_PAIRS;
    let server = Server::start_with("loopback", &["--queues", &pairs.to_string()]).unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    assert_eq!(m.reg(regs::QUEUE_PAIRS), u32::from(pairs));
    assert_eq!(m.reg(regs::VECTORS), u32::from(pci::MAX_VECTORS));
    let control = m.card.read16(&mut m.qemu.cpu, m.msix + 2).unwrap();
    assert_eq!(control & 0x7ff, pairs);
    m.msix_control(0x8000);
    for vector in 0..pci::MAX_VECTORS {
        m.program_vector(vector.into());
        m.mask(vector.into(), false);
        m.raise(vector.into());
        m.expect_message(vector.into());
    }
    // Every pair but the chosen one is off: a frame goes from the first to the last.
    let last = pairs - 1;
    let (rx, tx) = (queue::rx_index(last), queue::tx_index(0));
    m.negotiate(features::MRG_RXBUF | features::RSS);
    m.set_reg(regs::RSS_TABLE, u32::from(last));
    m.set_reg(regs::RSS_CTRL, regs::RSS_CTRL_ENABLE);
    m.post(rx, 0);
    m.start_queue(rx, last.into(), 0);
    m.start_queue(tx, 0, 0);
    let frame = m.send(0, 3);
    m.expect_message(last.into());
    let [.., used] = ring(rx);
    m.qemu.wait32(used, 1 << 16).unwrap();
    let got = m.qemu.cpu.read(BUFFERS, 12 + frame.len()).unwrap();
    assert_eq!(got[12..], frame);
    m.qemu.quit().unwrap();
}

#[test]
fn function_level_reset() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    m.loop_a_frame(0, 1);
    m.set_reg(regs::MTU, 4000);
    let cpu = &mut m.qemu.cpu;
    let express = m.card.capability(cpu, CAP_EXPRESS).unwrap().unwrap();
    let control = m.card.read16(cpu, express + 8).unwrap();
    m.card.write16(cpu, express + 8, control | 1 << 15).unwrap();
    let after = m.card.read16(cpu, express + 8).unwrap();
    assert_eq!(after & 1 << 15, 0);
    // Software restores what it had saved.
    m.card.write16(cpu, COMMAND, 0x6).unwrap();
    assert_eq!(m.reg(regs::MTU), 1500);
    assert_eq!(m.reg(regs::queue_reg(1, regs::Q_STATUS)), 0);
    m.loop_a_frame(0, 2);
    m.qemu.quit().unwrap();
}

#[test]
fn system_reset() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    for seed in 0..3 {
        m.program_vector(0);
        m.msix_control(0x8000);
        m.mask(0, false);
        m.loop_a_frame(0, seed);
        m.expect_message(0);
        m.set_reg(regs::MTU, 4000);
        m.qemu.execute("system_reset", json!({})).unwrap();
        // The reset is done by the main loop, some time after the command; it closes the bridge.
        let end = std::time::Instant::now() + LIMIT;
        while m.qemu.cpu.read32(Qemu::BAR0).unwrap() == regs::ID_VALUE {
            assert!(std::time::Instant::now() < end, "never reset");
        }
        m.card = m.qemu.enumerate().unwrap();
        assert_eq!(m.reg(regs::MTU), 1500);
        let control = m.card.read16(&mut m.qemu.cpu, m.msix + 2).unwrap();
        assert_eq!(control & 0xc000, 0);
    }
    m.qemu.quit().unwrap();
}

#[test]
fn one_machine_after_another() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    for seed in 0..3 {
        let mut m = Machine::new(&program, &server, &[]);
        assert_eq!(m.reg(regs::MTU), 1500);
        m.loop_a_frame(0, seed);
        m.set_reg(regs::MTU, 4000);
        if seed == 1 {
            // This one is killed with its queues running.
            drop(m);
        } else {
            m.qemu.quit().unwrap();
        }
    }
}

#[test]
fn a_machine_that_keeps_its_memory_to_itself() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let mut server = Server::start("loopback").unwrap();
    let mut qemu = Qemu::start_unshared(&program, server.socket()).unwrap();
    let card = qemu.enumerate().unwrap();
    let mut m = Machine::with(qemu, card);
    m.program_vector(0);
    m.msix_control(0x8000);
    m.mask(0, false);
    for seed in 0..5 {
        m.loop_a_frame(0, seed);
        m.expect_message(0);
    }
    m.qemu.quit().unwrap();
    let log = server.end().unwrap();
    assert!(log.contains("share=on"), "{log}");
}

#[test]
fn a_machine_that_must_share_its_memory_and_does_not() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let mut server = Server::start_with("loopback", &["--sanitize=report"]).unwrap();
    let mut qemu = Qemu::start_unshared(&program, server.socket()).unwrap();
    // What watches a driver has to see its memory. Programming the card turns bus mastering on, which is when the server gives up.
    qemu.enumerate().unwrap();
    let status = server.process.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let text = server.process.stderr();
    assert!(text.contains("share=on"), "{text}");
    assert_eq!(qemu.reg(regs::STATUS).unwrap(), u32::MAX);
    qemu.quit().unwrap();
}

/// Of writes that nobody waits for, QEMU puts many into one message while more than 1024 messages wait.
#[test]
fn writes_that_wait_come_in_one_message() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let mut server = Server::start_with("loopback", &["--log", "debug"]).unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    m.start_queues(0);
    let tx = queue::tx_index(0);
    let doorbells = regs::stats_reg(tx, regs::S_DOORBELLS);
    let before = m.reg(doorbells);
    server.process.signal(Signal::STOP).unwrap();
    let writes = 1500;
    for n in 0..writes {
        m.set_reg(regs::doorbell_reg(tx), 0);
        let mode = [0, regs::RX_MODE_PROMISC][n as usize % 2];
        m.set_reg(regs::RX_MODE, mode);
    }
    server.process.signal(Signal::CONT).unwrap();
    assert_eq!(m.reg(doorbells) - before, writes);
    assert_eq!(m.reg(regs::RX_MODE), regs::RX_MODE_PROMISC);
    m.qemu.quit().unwrap();
    server.process.signal(Signal::TERM).unwrap();
    server.process.wait().unwrap();
    assert!(server.process.stderr().contains("several writes"));
}

#[test]
fn a_server_that_dies() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let mut server = Server::start("loopback").unwrap();
    let mut m = Machine::new(&program, &server, &[]);
    m.loop_a_frame(0, 1);
    server.process.signal(Signal::KILL).unwrap();
    server.process.wait().unwrap();
    // All ones, which no register that is there can show, and the machine lives on.
    assert_eq!(m.reg(regs::STATUS), u32::MAX);
    m.set_reg(regs::doorbell_reg(1), 1);
    assert_eq!(m.reg(regs::ID), u32::MAX);
    m.qemu.quit().unwrap();
}

#[test]
fn hot_plug() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    let mut qemu = Qemu::start(&program, None, &[]).unwrap();
    qemu.plug(server.socket()).unwrap();
    let card = qemu.enumerate().unwrap();
    let mut m = Machine::with(qemu, card);
    m.program_vector(0);
    m.msix_control(0x8000);
    m.mask(0, false);
    m.loop_a_frame(0, 1);
    m.expect_message(0);
    m.qemu.quit().unwrap();
}

/// Intel's IOMMU (VT-d), programmed by hand: the few registers that it takes.
struct Iommu;

impl Iommu {
    const BASE: u64 = 0xfed9_0000;
    /// Global command and status.
    const GCMD: u64 = Self::BASE + 0x18;
    const GSTS: u64 = Self::BASE + 0x1c;
    /// Address of the root table.
    const RTADDR: u64 = Self::BASE + 0x20;
    /// Context command.
    const CCMD: u64 = Self::BASE + 0x28;
    const ECAP: u64 = Self::BASE + 0x10;

    const TRANSLATE: u32 = 1 << 31;
    const SET_ROOT: u32 = 1 << 30;

    /// Page tables: one page for each of four levels.
    const LEVELS: [u64; 4] = [
        TABLES + 0x2000,
        TABLES + 0x3000,
        TABLES + 0x4000,
        TABLES + 0x5000,
    ];

    /// Gives the card on bus 1 a domain whose page tables are empty, and turns translation on.
    fn enable(cpu: &mut Qtest) {
        cpu.write(TABLES, &vec![0; 0x6000]).unwrap();
        // Root entry of bus 1, present; context entry of device 0, function 0: present, second
        // level, 48 bits, domain 1.
        let (root, context) = (TABLES, TABLES + 0x1000);
        cpu.write64(root + 16, context | 1).unwrap();
        cpu.write64(context, Self::LEVELS[0] | 1).unwrap();
        cpu.write64(context + 8, 2 | 1 << 8).unwrap();
        cpu.write64(Self::RTADDR, root).unwrap();
        cpu.write32(Self::GCMD, Self::SET_ROOT).unwrap();
        Self::wait(cpu, Self::SET_ROOT);
        // Forget every context.
        cpu.write64(Self::CCMD, 1 << 63 | 1 << 61).unwrap();
        Self::flush(cpu);
        cpu.write32(Self::GCMD, Self::TRANSLATE).unwrap();
        Self::wait(cpu, Self::TRANSLATE);
    }

    fn wait(cpu: &mut Qtest, bit: u32) {
        let end = std::time::Instant::now() + LIMIT;
        while cpu.read32(Self::GSTS).unwrap() & bit == 0 {
            assert!(std::time::Instant::now() < end);
        }
    }

    /// Makes the IOMMU look at the page tables again.
    fn flush(cpu: &mut Qtest) {
        let ecap = cpu.read64(Self::ECAP).unwrap();
        let iotlb = Self::BASE + ((ecap >> 8) & 0x3ff) * 16 + 8;
        cpu.write64(iotlb, 1 << 63 | 1 << 60).unwrap();
        let end = std::time::Instant::now() + LIMIT;
        while cpu.read64(iotlb).unwrap() >> 63 != 0 {
            assert!(std::time::Instant::now() < end);
        }
    }

    /// Maps `pages` pages at `iova` to guest memory, or unmaps them.
    fn map(cpu: &mut Qtest, iova: u64, to: Option<u64>, pages: u64) {
        for page in 0..pages {
            let at = iova + page * 4096;
            let index = |level: usize| at >> (39 - 9 * level) & 0x1ff;
            for level in 0..3 {
                let entry = Self::LEVELS[level] + index(level) * 8;
                cpu.write64(entry, Self::LEVELS[level + 1] | 3).unwrap();
            }
            let leaf = to.map_or(0, |to| (to + page * 4096) | 3);
            let entry = Self::LEVELS[3] + index(3) * 8;
            cpu.write64(entry, leaf).unwrap();
        }
        Self::flush(cpu);
    }
}

#[test]
fn a_machine_with_an_iommu() {
    let Some(program) = Qemu::program() else {
        return;
    };
    let server = Server::start("loopback").unwrap();
    let iommu = ["-device", "intel-iommu,caching-mode=on"];
    let mut m = Machine::new(&program, &server, &iommu);
    // Until the IOMMU is turned on, bus addresses are guest addresses.
    m.loop_a_frame(0, 1);

    // The card sees rings and buffers somewhere else. All lie within 2 MiB, which one page table
    // of the last level covers.
    const OFFSET: u64 = 0x40_0000_0000 - 0x10_0000;
    Iommu::enable(&mut m.qemu.cpu);
    Iommu::map(&mut m.qemu.cpu, RINGS + OFFSET, Some(RINGS), 4);
    Iommu::map(&mut m.qemu.cpu, BUFFERS + OFFSET, Some(BUFFERS), 2);
    m.loop_a_frame(OFFSET, 2);
    m.loop_a_frame(OFFSET, 3);

    // Guest addresses are no bus addresses any more.
    m.set_reg(regs::CTRL, regs::CTRL_RESET);
    m.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
    let reg = |r| regs::queue_reg(1, r);
    m.set_reg(reg(regs::Q_SIZE), SIZE.into());
    for (r, addr) in [regs::Q_DESC_LO, regs::Q_AVAIL_LO, regs::Q_USED_LO]
        .into_iter()
        .zip(ring(1))
    {
        m.set_reg(reg(r), addr as u32);
    }
    m.set_reg(reg(regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    let status = m.reg(reg(regs::Q_STATUS));
    let code = queue::Error::RingFault as u32;
    assert_eq!(
        status,
        regs::Q_STATUS_ERROR | code << regs::Q_STATUS_CODE_SHIFT
    );

    // Buffers that are unmapped under a running queue are out of its reach at once.
    m.start_queues(OFFSET);
    Iommu::map(&mut m.qemu.cpu, BUFFERS + OFFSET, None, 2);
    m.send(OFFSET, 4);
    let code = queue::Error::BufferFault as u32;
    let failed = regs::Q_STATUS_ERROR | code << regs::Q_STATUS_CODE_SHIFT;
    let at = Qemu::BAR0 + u64::from(reg(regs::Q_STATUS));
    m.qemu.wait32(at, failed).unwrap();
    // And back.
    Iommu::map(&mut m.qemu.cpu, BUFFERS + OFFSET, Some(BUFFERS), 2);
    m.loop_a_frame(OFFSET, 5);
    m.qemu.quit().unwrap();
}
