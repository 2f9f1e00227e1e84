// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Nobody sleeps on work: a driver that rings only when it is asked to, and that sleeps until it
//! is interrupted, never waits for ever.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vnet_contract::queue::Kind;
use vnet_worker::Options;

use crate::backends::{Echo, Tap, Wire};
use crate::rig::{eventually, Rig, SIZE};

/// The ways to work: doorbells left to the worker or served inline, without and with polling.
fn ways() -> impl Iterator<Item = Options> {
    [0, 50]
        .map(Duration::from_micros)
        .into_iter()
        .flat_map(|poll| {
            [false, true].map(|inline_doorbells| Options {
                inline_doorbells,
                poll,
                ..Options::default()
            })
        })
}

/// Frames per run; with the pauses below that is tens of thousands of sleeps and wake-ups.
const FRAMES: u32 = 20_000;

/// Something between nothing and a few microseconds, so that the sides meet in every phase.
fn pause(seed: &mut u32) {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    for _ in 0..(*seed >> 24) * 4 {
        std::hint::spin_loop();
    }
}

#[test]
fn transmit() {
    for options in ways() {
        let wire = Wire::new();
        let mut rig = Rig::with(Tap(wire.clone()), options).start_both();
        let mut free: Vec<u16> = (0..SIZE).collect();
        let mut seed = 1;
        let mut sent = 0;
        while sent < FRAMES {
            pause(&mut seed);
            if let Some(head) = free.pop() {
                rig.send(head, &[0; 60]);
                sent += 1;
            }
            // Often with few frames under way, so that the device runs dry.
            let keep = (seed >> 8) as usize % usize::from(SIZE);
            while free.len() < keep {
                match rig.tx.take_used() {
                    Some((head, _)) => free.push(head as u16),
                    None if rig.tx.rearm() => {}
                    None => assert!(rig.interrupted(), "no interrupt after {sent} frames"),
                }
            }
        }
        eventually("all are sent", || wire.sent() == u64::from(FRAMES));
        assert_eq!(rig.reports.queues.lock().unwrap().len(), 0);
    }
}

#[test]
fn a_doorbell_between_the_last_look_and_the_sleep() {
    for options in ways() {
        let wire = Wire::new();
        let mut rig = Rig::with(Tap(wire.clone()), options).start_both();
        // Time for the worker to fall asleep, so that one round is all that the kick causes.
        std::thread::sleep(Duration::from_millis(20));
        wire.lingers.store(100_000, Ordering::SeqCst);
        rig.pair.wake();
        // The worker has asked for a doorbell, found the ring empty, and holds the pair.
        eventually("the round ends slowly", || {
            wire.began.load(Ordering::SeqCst) > 0
        });
        rig.send(0, &[0; 60]);
        assert_eq!(rig.pair.counters(Kind::Tx).doorbells, 1);
        eventually("sent", || wire.sent() == 1);
    }
}

#[test]
fn receive() {
    for options in ways() {
        receive_all(options);
    }
}

fn receive_all(options: Options) {
    let wire = Wire::new();
    let mut rig = Rig::with(Tap(wire.clone()), options).start_both();
    let sender = std::thread::spawn({
        let wire = wire.clone();
        move || {
            let mut seed = 2;
            for i in 0..FRAMES {
                pause(&mut seed);
                let mut frame = vec![0; 60];
                frame[20..24].copy_from_slice(&i.to_le_bytes());
                wire.deliver(frame);
            }
        }
    });
    // Few buffers, so that the device runs out of them all the time.
    for head in 0..4 {
        rig.post(head);
    }
    let mut seed = 3;
    for i in 0..FRAMES {
        let (head, frame) = loop {
            match rig.take() {
                Some(taken) => break taken,
                None if rig.rx.rearm() => {}
                None => assert!(rig.interrupted(), "no interrupt after {i} frames"),
            }
        };
        assert_eq!(frame[20..24], i.to_le_bytes());
        pause(&mut seed);
        rig.post(head);
    }
    sender.join().unwrap();
}

#[test]
fn a_dry_ring_is_refilled_with_few_doorbells() {
    const BUFFERS: u16 = SIZE / 2;
    const FRAMES: u64 = 10 * BUFFERS as u64;
    for options in ways() {
        let wire = Wire::new();
        let mut rig = Rig::with(Tap(wire.clone()), options).start_both();
        (0..BUFFERS).for_each(|head| rig.post(head));
        for _ in 0..FRAMES {
            wire.deliver(vec![0; 60]);
        }
        // All buffers are filled before the first is posted again, and there is always a frame for
        // each that is.
        let take = |rig: &mut Rig| loop {
            match rig.take() {
                Some((head, _)) => break head,
                None if rig.rx.rearm() => {}
                None => assert!(rig.interrupted(), "no interrupt"),
            }
        };
        let mut heads: Vec<_> = (0..BUFFERS).map(|_| take(&mut rig)).collect();
        let before = rig.pair.counters(Kind::Rx).doorbells;
        let posts = FRAMES - 3 * u64::from(BUFFERS);
        for _ in 0..posts {
            let head = heads.pop().unwrap_or_else(|| take(&mut rig));
            rig.post(head);
        }
        let rung = rig.pair.counters(Kind::Rx).doorbells - before;
        // One in sixteen and fewer, if the machine has time for this; one each without the wait.
        assert!(rung < posts / 2, "{rung} of {posts}");
    }
}

#[test]
fn both_through_an_echo() {
    for options in ways() {
        let mut rig = Rig::with(Echo::new(8), options).start_both();
        for head in 0..4 {
            rig.post(head);
        }
        let mut free: Vec<u16> = (0..SIZE).collect();
        let mut seed = 4;
        let (mut sent, mut received) = (0u32, 0u32);
        while received < FRAMES {
            pause(&mut seed);
            while let Some((head, _)) = rig.tx.take_used() {
                free.push(head as u16);
            }
            if let Some(head) = free.pop().filter(|_| sent < FRAMES) {
                let mut frame = [0; 60];
                frame[20..24].copy_from_slice(&sent.to_le_bytes());
                rig.send(head, &frame);
                sent += 1;
            }
            let mut any = false;
            while let Some((head, frame)) = rig.take() {
                assert_eq!(frame[20..24], received.to_le_bytes());
                received += 1;
                any = true;
                rig.post(head);
            }
            let stuck = free.is_empty() || sent == FRAMES;
            if stuck && !any && received < FRAMES && !rig.rx.rearm() && !rig.tx.rearm() {
                assert!(rig.interrupted(), "{sent} sent, {received} received");
            }
        }
    }
}
