// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair that misbehaves on command.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::queue::{tx_index, Error, Kind};
use vnet_faults::{Faults, Faulty, Plan};
use vnet_irq::Vector;

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig};

/// A pair that runs with a plan.
fn rig(plan: &str, inline: bool) -> (Rig, Arc<Wire>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    faults.load(&plan.parse().unwrap());
    let wire = Wire::new();
    let rig = Rig::new(Tap(wire.clone()), inline);
    rig.pair.set_faults(&faults);
    (rig.start_both(), wire, faults)
}

#[test]
fn a_stalled_queue_goes_on_by_itself() {
    const STALL: Duration = Duration::from_millis(50);
    for inline in [false, true] {
        let start = Instant::now();
        let (mut rig, wire, _) = rig("stall queue=tx at=1 delay=50ms", inline);
        rig.send(0, &[0; 60]);
        eventually("sent", || wire.sent() == 1);
        assert!(start.elapsed() >= STALL);
    }
}

#[test]
fn a_dead_queue_needs_a_start() {
    let (mut rig, wire, _) = rig("stop-fetching queue=tx count=1", true);
    rig.send(0, &[0; 60]);
    rig.pair.wake();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wire.sent(), 0);
    // The other queue goes on.
    rig.post(0);
    wire.deliver(vec![5; 60]);
    eventually("receive goes on", || rig.rx.used_idx() == 1);
    assert_eq!(rig.pair.stop(Kind::Tx), Some((0, 0)));
    rig.start(Kind::Tx);
    eventually("sent", || wire.sent() == 1);
}

#[test]
fn a_dead_queue_notices_the_end_of_the_plan() {
    let (mut rig, wire, faults) = rig("stop-fetching", false);
    rig.send(0, &[0; 60]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wire.sent(), 0);
    faults.load(&Plan::default());
    eventually("sent", || wire.sent() == 1);
}

#[test]
fn whatever_takes_long_ends_with_the_plan() {
    for inline in [false, true] {
        let (mut rig, wire, faults) =
            rig("stall delay=60s queue=tx\nlate-interrupt delay=60s", inline);
        assert!(!rig.rx.rearm());
        rig.send(0, &[0; 60]);
        rig.post(0);
        wire.deliver(vec![5; 60]);
        eventually("delivered", || rig.rx.used_idx() == 1);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!((wire.sent(), rig.vector.raised()), (0, 0));
        faults.load(&Plan::default());
        eventually("sent", || wire.sent() == 1);
        assert!(rig.interrupted());
    }
}

#[test]
fn a_dead_queue_lives_again_when_its_time_is_over() {
    let start = Instant::now();
    let (mut rig, wire, _) = rig("stop-fetching for=100ms", true);
    rig.send(0, &[0; 60]);
    eventually("sent", || wire.sent() == 1);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

/// The frame that waited is the driver's again, and it may have another one that looks the same.
#[test]
fn a_queue_that_is_started_anew_sends_what_is_in_it() {
    let faults = Arc::new(Faults::default());
    faults.load(&"frame-lost at=9 queue=tx".parse().unwrap());
    let judged = |frames| {
        let report = format!("fault in line 1, frame-lost: 0 of {frames} events");
        faults.report() == [report]
    };
    let wire = Wire::new();
    wire.full.store(true, SeqCst);
    let mut rig = Rig::new(Tap(wire.clone()), false);
    rig.pair.wrap(|queue| Faulty::queue(queue, 3, &faults));
    rig.pair.set_faults(&faults);
    rig.start(Kind::Tx);
    rig.send(0, &[0; 60]);
    eventually("the frame waits", || judged(1));
    assert_eq!(rig.pair.stop(Kind::Tx), Some((0, 0)));
    rig.start(Kind::Tx);
    wire.full.store(false, SeqCst);
    wire.ready();
    eventually("both are sent", || wire.sent() == 2 && judged(2));
}

#[test]
fn a_dma_error_stops_its_queue() {
    let (rig, _, _) = rig("dma-error queue=tx", false);
    rig.pair.wake();
    eventually("report", || !rig.reports.queues.lock().unwrap().is_empty());
    let reports = rig.reports.queues.lock().unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].0, reports[0].1.error),
        (tx_index(3), Error::BufferFault)
    );
    assert_eq!(rig.pair.counters(Kind::Tx).errors, 1);
}

#[test]
fn a_late_interrupt_comes_at_last() {
    for inline in [false, true] {
        let (mut rig, wire, _) = rig("late-interrupt delay=30ms", inline);
        assert!(!rig.rx.rearm());
        let start = Instant::now();
        rig.post(0);
        wire.deliver(vec![5; 60]);
        eventually("delivered", || rig.rx.used_idx() == 1);
        assert!(rig.interrupted());
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}

#[test]
fn a_lost_interrupt_does_not_come_and_is_not_counted() {
    let (mut rig, wire, _) = rig("lost-interrupt at=1", true);
    assert!(!rig.rx.rearm());
    rig.post(0);
    rig.post(1);
    wire.deliver(vec![5; 60]);
    eventually("delivered", || rig.rx.used_idx() == 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.pair.counters(Kind::Rx).interrupts, 0);
    assert_eq!(rig.vector.raised(), 0);
    // The next one comes.
    rig.rx.take_used();
    assert!(!rig.rx.rearm());
    wire.deliver(vec![6; 60]);
    assert!(rig.interrupted());
    eventually("counted", || rig.pair.counters(Kind::Rx).interrupts == 1);
}

/// A transmit queue with a vector of its own; nothing is heard on that of the receive queue.
#[test]
fn interrupts_of_a_transmit_queue_go_wrong_too() {
    for (fault, raised) in [
        ("lost-interrupt", 0),
        ("late-interrupt delay=20ms", 1),
        ("duplicate-interrupt delay=20ms", 2),
        ("spurious-interrupt", 2),
    ] {
        let faults = Arc::new(Faults::default());
        faults.load(&format!("{fault} queue=tx at=1").parse().unwrap());
        let wire = Wire::new();
        let mut rig = Rig::new(Tap(wire.clone()), true);
        rig.pair.set_faults(&faults);
        let other = Arc::new(Vector::default());
        let config = rig.rx.config;
        let start = rig.pair.start(Kind::Rx, config, Some(other.clone()));
        start.unwrap();
        rig.start(Kind::Tx);
        assert!(!rig.tx.rearm());
        // A round in which nothing is due.
        rig.pair.wake();
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        rig.send(0, &[0; 60]);
        eventually("sent", || rig.tx.used_idx() == 1);
        eventually(fault, || rig.vector.raised() == raised);
        assert!(!fault.contains("delay") || start.elapsed() >= Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(
            (rig.vector.raised(), other.raised()),
            (raised, 0),
            "{fault}"
        );
        assert_eq!(rig.pair.counters(Kind::Tx).interrupts, raised, "{fault}");
    }
}

#[test]
fn an_interrupt_for_both_queues_is_the_receive_queues() {
    let (mut rig, wire, _) = rig("lost-interrupt queue=tx", false);
    assert!(!rig.rx.rearm() && !rig.tx.rearm());
    wire.deliver(vec![5; 60]);
    std::thread::sleep(Duration::from_millis(20));
    // Without doorbells, so that one round finds both.
    rig.rx.chain(0, &[(Rig::rx_buffer(0), 2048)], true);
    rig.rx.offer(0);
    rig.tx.chain(0, &[(Rig::tx_buffer(0), 72)], false);
    rig.tx.offer(0);
    rig.pair.wake();
    eventually("both", || (rig.rx.used_idx(), rig.tx.used_idx()) == (1, 1));
    eventually("raised", || rig.vector.raised() == 1);
    // One for the transmit queue alone is its own, and lost.
    rig.tx.take_used();
    assert!(!rig.tx.rearm());
    rig.send(1, &[0; 60]);
    eventually("sent", || rig.tx.used_idx() == 2);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.vector.raised(), 1);
}

#[test]
fn oversized_frames_get_past_the_filter() {
    let (mut rig, wire, _) = rig("frame-oversized", true);
    // The fault itself is for the backend to make; what matters here is that the card lets it by.
    rig.post(0);
    wire.deliver(vec![5; 1800]);
    eventually("delivered", || rig.rx.used_idx() == 1);
    assert_eq!(rig.take().map(|(_, frame)| frame.len()), Some(1800));
}
