// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers of the card as a whole.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vnet_backend::{Capabilities, Endpoint, Offloads, Queue};
use vnet_contract::features::{
    MAC_FILTER, MODERATION, MRG_RXBUF, RSS, RX_CSUM, TIMESTAMP, TX_CSUM,
};
use vnet_contract::regs::{self, queue_reg, Access};

use super::bench::{Bench, BUS_MASTER, MAC, MEMORY_SPACE, PAIRS, PM_CTRL};
use crate::config::{Config, Error};
use crate::Card;
use vnet_loopback::{Loopback, Null};

#[test]
fn every_register_has_its_reset_value_after_power_on_and_every_reset() {
    let mut b = Bench::new();
    b.assert_reset_values();
    for reset in 0..3 {
        b.accept(MRG_RXBUF | MAC_FILTER | RX_CSUM);
        for offset in (0..0x4000).step_by(4).filter(|&o| o != regs::CTRL) {
            b.write(offset, 0x0101_0101 << (offset / 4 % 7));
        }
        assert_ne!(b.illegal(), 0);
        match reset {
            0 => b.write(regs::CTRL, regs::CTRL_RESET | regs::CTRL_COMMIT_FEATURES),
            1 => b.card.reset_function(),
            // Function-level reset, by the PCIe capability's device control.
            _ => b.card.write_config(0x68, &0x8000u16.to_le_bytes()),
        }
        b.command(MEMORY_SPACE | BUS_MASTER);
        b.assert_reset_values();
    }
}

#[test]
fn identity_and_limits() {
    let mut b = Bench::new();
    let mut both = [0; 8];
    b.card.read_registers(0, &mut both);
    assert_eq!(both, *b"vnet\x00\x00\x01\x00");
    assert_eq!(b.read(regs::QUEUE_PAIRS), u32::from(PAIRS));
    assert_eq!(b.read(regs::VECTORS), u32::from(PAIRS) + 1);
    assert_eq!(b.read(regs::MTU_LIMITS), 9000 << 16 | 68);
    assert_eq!(b.read(regs::LINK), regs::LINK_UP | regs::LINK_FULL_DUPLEX);
    assert_eq!(b.read(regs::LINK_SPEED), regs::LINK_SPEED_UNKNOWN);
    assert_eq!(b.illegal(), 0);
}

#[test]
fn illegal_accesses_are_counted_and_harmless() {
    let mut b = Bench::new();
    let mut expected = 0;
    for (offset, width) in [(0, 1), (0, 2), (1, 4), (4, 8), (0, 0), (0, 16), (0x3fff, 1)] {
        let mut data = vec![0xff; width];
        b.card.read_registers(offset, &mut data);
        assert!(data.iter().all(|&byte| byte == 0));
        b.card.write_registers(offset, &data);
        expected += 2;
        assert_eq!(b.illegal(), expected, "{offset:#x} {width}");
    }
    // No register there; a feature that is not offered; a queue that does not exist.
    for offset in [0x3ffc, regs::CLOCK_LO, queue_reg(2 * PAIRS, regs::Q_SIZE)] {
        assert_eq!(b.read(offset), 0);
        b.write(offset, u32::MAX);
        expected += 2;
    }
    for r in regs::GLOBAL
        .iter()
        .filter(|r| r.access == Access::Ro && r.feature == 0)
    {
        if r.offset != regs::ILLEGAL_ACCESSES {
            let before = b.read(r.offset);
            b.write(r.offset, !before);
            assert_eq!(b.read(r.offset), before, "{}", r.name);
            expected += 1;
        }
    }
    b.write(regs::ILLEGAL_ACCESSES, 0);
    assert_eq!(b.illegal(), expected + 1);
    // Each half of a wide access is judged by itself: STATUS is read-only, CTRL is not.
    b.card.write_registers(regs::CTRL.into(), &[0; 8]);
    assert_eq!(b.illegal(), expected + 2);
    b.card.illegal = u32::MAX;
    b.write(0x3ffc, 0);
    assert_eq!(b.illegal(), u32::MAX);
}

#[test]
fn features_are_judged_and_locked() {
    let mut b = Bench::new();
    b.accept(TIMESTAMP);
    assert_eq!(b.read(regs::STATUS), regs::STATUS_READY);
    assert_eq!(b.illegal(), 0);
    b.accept(TX_CSUM);
    assert_eq!(
        b.read(regs::STATUS),
        regs::STATUS_READY | regs::STATUS_FEATURES_OK
    );
    b.accept(0);
    assert_eq!(b.illegal(), 3);
    assert_eq!(b.read(regs::DRIVER_FEATURES_LO), TX_CSUM as u32);
}

#[test]
fn moderation_is_kept_and_works_when_it_was_accepted() {
    const TX: u16 = 1;
    let longest = regs::Q_MODERATION_USECS.put(0xffff);
    for features in [0, MODERATION] {
        let mut b = Bench::new();
        // Before the features are in force, and while the queue runs.
        b.write(queue_reg(TX, regs::Q_MODERATION), !longest);
        b.accept(features);
        b.write(queue_reg(TX, regs::Q_VECTOR), 0);
        b.start(TX);
        b.write(queue_reg(TX, regs::Q_MODERATION), longest);
        assert_eq!(b.read(queue_reg(TX, regs::Q_MODERATION)), longest);
        assert!(b.is_running(TX));
        let start = Instant::now();
        b.send(TX);
        while b.used(TX) == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        // Waits for the end of the round.
        b.read(queue_reg(TX, regs::Q_INDEX));
        let pending = b.pending();
        // A machine that is slower than the interrupt waits shows nothing.
        if start.elapsed() < Duration::from_millis(60) {
            assert_eq!(pending == 1, features == 0);
        }
        while b.pending() == 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(b.illegal(), 0);
    }
}

#[test]
fn scaling_works_once_it_was_accepted_whenever_it_was_programmed() {
    const TX: u16 = 1;
    const OTHER_RX: u16 = 2;
    for before in [true, false] {
        let mut b = Bench::with(Box::new(Loopback::new()));
        let program = |b: &mut Bench| {
            // A frame that has no hash goes where the first entry says.
            b.write(regs::RSS_TABLE, 1);
            b.write(regs::RSS_CTRL, regs::RSS_CTRL_ENABLE);
        };
        if before {
            program(&mut b);
        }
        b.accept(RSS);
        if !before {
            program(&mut b);
        }
        b.start(TX);
        b.send(TX);
        // The other pair does not receive, and so it counts the loss.
        let start = Instant::now();
        while b.read(regs::stats_reg(OTHER_RX, regs::S_DROPS)) == 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{before}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(b.illegal(), 0);
    }
}

#[test]
fn values_that_cannot_be_taken_are_illegal() {
    let mut b = Bench::new();
    let (lo, hi) = regs::mac_to_regs(MAC);
    b.write(regs::MAC_LO, 0x0101_0101);
    b.write(regs::MAC_HI, 0);
    assert_eq!((b.read(regs::MAC_LO), b.read(regs::MAC_HI)), (lo, hi));
    b.write(regs::MTU, 9001);
    assert_eq!((b.read(regs::MTU), b.illegal()), (1500, 2));
    b.write(regs::MTU, 9000);
    b.write(regs::EVENT_VECTOR, u32::from(PAIRS) + 1);
    assert_eq!(
        (b.read(regs::MTU), b.read(regs::EVENT_VECTOR)),
        (9000, 0xffff)
    );
    b.write(regs::RX_MODE, u32::MAX);
    b.write(regs::EVENT_ENABLE, u32::MAX);
    assert_eq!(b.read(regs::RX_MODE), regs::RX_MODE_MASK);
    assert_eq!(
        (b.read(regs::EVENT_ENABLE), b.illegal()),
        (regs::EVENT_MASK, 2)
    );
}

/// Tells what its card asks of it.
struct Told(Arc<Mutex<Vec<Offloads>>>);

impl Endpoint for Told {
    fn capabilities(&self) -> Capabilities {
        let checksum = Offloads {
            checksum: true,
            ..Offloads::default()
        };
        Capabilities {
            receive: checksum,
            max_queues: PAIRS,
            max_mtu: 9000,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, vnet_backend::Error> {
        Null::new().open(queues)
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.0.lock().unwrap().push(receive);
    }
}

#[test]
fn receive_offloads_go_on_and_off_at_the_backend() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut b = Bench::with(Box::new(Told(told.clone())));
    let checksum = || std::mem::take(&mut *told.lock().unwrap()).pop();
    let (on, off) = (RX_CSUM as u32, 0);

    b.write(regs::RX_OFFLOADS, on);
    assert_eq!((b.read(regs::RX_OFFLOADS), b.illegal()), (0, 1));
    b.accept(RX_CSUM | TX_CSUM);
    assert_eq!(b.read(regs::RX_OFFLOADS), on);
    assert!(checksum().unwrap().checksum);
    b.start(0);
    b.write(regs::RX_OFFLOADS, off);
    assert_eq!(b.read(regs::RX_OFFLOADS), off);
    assert!(!checksum().unwrap().checksum);
    b.write(regs::RX_OFFLOADS, TX_CSUM as u32);
    assert_eq!((b.read(regs::RX_OFFLOADS), b.illegal()), (off, 2));
    assert!(told.lock().unwrap().is_empty());
    b.write(regs::RX_OFFLOADS, on);
    assert!(checksum().unwrap().checksum);
    assert!(b.is_running(0));
    b.write(regs::CTRL, regs::CTRL_RESET);
    assert_eq!(b.read(regs::RX_OFFLOADS), 0);
    assert!(!checksum().unwrap().checksum);
}

#[test]
fn nothing_answers_without_memory_space_or_in_d3hot() {
    let mut b = Bench::new();
    b.command(BUS_MASTER);
    assert_eq!(b.read(regs::ID), u32::MAX);
    b.command(MEMORY_SPACE);
    b.write(regs::RX_MODE, regs::RX_MODE_PROMISC);
    b.card.write_config(PM_CTRL, &[3]);
    assert_eq!(b.read(regs::ID), u32::MAX);
    b.write(regs::RX_MODE, 0);
    b.card.write_config(PM_CTRL, &[0]);
    assert_eq!(b.read(regs::RX_MODE), regs::RX_MODE_PROMISC);
    assert_eq!(b.illegal(), 0);
}

#[test]
fn pending_bits_are_in_their_bar() {
    let b = Bench::new();
    b.card.vectors().raise(0, 1).unwrap();
    b.card.vectors().raise(2, 1).unwrap();
    assert_eq!(b.pending(), 0b101);
    // A read that begins before the pending bits reaches them.
    let mut data = [0xff; 8];
    b.card.read_msix(0x7fc, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0b101, 0, 0, 0]);
    b.card.read_msix(0, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn a_card_that_cannot_be_is_refused() {
    let config = Config {
        max_mtu: 9000,
        ..Config::new(MAC)
    };
    let refusal = |config| Card::new(config, Box::new(Null::new())).err().unwrap();
    for queue_pairs in [0, 17, u16::MAX] {
        let e = refusal(Config {
            queue_pairs,
            ..config
        });
        assert!(matches!(e, Error::QueuePairs { .. }), "{e}");
    }
    for mac in [[0; 6], [0xff; 6]] {
        assert!(matches!(refusal(Config { mac, ..config }), Error::Mac));
    }
    let e = refusal(Config {
        max_mtu: 1499,
        ..config
    });
    assert!(matches!(e, Error::Mtu(1499)), "{e}");
}
