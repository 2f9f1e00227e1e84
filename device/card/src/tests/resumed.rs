// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues with which the next process of a card goes on, or not.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use vnet_backend::{Attachment, Capabilities, Endpoint, Frame, Offloads, Queue, RxRing};
use vnet_contract::features::QUEUE_STATS;
use vnet_contract::queue::{Error as Broken, NO_VECTOR};
use vnet_contract::regs::{self, queue_reg, stats_reg};
use vnet_contract::ring::{Desc, DESC_F_WRITE};
use vnet_irq::EventFd;
use vnet_loopback::{Loopback, Null};

use super::bench::{
    self, new_card, Bench, BUS_MASTER, MEMORY, MEMORY_SIZE, MEMORY_SPACE, PAIRS, RING_STRIDE,
};
use super::operator::Full;
use super::shelter::Shelter;
use crate::missed::FRESH;
use crate::Card;

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
    fn was_attached(&self) -> bool {
        let told = self.told.lock().unwrap();
        let mut own = told.iter().filter(|(queue, _)| *queue == self.queue);
        own.next_back().is_none_or(|(_, attached)| *attached)
    }

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
    b.wait(|_| told.lock().unwrap().contains(&(1, false)));
    thread::sleep(Duration::from_millis(2));
    assert_eq!(*told.lock().unwrap(), [(1, false)]);
    b.map();
    thread::sleep(Duration::from_millis(2));
    assert_eq!(*told.lock().unwrap(), [(1, false)]);

    // One that is detached already is left alone until its pair receives.
    b.exchange(card(&told));
    thread::sleep(Duration::from_millis(2));
    // Its receive queue.
    b.start(2);
    b.wait(|_| told.lock().unwrap().contains(&(1, true)));
    assert_eq!(*told.lock().unwrap(), [(1, false), (1, true)]);
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

/// The driver may have left it so.
#[test]
fn a_queue_whose_ring_is_away_keeps_no_other_waiting() {
    let shelter = Shelter::new();
    let card = || {
        let mut card = new_card(Box::new(Loopback::new()));
        shelter.survive(&mut card).unwrap();
        card
    };
    let mut b = Bench::prepare(card());
    b.accept(0);
    b.write(regs::RX_MODE, regs::RX_MODE_PROMISC);
    [0, 1, 3].into_iter().for_each(|queue| b.start(queue));
    // Nobody looks at the rings before the next process does.
    b.command(MEMORY_SPACE);
    let buffer = Desc {
        addr: MEMORY + 0x9_0000,
        len: 2048,
        flags: DESC_F_WRITE,
        next: 0,
    };
    b.send_chain(0, buffer);
    b.send(1);
    b.send(3);
    b.unmap();
    b.map_part(RING_STRIDE..MEMORY_SIZE);
    b.exchange(card());
    b.command(MEMORY_SPACE | BUS_MASTER);
    b.wait_used(1, 1);
    b.wait_used(3, 1);
    assert_eq!(b.used(0), 0);
    // The frame that came back waits for its queue.
    b.map_part(0..RING_STRIDE);
    b.wait_used(0, 1);
    assert!(b.is_running(0) && b.is_running(1) && b.is_running(3));

    // If nothing comes, who uses the card is told.
    b.command(MEMORY_SPACE);
    b.unmap();
    b.map_part(RING_STRIDE..MEMORY_SIZE);
    b.exchange(card());
    assert_eq!(b.error(0).map(|(error, _)| error), Some(Broken::RingFault));
    assert!(b.is_running(1) && b.is_running(3));
}

/// What the endpoint drops counts while the queue runs, whoever serves it, and what the driver has read stays.
#[test]
fn what_was_missed_is_told_on() {
    let shelter = Shelter::new();
    let counted = Arc::new(AtomicU64::new(9));
    let card = || {
        let mut card = new_card(Box::new(Full(Arc::clone(&counted))));
        shelter.survive(&mut card).unwrap();
        card
    };
    let missed = |b: &mut Bench| {
        thread::sleep(FRESH);
        b.read(stats_reg(0, regs::S_MISSED))
    };
    let mut b = Bench::prepare(card());
    b.accept(QUEUE_STATS);
    b.start(0);
    // The second of these processes sees nothing of the interface.
    for (count, told) in [(12, 3), (0, 3), (13, 4)] {
        b.exchange(card());
        counted.store(count, Ordering::Relaxed);
        assert_eq!(missed(&mut b), told);
    }

    // A queue that has failed is found stopped by the process that comes next.
    b.unmap();
    b.exchange(card());
    assert!(b.error(0).is_some());
    b.map();
    b.exchange(card());
    counted.store(1000, Ordering::Relaxed);
    b.write(queue_reg(0, regs::Q_CTRL), 0);
    b.start(0);
    assert_eq!(missed(&mut b), 4);
}
