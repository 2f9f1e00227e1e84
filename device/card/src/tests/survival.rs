// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Cards of one process after another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{eventfd, EventfdFlags};
use vnet_backend::{Attachment, Capabilities, Endpoint, Frame, Offloads, Queue, RxRing};
use vnet_contract::features::{MAC_FILTER, MODERATION, MRG_RXBUF, QUEUE_STATS, RSS, RX_CSUM};
use vnet_contract::queue::{Error as Broken, NO_VECTOR};
use vnet_contract::regs::{self, queue_reg, stats_reg, Access};
use vnet_dma::{MapError, Mapping};
use vnet_irq::EventFd;
use vnet_loopback::{Loopback, Null};
use vnet_sanitizer::{Finding, Rule, Sanitizer};
use vnet_state::maps::{Maps, Row, ROWS};
use vnet_state::mock::Holder;
use vnet_state::records::{Reader, Writer};
use vnet_state::{Board, Keeper, Memory, Token};

use super::bench::{self, new_card, Bench, BUS_MASTER, MEMORY_SPACE, PAIRS};
use crate::{Card, Config, Error, Survival};

/// What outlives the processes.
#[derive(Clone)]
pub(super) struct Shelter {
    pub(super) memory: Arc<Memory>,
    pub(super) holder: Arc<Holder>,
}

impl Shelter {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::create().unwrap(),
            holder: Arc::default(),
        }
    }

    fn tokens(&self) -> Vec<Token> {
        self.holder.held().into_keys().collect()
    }

    pub(super) fn survive(&self, card: &mut Card) -> Result<(), Error> {
        // As another process would: over a mapping of its own.
        let memory = Memory::open(self.memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let keeper = Arc::clone(&self.holder) as Arc<dyn Keeper>;
        card.survive(Survival { memory, keeper }, &mut self.holder.held())
    }

    pub(super) fn card(&self) -> Card {
        let mut card = new_card(Box::new(Null::new()));
        self.survive(&mut card).unwrap();
        card
    }

    pub(super) fn bench(&self) -> Bench {
        Bench::prepare(self.card())
    }
}

/// All that the driver can read.
pub(super) fn registers(b: &mut Bench) -> Vec<(u32, u32)> {
    (0..0x4000)
        .step_by(4)
        // What is no register counts as illegal.
        .filter_map(|at| b.card.map.slot(at.into()).map(|_| (at, b.read(at))))
        .collect()
}

/// The same once queues that were started with nonsense have had the time to fail.
fn settled(b: &mut Bench) -> Vec<(u32, u32)> {
    let mut before = registers(b);
    let mut same = 0;
    for _ in 0..200 {
        thread::sleep(Duration::from_millis(2));
        let now = registers(b);
        same = if now == before { same + 1 } else { 0 };
        // A worker may have to wait for its turn on a machine with much to do.
        if same == 10 {
            break;
        }
        before = now;
    }
    before
}

/// True for what a new process changes: it raises each interrupt once more.
pub(super) fn counts_interrupts(at: u32) -> bool {
    (0..2 * PAIRS).any(|queue| at == stats_reg(queue, regs::S_INTERRUPTS))
}

fn config_space(b: &Bench) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    b.card.read_config(0, &mut bytes);
    bytes
}

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
fn a_queue_goes_on_where_it_was_and_interrupts() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    let interrupt = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let fd = EventFd::new(interrupt.try_clone().unwrap()).unwrap();
    b.card.attach(1, vec![fd]).unwrap();
    b.accept(QUEUE_STATS);
    b.write(queue_reg(1, regs::Q_VECTOR), 1);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    let frames = |b: &mut Bench| b.read(stats_reg(1, regs::S_FRAMES));
    b.wait(|b| frames(b) == 1);
    for process in 1..5 {
        let count = |fd: &OwnedFd| rustix::io::read(fd, &mut [0; 8]).is_ok();
        count(&interrupt);
        drop(b.exchange(shelter.card()));
        assert!(b.is_running(1) && !b.is_running(0));
        assert!(
            count(&interrupt),
            "nobody knows whether the last one was seen"
        );
        assert_eq!((b.used(1), frames(&mut b)), (process, u32::from(process)));
        b.send_again(1, process + 1);
        b.wait_used(1, process + 1);
        b.wait(|b| frames(b) == u32::from(process) + 1);
    }
    assert_eq!(b.illegal(), 0);
    b.write(queue_reg(1, regs::Q_CTRL), 0);
    assert_eq!(b.read(queue_reg(1, regs::Q_INDEX)), 5 << 16 | 5);
}

#[test]
fn a_queue_that_has_failed_stays_so() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(QUEUE_STATS);
    b.start(1);
    b.send_again(1, 1000);
    b.wait(|b| b.error(1).is_some());
    let error = b.error(1);
    // Whether it was written down or not.
    for change in [false, true, false] {
        if change {
            b.write(regs::MTU, 1400);
        }
        b.exchange(shelter.card());
        b.wait(|b| b.error(1).is_some());
        assert_eq!(b.error(1), error);
        assert!(!b.is_running(1));
        assert_eq!(b.read(queue_reg(1, regs::Q_INDEX)), 0);
    }
}

#[test]
fn a_queue_of_which_the_driver_has_read_that_it_failed_stays_so() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(QUEUE_STATS);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    b.send_again(1, 1000);
    b.wait(|b| b.error(1).is_some());
    let error = b.error(1);
    // What used to be the ring may look like one again.
    b.send_again(1, 2);
    b.exchange(shelter.card());
    b.send_again(1, 2);
    thread::sleep(Duration::from_millis(20));
    assert_eq!((b.error(1), b.used(1)), (error, 1));
}

/// A backend that notes which of its queues is told to receive, or not to.
struct Plugged(Arc<Mutex<Vec<(usize, bool)>>>);

struct Plug {
    queue: usize,
    told: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl Endpoint for Plugged {
    fn capabilities(&self) -> Capabilities {
        Null::new().capabilities()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, vnet_backend::Error> {
        let plug = |queue| {
            let told = Arc::clone(&self.0);
            Box::new(Plug { queue, told }) as Box<dyn Queue>
        };
        Ok((0..queues.into()).map(plug).collect())
    }

    fn set_offloads(&mut self, _: Offloads) {}
}

impl Queue for Plug {
    fn transmit(&mut self, frames: &[Frame<'_>]) -> usize {
        frames.len()
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        Some(Box::new(Self {
            queue: self.queue,
            told: Arc::clone(&self.told),
        }))
    }
}

impl Attachment for Plug {
    fn set_attached(&mut self, attached: bool) {
        self.told.lock().unwrap().push((self.queue, attached));
    }
}

/// A TAP forgets what waits in a queue that is detached.
#[test]
fn a_queue_that_goes_on_is_not_detached() {
    let shelter = Shelter::new();
    let card = |told: &Arc<_>| {
        let mut config = bench::config();
        config.service.taken_over = true;
        let mut card = Card::new(config, Box::new(Plugged(Arc::clone(told)))).unwrap();
        // The threads look around meanwhile.
        thread::sleep(Duration::from_millis(2));
        shelter.survive(&mut card).unwrap();
        card
    };
    let mut b = Bench::prepare(card(&Arc::default()));
    b.accept(QUEUE_STATS);
    b.start(0);
    for _ in 0..20 {
        let told = Arc::new(Mutex::new(Vec::new()));
        b.exchange(card(&told));
        b.wait(|_| told.lock().unwrap().contains(&(1, false)));
        thread::sleep(Duration::from_millis(2));
        assert_eq!(*told.lock().unwrap(), [(1, false)]);
    }

    // Nor is it while its memory is away.
    let told = Arc::new(Mutex::new(Vec::new()));
    b.unmap();
    b.exchange(card(&told));
    b.command(MEMORY_SPACE | BUS_MASTER);
    thread::sleep(Duration::from_millis(2));
    assert_eq!(*told.lock().unwrap(), []);
    b.map();
    b.wait(|_| told.lock().unwrap().contains(&(1, false)));
    assert_eq!(*told.lock().unwrap(), [(1, false)]);
}

/// Until its first driver comes, a switch would bring frames to a card that it is not told of.
#[test]
fn the_backend_of_a_new_card_is_told_that_nobody_receives() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let _card = new_card(Box::new(Plugged(Arc::clone(&told))));
    let until = Instant::now() + Duration::from_secs(10);
    while told.lock().unwrap().len() < PAIRS.into() {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(told.lock().unwrap().iter().all(|(_, attached)| !attached));
}

#[test]
fn without_bus_mastering_queues_pause_and_go_on_with_it() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(QUEUE_STATS);
    b.start(1);
    b.command(MEMORY_SPACE);
    b.exchange(shelter.card());
    b.send(1);
    assert!(b.is_running(1));
    assert_eq!(b.used(1), 0);
    b.command(MEMORY_SPACE | BUS_MASTER);
    b.wait_used(1, 1);
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

/// Changes the records that a card wrote.
fn rewrite(shelter: &Shelter, f: impl Fn(u16, &[u8], &mut Writer)) {
    let saved = shelter.memory.snapshot().unwrap();
    let mut to = Writer::new();
    let mut rest = &saved[2..];
    for (tag, _) in Reader::new(&saved).unwrap() {
        let len = u32::from_le_bytes(rest[2..6].try_into().unwrap()) as usize;
        f(tag, &rest[6..6 + len], &mut to);
        rest = &rest[6 + len..];
    }
    assert!(shelter.memory.commit(&to.finish()));
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

/// The process died when it had written down that it would start the queue, and before it found that it
/// must not.
#[test]
fn a_start_that_was_to_be_refused_is() {
    for (features, vector, error) in [
        (None, NO_VECTOR, Broken::NotNegotiated),
        (Some(0), 77, Broken::Vector),
    ] {
        let shelter = Shelter::new();
        let mut b = shelter.bench();
        if let Some(features) = features {
            b.accept(features);
        }
        b.write(queue_reg(1, regs::Q_VECTOR), vector);
        b.start(1);
        // As it was when only this was written down.
        b.card.events.clear_fault(1);
        b.card.queues[1].started = true;
        b.card.save();
        b.exchange(shelter.card());
        assert_eq!(b.error(1).map(|(error, _)| error), Some(error));
    }
}

/// As a client does that changes its memory.
#[test]
fn a_queue_whose_memory_is_away_for_a_moment_goes_on() {
    let shelter = Shelter::new();
    let mut b = shelter.bench();
    b.accept(0);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    b.unmap();
    b.exchange(shelter.card());
    // Once more, with something else in between.
    b.exchange(shelter.card());
    b.card.caught_up();
    b.command(MEMORY_SPACE | BUS_MASTER);
    b.map();
    assert!(b.is_running(1));
    b.send_again(1, 2);
    b.wait_used(1, 2);

    // Who uses the card meanwhile is told, as ever.
    b.unmap();
    b.exchange(shelter.card());
    let error = b.error(1).map(|(error, _)| error);
    assert_eq!(error, Some(Broken::RingFault));
    b.map();
    assert!(!b.is_running(1));
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
