// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Messages that the last process had begun to handle, or had handled, when it died.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::features::{MAC_FILTER, MODERATION, MRG_RXBUF, QUEUE_STATS, RSS};
use vnet_contract::regs::{self, queue_reg, stats_reg, Access};
use vnet_dma::{MapError, Mapping};
use vnet_loopback::Null;
use vnet_sanitizer::{Rule, Sanitizer};

use super::bench::{new_card, Bench};
use super::shelter::{registers, Shelter};
use crate::Card;

#[test]
fn a_message_that_was_handled_may_come_again() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    let file = vnet_queue::mock::memfd(0x4000);
    let map = |card: &mut Card| {
        card.map(Mapping {
            address: 0x1000_0000,
            size: 0x1000,
            file: Some(file.try_clone().unwrap()),
            offset: 0x1000,
            read: true,
            write: false,
        })
    };
    map(&mut b.card).unwrap();
    assert!(matches!(map(&mut b.card), Err(MapError::Overlap(_))));
    b.exchange(shelter.card());
    map(&mut b.card).unwrap();
    b.card.caught_up();
    assert!(matches!(map(&mut b.card), Err(MapError::Overlap(_))));

    // A queue that runs is not started anew.
    b.accept(QUEUE_STATS);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    b.exchange(shelter.card());
    b.write(queue_reg(1, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    b.send_again(1, 2);
    b.wait_used(1, 2);
    // Nor does one that was stopped lose its place.
    b.exchange(shelter.card());
    b.write(queue_reg(1, regs::Q_CTRL), 0);
    assert_eq!(b.read(queue_reg(1, regs::Q_INDEX)), 2 << 16 | 2);
    b.exchange(shelter.card());
    b.write(queue_reg(1, regs::Q_CTRL), 0);
    assert_eq!(b.read(queue_reg(1, regs::Q_INDEX)), 2 << 16 | 2);
}

/// Whatever was written, and whatever came of it: the process has written it down, and died.
#[test]
fn every_write_may_come_again() {
    let writable = |r: &&regs::Register| r.access != Access::Ro;
    let global = regs::GLOBAL.iter().filter(writable).map(|r| r.offset);
    let queue = regs::QUEUE.iter().filter(writable);
    let queue = queue.map(|r| queue_reg(1, r.offset));
    let all: Vec<_> = global.chain(queue).collect();
    assert!(all.len() > 30);
    for accepted in [None, Some(MRG_RXBUF | MAC_FILTER | RSS | MODERATION)] {
        for &register in &all {
            for value in [0, 1, regs::CTRL_COMMIT_FEATURES, 1500, u32::MAX] {
                let shelter = Shelter::new();
                let mut b = shelter.bench();
                if let Some(features) = accepted {
                    b.accept(features);
                }
                b.card.caught_up();
                b.write(register, value);
                let before = registers(&mut b);
                b.exchange(shelter.card());
                b.write(register, value);
                for (was, is) in before.into_iter().zip(registers(&mut b)) {
                    // A start that is refused is tried again, and refused again.
                    if was.0 != stats_reg(1, regs::S_ERRORS) {
                        assert_eq!(was, is, "{value:#x} at {register:#x}");
                    }
                }
            }
        }
    }
}

/// A driver that sets its card up with one message for many registers.
#[test]
fn so_may_many_at_once() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    let set_up = |b: &mut Bench| {
        b.accept(QUEUE_STATS);
        b.start(1);
    };
    set_up(&mut b);
    b.send(1);
    b.wait_used(1, 1);
    b.exchange(shelter.card());
    set_up(&mut b);
    b.card.caught_up();
    assert!(b.is_running(1));
    b.send_again(1, 2);
    b.wait_used(1, 2);
    assert_eq!(b.illegal(), 0);
    // What comes later is judged as ever.
    b.accept(QUEUE_STATS);
    assert_eq!(b.illegal(), 3);
    b.write(queue_reg(1, regs::Q_SIZE), 64);
    assert!(b.error(1).is_some());
}

/// What a message says was judged by the process that has handled it.
#[test]
fn a_message_that_comes_again_is_not_judged_again() {
    let shelter = Shelter::new();
    let card = || {
        let sanitizer = Sanitizer::new(Duration::from_secs(1), Instant::now());
        let card = new_card(Box::new(Null::new()));
        let mut card = card.sanitized(Arc::new(sanitizer)).unwrap();
        shelter.survive(&mut card).unwrap();
        card
    };
    let rules = |b: &Bench| {
        let findings = b.card.sanitizer().unwrap().findings();
        let total = |(rule, count): (Rule, &vnet_sanitizer::Count)| (rule, count.total);
        findings.by_rule().map(total).collect::<Vec<_>>()
    };
    let write = |b: &mut Bench| {
        b.write(regs::DRIVER_FEATURES_HI, 1 << 31);
        b.write(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
        b.write(regs::RX_MODE, 1 << 31);
        b.write(queue_reg(1, regs::Q_CTRL), 1 << 31);
        b.write(regs::ID, 1);
        b.read(0x3ffc);
        b.card.read_registers(1, &mut [0; 2]);
        b.card.write_registers(1, &[0; 2]);
        b.write(queue_reg(1, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    };
    let found = [
        (Rule::FeaturesRefused, 1),
        (Rule::RegisterReserved, 2),
        (Rule::RegisterReadOnly, 1),
        (Rule::RegisterUnknown, 1),
        (Rule::RegisterWidth, 2),
        (Rule::QueueSetup, 1),
    ];
    let mut b = Bench::prepare(card());
    b.card.caught_up();
    write(&mut b);
    assert_eq!((rules(&b), b.illegal()), (found.to_vec(), 4));
    b.exchange(card());
    write(&mut b);
    assert_eq!((rules(&b), b.illegal()), (vec![], 4));
    b.card.caught_up();
    write(&mut b);
    assert_eq!((rules(&b), b.illegal()), (found.to_vec(), 8));

    // A queue that runs, and is stopped by that.
    b.write(regs::CTRL, regs::CTRL_RESET);
    b.accept(0);
    b.start(1);
    b.exchange(card());
    b.card.caught_up();
    let size = queue_reg(1, regs::Q_SIZE);
    b.write(size, 128);
    assert_eq!(rules(&b), [(Rule::QueueRunning, 1)]);
    let error = b.error(1);
    b.exchange(card());
    b.write(size, 128);
    assert_eq!((rules(&b), b.read(size)), (vec![], 64));
    assert_eq!(b.error(1), error);
}
