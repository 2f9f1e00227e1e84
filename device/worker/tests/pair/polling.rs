// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What polling spares, and where it ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vnet_contract::queue::Kind;
use vnet_worker::Options;

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig, PATIENCE, SIZE};

/// Frames one by one, each as soon as the last one was sent, in rows of 40. Returns how many doorbells the best row
/// took. It takes all 40 where nothing spares them, and while others want the CPU; so it goes on until one is good.
fn doorbells(options: Options) -> u64 {
    let mut rig = Rig::with(Tap(Wire::new()), options).start_both();
    let (mut before, mut fewest) = (0, u64::MAX);
    let mut heads = (0..SIZE).cycle();
    let end = Instant::now() + PATIENCE;
    while fewest >= FEW && Instant::now() < end {
        for head in heads.by_ref().take(40) {
            rig.send(head, &[0; 60]);
            while rig.tx.take_used().is_none() {
                std::thread::yield_now();
            }
        }
        let now = rig.pair.counters(Kind::Tx).doorbells;
        fewest = fewest.min(now - before);
        before = now;
    }
    fewest
}

/// Fewer than these are few for a row.
const FEW: u64 = 20;

#[test]
fn a_worker_that_polls_needs_few_doorbells() {
    let options = Options {
        // Inline service is another way to spare the worker's sleep.
        inline_doorbells: false,
        // As long as it takes on a machine where others are busy.
        poll: Duration::from_millis(5),
        // So is the clock.
        tx_timer: Duration::ZERO,
        ..Options::default()
    };
    let fewest = doorbells(options);
    assert!(fewest < FEW, "{fewest}");
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
    let options = Options {
        // Long, for a machine where others are busy.
        tx_timer: Duration::from_millis(5),
        ..Options::default()
    };
    // Each frame waits for the clock then. Others may come before, from a worker that has to wait for its turn longer
    // than for the clock.
    let fewest = doorbells(options);
    assert!(fewest < FEW, "{fewest}");
}
