// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Cards of one process after another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{eventfd, EventfdFlags};
use vnet_backend::{Capabilities, Endpoint, Offloads, Queue};
use vnet_contract::features::{MAC_FILTER, MODERATION, MRG_RXBUF, QUEUE_STATS, RSS, RX_CSUM};
use vnet_contract::regs::{self, queue_reg, Access};
use vnet_dma::Mapping;
use vnet_irq::EventFd;
use vnet_loopback::{Loopback, Null};
use vnet_sanitizer::{Finding, Rule, Sanitizer};
use vnet_state::maps::{Maps, Row, ROWS};
use vnet_state::{Board, Keeper, Token};

use super::bench::{new_card, Bench, BUS_MASTER, MEMORY_SPACE, PAIRS};
use super::shelter::{config_space, counts_interrupts, registers, rewrite, settled, Shelter};
use crate::{Card, Config, Error};

#[test]
fn every_register_survives() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(MRG_RXBUF | MAC_FILTER | RSS | MODERATION | QUEUE_STATS | RX_CSUM);
    let writable = |r: &&regs::Register| matches!(r.access, Access::Rw | Access::RwStopped);
    let mut written = 0;
    for r in regs::GLOBAL.iter().filter(writable) {
        if [regs::CTRL, regs::MAC_HI, regs::MTU, regs::RX_OFFLOADS].contains(&r.offset) {
            continue;
        }
        for i in 0..r.count {
            b.write(r.offset + i * r.stride, 0x0403_0201 ^ i << 3);
            written += 1;
        }
    }
    b.write(regs::MAC_LO, 0x3322_1102);
    b.write(regs::MAC_HI, 0x5544);
    b.write(regs::MTU, 4321);
    b.write(regs::RX_OFFLOADS, 0);
    b.write(regs::EVENT_VECTOR, 1);
    b.write(regs::MAC_LO, 0x7777_7777);
    for queue in 0..2 * PAIRS {
        for r in regs::QUEUE.iter().filter(writable) {
            if r.offset != regs::Q_CTRL {
                b.write(
                    queue_reg(queue, r.offset),
                    0x10_0000 * u32::from(queue) + r.offset,
                );
            }
        }
    }
    b.card.write_config(0x10, &[0xff; 8]);
    b.card.write_config(0x3c, &[9]);
    b.card.write_config(0x44, &3u16.to_le_bytes());
    b.card.write_config(0x44, &0u16.to_le_bytes());
    assert!(written > 100);
    let (before, config) = (registers(&mut b), config_space(&b));
    b.exchange(shelter.card());
    assert_eq!(config_space(&b), config);
    for (was, is) in before.into_iter().zip(registers(&mut b)) {
        assert_eq!(was, is);
    }
}

#[test]
fn as_many_ranges_as_there_can_be_are_taken_over() {
    const SIZE: u64 = 0x1000;
    let shelter = Shelter::new();
    drop(shelter.card());
    // All that a client can have mapped, written down at once.
    let file = vnet_queue::mock::memfd(ROWS as u64 * SIZE);
    shelter.holder.keep(Token::Memory(3), file.as_fd());
    let (mut maps, _) = Maps::load(&shelter.memory);
    for n in 0..ROWS as u64 {
        let row = Row {
            address: 2 * n * SIZE,
            // One reaches into the next, which cannot come about.
            size: if n == 70 { 3 * SIZE } else { SIZE },
            offset: n * SIZE,
            read: true,
            write: true,
            file: Some(3),
        };
        assert!(maps.insert(&row));
    }
    let card = shelter.card();
    let map = card.address_space().all();
    assert_eq!(map.len(), ROWS - 1);
    assert!((0..ROWS as u64).all(|n| n == 71 || map.file(2 * n * SIZE).is_some()));
    let (_, rows) = Maps::load(&shelter.memory);
    assert_eq!(rows.len(), ROWS - 1);
    assert!(rows.iter().all(|row| row.address != 2 * 71 * SIZE));
    assert_eq!(shelter.tokens(), [Token::Memory(3)]);
}

#[test]
fn descriptors_are_kept_for_as_long_as_they_are_used() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    let fd = || EventFd::new(eventfd(0, EventfdFlags::empty()).unwrap()).unwrap();
    b.card.attach(0, vec![fd(), fd(), fd()]).unwrap();
    assert!(b.card.attach(2, vec![fd(), fd()]).is_err());
    b.card.detach(1, 1).unwrap();
    assert!(b.card.detach(2, 2).is_err());
    let vectors = [Token::Vector(0), Token::Vector(2)];
    let memory = Token::Memory(0);
    assert_eq!(shelter.tokens(), [&vectors[..], &[memory]].concat());
    // A second range in another file, and a third in that one.
    let file = vnet_queue::mock::memfd(0x4000);
    for n in 1..3 {
        b.card
            .map(Mapping {
                address: n << 32,
                size: 0x1000,
                file: Some(file.try_clone().unwrap()),
                offset: n * 0x1000,
                read: true,
                write: true,
            })
            .unwrap();
    }
    let second = Token::Memory(1);
    assert_eq!(shelter.tokens(), [&vectors[..], &[memory, second]].concat());
    b.exchange(shelter.card());
    // One that was kept for a message that was never finished.
    shelter.holder.keep(Token::Memory(9), file.as_fd());
    b.exchange(shelter.card());
    b.card.unmap(1 << 32, 0x1000);
    assert_eq!(shelter.tokens(), [&vectors[..], &[memory, second]].concat());
    b.card.unmap(2 << 32, 0x1000);
    assert_eq!(shelter.tokens(), [&vectors[..], &[memory]].concat());
    b.card.disconnect();
    assert_eq!(shelter.tokens(), []);
    b.exchange(shelter.card());
    assert_eq!(
        b.read(regs::ID),
        u32::MAX,
        "the next client finds a card that is reset"
    );
}

#[test]
fn the_eventfds_that_are_kept_are_those_that_the_card_has() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    let [taken, refused] = [(); 2].map(|()| eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let fd = |of: &OwnedFd| EventFd::new(of.try_clone().unwrap()).unwrap();
    b.card.attach(2, vec![fd(&taken)]).unwrap();
    let beyond = b.card.attach(2, vec![fd(&refused), fd(&refused)]);
    assert!(beyond.is_err());
    let kept = &shelter.holder.held()[&Token::Vector(2)];
    rustix::io::write(kept, &1u64.to_ne_bytes()).unwrap();
    let rang = |fd: &OwnedFd| rustix::io::read(fd, &mut [0; 8]).is_ok();
    assert!(rang(&taken) && !rang(&refused));
}

#[test]
fn only_the_same_card_goes_on() {
    let shelter = Shelter::new();
    drop(shelter.card());
    let other = |config: Config| {
        let mut card = Card::new(config, Box::new(Loopback::new())).unwrap();
        shelter.survive(&mut card)
    };
    let same = Config {
        queue_pairs: PAIRS,
        max_mtu: 9000,
        ..Config::new(super::bench::MAC)
    };
    other(same).unwrap();
    for config in [
        Config {
            queue_pairs: 1,
            ..same
        },
        Config {
            max_mtu: 1500,
            ..same
        },
        Config {
            mac: [2, 0, 0, 0, 0, 1],
            ..same
        },
    ] {
        assert!(matches!(other(config), Err(Error::Differs(_))));
    }
}

/// As the one behind a packet socket does when the MTU of its interface is changed.
#[test]
fn a_backend_may_have_come_to_another_mtu() {
    struct Interface(u16);

    impl Endpoint for Interface {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                max_mtu: self.0,
                ..Null::new().capabilities()
            }
        }

        fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, vnet_backend::Error> {
            Null::new().open(queues)
        }

        fn set_offloads(&mut self, _: Offloads) {}
    }

    for (was, is) in [(2000, 9000), (9000, 2000)] {
        let shelter = Shelter::new();
        let behind = |mtu| {
            let mut card = new_card(Box::new(Interface(mtu)));
            shelter.survive(&mut card).unwrap();
            card
        };
        let mut b = Bench::prepare(behind(was));
        b.accept(0);
        b.write(regs::MTU, 1800);
        // The second time, it is what the first has taken over that counts.
        for _ in 0..2 {
            b.exchange(behind(is));
            assert_eq!(b.read(regs::MTU), 1800);
            assert_eq!(b.read(regs::MTU_LIMITS) >> 16, u32::from(was));
        }
        b.write(regs::MTU, u32::from(was));
        assert_eq!(b.read(regs::MTU), u32::from(was));
    }
}

#[test]
fn an_older_and_a_newer_version_hand_over() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(QUEUE_STATS | RSS);
    b.write(regs::MTU, 4000);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    // From a newer one, with records and numbers that this one does not know.
    rewrite(&shelter, |tag, fields, to| {
        to.record(tag).put(fields).u64(u64::MAX);
        to.record(0x4000 + tag).u32(7);
    });
    b.exchange(shelter.card());
    assert_eq!(b.read(regs::MTU), 4000);
    b.send_again(1, 2);
    b.wait_used(1, 2);
    // From an older one, which knew neither RSS nor latches.
    rewrite(&shelter, |tag, fields, to| match tag {
        5 => {}
        8 => {
            to.record(tag)
                .put(&fields[..fields.len() - 4 * crate::card::LATCHES]);
        }
        _ => {
            to.record(tag).put(fields);
        }
    });
    b.exchange(shelter.card());
    assert_eq!((b.read(regs::MTU), b.read(regs::RSS_CTRL)), (4000, 0));
    b.send_again(1, 3);
    b.wait_used(1, 3);
    // From one that this one would get wrong.
    let mut saved = shelter.memory.snapshot().unwrap();
    saved[0] = 0xff;
    assert!(shelter.memory.commit(&saved));
    let mut card = new_card(Box::new(Null::new()));
    assert!(matches!(shelter.survive(&mut card), Err(Error::Foreign)));
}

/// What was found is of the client that is there, as far as the state tells.
#[test]
fn a_session_goes_on_with_its_own_findings() {
    let board = Board::create().unwrap();
    let watched = |shelter: &Shelter| {
        let sanitizer = Arc::new(Sanitizer::new(Duration::from_secs(1), Instant::now()));
        let board = board.as_fd().try_clone_to_owned().unwrap();
        sanitizer.outlive(Board::open(board).unwrap());
        let card = new_card(Box::new(Null::new()));
        let mut card = card.sanitized(sanitizer).unwrap();
        shelter.survive(&mut card).unwrap();
        card
    };
    let find = |card: &Card| {
        let finding = Finding::new(Rule::ChainLoop, "this", "that");
        card.sanitizer().unwrap().report(finding);
    };
    let before = |card: &Card| card.watch.as_ref().unwrap().before;

    let shelter = Shelter::new();
    find(&watched(&shelter));
    let mut card = watched(&shelter);
    assert_eq!(before(&card), 0);
    find(&card);
    card.disconnect();
    drop(card);
    let card = watched(&shelter);
    assert_eq!(before(&card), 2);
    find(&card);
    drop(card);
    // A version that does not say where the session began: its findings are laid to nobody.
    let older = Shelter::new();
    drop(older.card());
    assert_eq!(before(&watched(&older)), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(super::rounds(40)))]

    #[test]
    fn a_new_process_changes_nothing(
        steps in prop::collection::vec((0..0x1200u32, any::<u32>(), 0..20u8), 1..60),
    ) {
        let shelter = Shelter::new();
        let mut b = shelter.bench();
        b.accept(MRG_RXBUF | MAC_FILTER | RSS | MODERATION);
        for (offset, value, kind) in steps {
            match kind {
                0 => {
                    let before = settled(&mut b);
                    drop(b.exchange(shelter.card()));
                    let after = settled(&mut b);
                    for (was, is) in before.into_iter().zip(after) {
                        if !counts_interrupts(was.0) {
                            prop_assert_eq!(was, is);
                        }
                    }
                }
                1 => b.start(value as u16 % (2 * PAIRS)),
                2 => {
                    // What a queue finds wrong in its ring before it may not look there any more, the next
                    // process would find at once, as it looks how far the last one was.
                    settled(&mut b);
                    b.command(value as u16 & (MEMORY_SPACE | BUS_MASTER) | MEMORY_SPACE);
                }
                _ => b.write(offset & !3, value >> (value % 32)),
            }
        }
    }
}
