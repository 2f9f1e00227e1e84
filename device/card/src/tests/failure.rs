// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backends that fail, and links that change.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::{Capabilities, Endpoint, Error, Frame, Link, Offloads, Queue, RxRing};
use vnet_contract::regs::{self, queue_reg};

use super::bench::{new_card, Bench, PAIRS};
use super::shelter::Shelter;

/// A backend whose queues panic, and whose link others can pull, or break so that it panics too.
#[derive(Default)]
struct Fragile {
    unplugged: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

struct FragileQueue;

impl Endpoint for Fragile {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: PAIRS,
            max_mtu: 1500,
        }
    }

    fn link(&self) -> Link {
        // Once: the next look finds it whole.
        assert!(!self.broken.swap(false, SeqCst), "a link, on purpose");
        Link {
            up: !self.unplugged.load(SeqCst),
            speed: Some(10_000),
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|_| Box::new(FragileQueue) as Box<dyn Queue>)
            .collect())
    }

    fn set_offloads(&mut self, _: Offloads) {}
}

impl Queue for FragileQueue {
    fn transmit(&mut self, _: &[Frame<'_>]) -> usize {
        panic!("a backend that panics, on purpose")
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

#[test]
fn a_backend_that_panics_fails_the_card_until_reset() {
    let mut b = Bench::with(Box::new(Fragile::default()));
    b.accept(0);
    b.start(0);
    b.start(1);
    b.start(3);
    b.send(1);
    while b.read(regs::STATUS) & regs::STATUS_FAILED == 0 {
        std::thread::yield_now();
    }
    assert_eq!(
        b.read(regs::STATUS),
        regs::STATUS_FAILED | regs::STATUS_FEATURES_OK
    );
    assert_eq!(b.read(regs::EVENT_CAUSE), regs::EVENT_FAILED);
    // All queues are at rest, and none starts again.
    for queue in [0, 1, 3] {
        assert!(!b.is_running(queue));
    }
    b.write(queue_reg(3, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    assert!(!b.is_running(3));
    // The driver might not have known.
    assert_eq!(b.illegal(), 0);

    b.write(regs::CTRL, regs::CTRL_RESET);
    assert_eq!(b.read(regs::STATUS), regs::STATUS_READY);
    b.accept(0);
    b.start(3);
    assert!(b.is_running(3));
}

/// The backend of the next process is as good as new, but the driver was told.
#[test]
fn a_card_of_which_the_driver_has_read_that_it_failed_stays_so() {
    let shelter = Shelter::new();
    let card = || {
        let mut card = new_card(Box::new(Fragile::default()));
        shelter.survive(&mut card).unwrap();
        card
    };
    let mut b = Bench::prepare(card());
    b.accept(0);
    b.start(1);
    b.start(3);
    b.send(1);
    b.wait(|b| b.read(regs::STATUS) & regs::STATUS_FAILED != 0);
    b.exchange(card());
    assert_eq!(
        b.read(regs::STATUS),
        regs::STATUS_FAILED | regs::STATUS_FEATURES_OK
    );
    assert!(!b.is_running(3));
}

/// Waits until the card shows this event.
fn wait_event(b: &mut Bench, event: u32) {
    let start = Instant::now();
    while b.read(regs::EVENT_CAUSE) & event == 0 {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_link_that_panics_is_looked_at_again() {
    let endpoint = Fragile::default();
    let unplugged = Arc::clone(&endpoint.unplugged);
    let broken = Arc::clone(&endpoint.broken);
    let mut b = Bench::with(Box::new(endpoint));
    unplugged.store(true, SeqCst);
    broken.store(true, SeqCst);
    wait_event(&mut b, regs::EVENT_LINK);
    assert!(!broken.load(SeqCst));
    assert_eq!(b.read(regs::LINK), 0);
}

#[test]
fn a_change_of_the_link_is_an_event() {
    let endpoint = Fragile::default();
    let unplugged = Arc::clone(&endpoint.unplugged);
    let mut b = Bench::with(Box::new(endpoint));
    assert_eq!(b.read(regs::LINK_SPEED), 10_000);
    b.write(regs::EVENT_VECTOR, u32::from(PAIRS));
    b.write(regs::EVENT_ENABLE, regs::EVENT_LINK);
    unplugged.store(true, SeqCst);
    wait_event(&mut b, regs::EVENT_LINK);
    assert_eq!(b.read(regs::EVENT_CAUSE), regs::EVENT_LINK);
    assert_eq!(b.read(regs::LINK), 0);
    assert_eq!(b.pending(), 1 << PAIRS);
    // A reset clears the event and leaves the link as it is.
    b.write(regs::CTRL, regs::CTRL_RESET);
    assert_eq!((b.read(regs::LINK), b.read(regs::EVENT_CAUSE)), (0, 0));
}
