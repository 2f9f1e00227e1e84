// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What polling spares, and where it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vnet_contract::queue::Kind;
use vnet_worker::Options;

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig, SIZE};

/// Frames one by one, each as soon as the last one was sent. Returns the doorbells that it took.
fn doorbells(poll: Duration, frames: u16) -> u64 {
    let options = Options {
        // Inline service is another way to spare the worker's sleep.
        inline_doorbells: false,
        poll,
        // So is the clock.
        tx_timer: Duration::ZERO,
        ..Options::default()
    };
    let mut rig = Rig::with(Tap(Wire::new()), options).start_both();
    for n in 0..frames {
        rig.send(n % SIZE, &[0; 60]);
        while rig.tx.take_used().is_none() {
            std::thread::yield_now();
        }
    }
    rig.pair.counters(Kind::Tx).doorbells
}

#[test]
fn a_worker_that_polls_needs_few_doorbells() {
    const FRAMES: u16 = 2_000;
    // As long as it takes on a machine where others are busy.
    let polling = doorbells(Duration::from_millis(5), FRAMES);
    assert!(polling < u64::from(FRAMES) / 2, "{polling}");
}

#[test]
fn an_idle_worker_sleeps() {
    let wire = Wire::new();
    let options = Options {
        poll: Duration::from_millis(1),
        ..Options::default()
    };
    let rig = Rig::with(Tap(wire.clone()), options).start_both();
    // Work that comes soon makes it poll.
    for _ in 0..20 {
        wire.deliver(vec![0; 60]);
        std::thread::sleep(Duration::from_micros(100));
    }
    eventually("the worker has slept for a while", || {
        let before = wire.received.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        wire.received.load(Ordering::SeqCst) == before
    });
    drop(rig);
}

#[test]
fn a_stream_is_served_by_the_clock() {
    const FRAMES: u16 = 2_000;
    let options = Options {
        // Long, for a machine where others are busy.
        tx_timer: Duration::from_millis(5),
        ..Options::default()
    };
    let mut rig = Rig::with(Tap(Wire::new()), options).start_both();
    let mut before = 0;
    for n in 1..=FRAMES {
        rig.send(n % SIZE, &[0; 60]);
        while rig.tx.take_used().is_none() {
            std::thread::yield_now();
        }
        // Each frame waits for the clock then, and 40 are enough of that. Others may come before, from a worker
        // that has to wait for its turn longer than for the clock.
        if n % 40 == 0 {
            let doorbells = rig.pair.counters(Kind::Tx).doorbells;
            if doorbells - before < 20 {
                return;
            }
            before = doorbells;
        }
    }
    panic!("{before} doorbells");
}
