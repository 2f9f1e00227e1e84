// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Interrupts that wait for company.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};
use vnet_capture::{Capture, Config, Selection, Watch, WHOLE};
use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_contract::queue::Kind;
use vnet_worker::Moderation;

use crate::backends::{Echo, Tap, Wire};
use crate::rig::{eventually, Rig, SIZE};

/// The longest wait that can be asked for.
const LONG: u16 = u16::MAX;

fn moderate(rig: &Rig, kind: Kind, usecs: u16, frames: u16) {
    rig.pair.set_moderation(kind, Moderation { usecs, frames });
}

/// Sends a frame and waits until it is in the used ring.
fn sent(rig: &mut Rig, head: u16) {
    let used = rig.tx.used_idx().wrapping_add(1);
    rig.send(head, &[0; 60]);
    eventually("sent", || rig.tx.used_idx() == used);
    // The decision about the interrupt is part of the same round.
    rig.pair.quiesce();
}

#[test]
fn an_interrupt_comes_when_its_time_is_over() {
    const WAIT: Duration = Duration::from_millis(5);
    for inline in [false, true] {
        let mut rig = Rig::running(Tap(Wire::new()), inline);
        moderate(&rig, Kind::Tx, WAIT.as_micros() as u16, 0);
        for head in 0..10 {
            let start = Instant::now();
            rig.send(head, &[0; 60]);
            assert!(rig.interrupted());
            assert!(start.elapsed() >= WAIT, "after {:?}", start.elapsed());
            assert_eq!(rig.vector.raised(), u64::from(head) + 1);
            rig.tx.take_used();
            rig.tx.rearm();
        }
    }
}

#[test]
fn an_interrupt_comes_when_its_frames_are_there() {
    const FRAMES: u16 = 8;
    for inline in [false, true] {
        let mut rig = Rig::running(Tap(Wire::new()), inline);
        moderate(&rig, Kind::Tx, LONG, FRAMES);
        let start = Instant::now();
        for head in 0..FRAMES {
            sent(&mut rig, head);
        }
        assert!(rig.interrupted());
        let early = start.elapsed() < Duration::from_micros(LONG.into());
        // On a machine that took so long, the time may have come first.
        assert!(!early || rig.vector.raised() == 1);
    }
}

/// Whoever looks at a queue that is captured leaves the capture what it has in hand.
#[test]
fn a_frame_that_waits_for_its_interrupt_stays_with_its_capture() {
    let mut rig = Rig::running(Tap(Wire::new()), true);
    moderate(&rig, Kind::Tx, LONG, 0);
    let config = Config {
        card: "nic0".into(),
        mac: None,
        pairs: MAX_QUEUE_PAIRS,
        selection: Selection::default(),
        snaplen: WHOLE,
        count: None,
        time: None,
    };
    let file = memfd_create("capture", MemfdFlags::CLOEXEC).unwrap();
    let capture = Capture::start(config, File::from(file)).unwrap();
    let gauge = rig.pair.gauge();
    gauge.capture(Some(capture.clone()));
    let mut in_time = false;
    for head in 0..SIZE {
        sent(&mut rig, head);
        let watch = Watch::new();
        gauge.look(Kind::Tx, &watch);
        // On a machine that took so long, the frame may be with the capture already.
        in_time = rig.vector.raised() == u64::from(head);
        assert!(rig.interrupted());
        rig.tx.take_used();
        rig.tx.rearm();
        if in_time {
            let mut seen = Vec::new();
            eventually("seen", || {
                seen.extend(watch.take());
                !seen.is_empty()
            });
            assert_ne!(seen[0].stages.interrupt, 0);
            break;
        }
    }
    assert!(in_time);
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    for inline in [false, true] {
        let mut rig = Rig::running(Tap(Wire::new()), inline);
        moderate(&rig, Kind::Tx, 20_000, 0);
        let start = Instant::now();
        let mut polled_in_time = true;
        for head in 0..20 {
            sent(&mut rig, head);
            rig.tx.take_used();
            rig.tx.rearm();
            polled_in_time &= start.elapsed() < Duration::from_millis(20);
        }
        std::thread::sleep(Duration::from_millis(60));
        assert!(!polled_in_time || rig.vector.raised() == 0);
    }
}

#[test]
fn one_interrupt_serves_both_queues_at_the_earlier_time() {
    for (rx, tx) in [(2_000, LONG), (LONG, 2_000)] {
        let mut rig = Rig::running(Echo::new(8), true);
        rig.post(0);
        moderate(&rig, Kind::Rx, rx, 0);
        moderate(&rig, Kind::Tx, tx, 0);
        let start = Instant::now();
        rig.send(0, &[0; 60]);
        assert!(rig.interrupted());
        let at = start.elapsed();
        assert!(at >= Duration::from_millis(2), "{at:?}");
        // On a machine that took so long, both may have come due.
        assert!(at < Duration::from_micros(LONG.into()) || rig.vector.raised() == 1);
        assert!(rig.take().is_some() && rig.tx.take_used().is_some());
        std::thread::sleep(2 * Duration::from_micros(LONG.into()));
        assert_eq!(rig.vector.raised(), 1, "the later one was served, too");
        assert_eq!(rig.pair.counters(Kind::Rx).interrupts, 1);
        assert_eq!(rig.pair.counters(Kind::Tx).interrupts, 0);
    }
}

#[test]
fn a_queue_that_fails_does_not_leave_its_interrupt_behind() {
    for inline in [false, true] {
        let mut rig = Rig::running(Tap(Wire::new()), inline);
        moderate(&rig, Kind::Tx, LONG, 0);
        sent(&mut rig, 0);
        // A buffer that the card may only write.
        rig.tx.chain(1, &[(Rig::tx_buffer(1), 72)], true);
        rig.tx.offer(1);
        rig.pair.doorbell(Kind::Tx);
        eventually("the fault is reported", || {
            rig.reports.queues.lock().unwrap().len() == 1
        });
        assert!(rig.interrupted(), "for the frame before");
        assert_eq!(rig.vector.raised(), 1);
    }
}

#[test]
fn a_stopped_queue_raises_nothing_and_a_reset_forgets_the_settings() {
    let mut rig = Rig::running(Tap(Wire::new()), true);
    moderate(&rig, Kind::Tx, LONG, 0);
    let start = Instant::now();
    sent(&mut rig, 0);
    rig.pair.stop(Kind::Tx);
    if start.elapsed() < Duration::from_micros(LONG.into()) {
        std::thread::sleep(2 * Duration::from_micros(LONG.into()));
        assert_eq!(rig.vector.raised(), 0);
    }

    rig.pair.reset();
    rig.tx = rig.tx.clone().start_at(0);
    rig.start(Kind::Tx);
    let before = rig.vector.raised();
    sent(&mut rig, 0);
    assert_eq!(rig.vector.raised(), before + 1, "at once");
}

#[test]
fn a_driver_that_sleeps_is_always_woken() {
    const FRAMES: u32 = 4_000;
    for inline in [false, true] {
        let mut rig = Rig::running(Echo::new(8), inline);
        for head in 0..4 {
            rig.post(head);
        }
        let mut free: Vec<u16> = (0..SIZE).collect();
        let (mut sent, mut received) = (0u32, 0u32);
        while received < FRAMES {
            let n = (sent ^ received) as u16;
            moderate(&rig, Kind::Rx, n % 70, n % 5);
            moderate(&rig, Kind::Tx, n % 50, n % 7);
            while let Some((head, _)) = rig.tx.take_used() {
                free.push(head as u16);
            }
            while let Some(head) = free.pop().filter(|_| sent < FRAMES) {
                rig.send(head, &[0; 60]);
                sent += 1;
                if sent % 3 == 0 {
                    break;
                }
            }
            while let Some((head, _)) = rig.take() {
                received += 1;
                rig.post(head);
            }
            if received < FRAMES && !rig.rx.rearm() && !rig.tx.rearm() {
                assert!(rig.interrupted(), "{sent} sent, {received} received");
            }
        }
    }
}
