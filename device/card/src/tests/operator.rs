// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is done to a card while a driver uses it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};
use vnet_contract::{features, regs};
use vnet_faults::Faults;
use vnet_loopback::{Loopback, Null};

use super::bench::{Bench, MAC, PAIRS};
use crate::missed::FRESH;
use crate::{Error as CardError, Forced};

const PATIENCE: Duration = Duration::from_secs(20);

/// A backend with limits, and without a link.
struct Small {
    max_queues: u16,
    max_mtu: u16,
}

impl Endpoint for Small {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: self.max_queues,
            max_mtu: self.max_mtu,
        }
    }

    fn link(&self) -> Link {
        Link {
            up: false,
            speed: Some(10),
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Null::new().open(queues)
    }

    fn set_offloads(&mut self, receive: Offloads) {
        assert_eq!(receive, Offloads::default(), "more than it can deliver");
    }
}

/// A backend that counts what its queues never saw.
pub(super) struct Full(pub(super) Arc<AtomicU64>);

impl Endpoint for Full {
    fn capabilities(&self) -> Capabilities {
        Null::new().capabilities()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Null::new().open(queues)
    }

    fn set_offloads(&mut self, _: Offloads) {}

    fn missed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn is_up(b: &mut Bench) -> bool {
    b.read(regs::LINK) & regs::LINK_UP != 0
}

#[test]
fn the_backend_of_a_card_changes_under_its_driver() {
    let mut b = Bench::with(Box::new(Loopback::new()));
    let offered = b.read(regs::DEVICE_FEATURES_LO);
    b.accept(offered.into());
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    let small = Small {
        max_queues: PAIRS,
        max_mtu: 9000,
    };
    let changed = b.card.set_backend(Box::new(small)).unwrap();
    // What went round the loop, and nobody took.
    assert_eq!(changed.settle(PATIENCE), 1);
    assert_eq!(b.read(regs::EVENT_CAUSE), regs::EVENT_LINK);
    assert_eq!((is_up(&mut b), b.read(regs::LINK_SPEED)), (false, 10));
    b.send_again(1, 2);
    b.wait_used(1, 2);
    // What was offered stays offered, also to a driver that begins anew.
    b.write(regs::CTRL, regs::CTRL_RESET);
    assert_eq!(b.read(regs::DEVICE_FEATURES_LO), offered);
    b.accept(offered.into());
    b.start(1);
    assert!(b.is_running(1));
}

#[test]
fn a_backend_that_does_not_fit_changes_nothing() {
    let mut b = Bench::new();
    for (max_queues, max_mtu) in [(PAIRS - 1, 9000), (PAIRS, 8999)] {
        let small = Small {
            max_queues,
            max_mtu,
        };
        let refused = b.card.set_backend(Box::new(small)).err().unwrap();
        assert!(
            matches!(
                refused,
                CardError::QueuePairs { .. } | CardError::SmallMtu { .. }
            ),
            "{refused}"
        );
    }
    assert!(is_up(&mut b));
    b.accept(0);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
}

#[test]
fn an_operator_pulls_the_cable() {
    let mut b = Bench::new();
    let operator = b.card.operator();
    b.accept(0);
    b.start(1);
    operator.force_link(Forced {
        down: true,
        speed: Some(100),
    });
    assert_eq!(b.read(regs::EVENT_CAUSE), regs::EVENT_LINK);
    assert_eq!((is_up(&mut b), b.read(regs::LINK_SPEED)), (false, 100));
    b.send(1);
    b.wait_used(1, 1);
    let counters = |n: usize| operator.queues().nth(n).unwrap().counters;
    b.wait(|_| counters(1).drops == 1);
    assert_eq!(counters(1).frames, 0);
    // It stays pulled, whatever the driver does and the backend says.
    b.write(regs::CTRL, regs::CTRL_RESET);
    let changed = b.card.set_backend(Box::new(Null::new())).unwrap();
    changed.settle(PATIENCE);
    assert!(!is_up(&mut b));
    let report = operator.link();
    assert!(report.forced.down && report.backend.up && !report.link.up);
    operator.force_link(Forced::default());
    assert!(is_up(&mut b));
    assert_eq!(operator.queues().count(), 2 * usize::from(PAIRS));
    assert_eq!(counters(1).drops, 1, "since the card was made");
}

#[test]
fn what_was_missed_stays_counted_when_the_backend_goes() {
    let (first, second) = (Arc::new(AtomicU64::new(9)), Arc::new(AtomicU64::new(5)));
    let mut b = Bench::with(Box::new(Full(Arc::clone(&first))));
    let missed = |b: &mut Bench| {
        sleep(FRESH);
        let counters = [regs::S_MISSED, regs::S_DROPS];
        counters.map(|counter| b.read(regs::stats_reg(0, counter)))
    };
    b.accept(features::QUEUE_STATS);
    assert_eq!(missed(&mut b), [0, 0]);
    b.start(0);
    first.store(12, Ordering::Relaxed);
    assert_eq!(missed(&mut b), [3, 3]);
    let changed = b
        .card
        .set_backend(Box::new(Full(Arc::clone(&second))))
        .unwrap();
    changed.settle(PATIENCE);
    assert_eq!(missed(&mut b), [3, 3]);
    second.store(6, Ordering::Relaxed);
    assert_eq!(missed(&mut b), [4, 4]);
    b.write(regs::queue_reg(0, regs::Q_CTRL), 0);
    second.store(60, Ordering::Relaxed);
    assert_eq!(missed(&mut b), [4, 4]);
    // It was looked at just now, and stops and starts count from what is so all the same.
    b.start(0);
    second.store(61, Ordering::Relaxed);
    b.write(regs::queue_reg(0, regs::Q_CTRL), 0);
    second.store(1000, Ordering::Relaxed);
    b.start(0);
    assert_eq!(missed(&mut b), [5, 5]);
    b.write(regs::CTRL, regs::CTRL_RESET);
    assert_eq!(missed(&mut b), [0, 0]);
}

#[test]
fn another_address_is_there_for_the_next_driver() {
    let mut b = Bench::new();
    let (lo, _) = regs::mac_to_regs(MAC);
    b.card.set_mac([2, 0, 0, 0, 0, 9]).unwrap();
    assert!(b.card.set_mac([1, 0, 0, 0, 0, 9]).is_err());
    assert!(b.card.set_mac([0; 6]).is_err());
    assert_eq!(b.read(regs::MAC_LO), lo);
    b.write(regs::CTRL, regs::CTRL_RESET);
    let new = regs::mac_to_regs([2, 0, 0, 0, 0, 9]);
    assert_eq!((b.read(regs::MAC_LO), b.read(regs::MAC_HI)), new);
    let perm = (b.read(regs::PERM_MAC_LO), b.read(regs::PERM_MAC_HI));
    assert_eq!((perm, b.card.mac()), (new, [2, 0, 0, 0, 0, 9]));
}

#[test]
fn a_card_that_was_made_without_faults_gets_some() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    let faults: Arc<Faults> = Arc::default();
    faults.load(&"frame-lost\nlink-down".parse().unwrap());
    b.card.add_faults(&faults);
    b.wait(|b| !is_up(b));
    // The queue runs on, and its frames are lost on the way.
    b.send_again(1, 2);
    b.wait_used(1, 2);
    b.wait(|_| faults.report()[0].contains(": 1 of 1 "));
    // Another backend is none the better for it.
    let changed = b.card.set_backend(Box::new(Null::new())).unwrap();
    changed.settle(PATIENCE);
    b.send_again(1, 3);
    b.wait_used(1, 3);
    b.wait(|_| faults.report()[0].contains(": 2 of 2 "));
    faults.load(&"".parse().unwrap());
    b.wait(is_up);
}

#[test]
fn what_a_driver_has_told_the_card_is_known() {
    let mut b = Bench::new();
    assert_eq!(
        (b.card.driver().features, b.card.driver().started),
        (None, 0)
    );
    b.accept(0);
    b.start(0);
    b.start(3);
    let driver = b.card.driver();
    assert_eq!((driver.features, driver.started), (Some(0), 0b1001));
}
