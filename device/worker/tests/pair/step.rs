// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Pairs whose queues go on a step at a time: what a driver may do meanwhile, and must not.

use vnet_contract::queue::{rx_index, tx_index, Error, Kind};
use vnet_worker::{Did, Fate, Moderation, Next, Refused};

use crate::backends::{Echo, Tap, Wire};
use crate::rig::{eventually, Rig};

/// Does a step, which must be possible.
fn step(rig: &Rig, kind: Kind) -> (Did, Option<Next>) {
    let step = rig.pair.gauge().step(kind).unwrap();
    (step.did, step.next)
}

fn steps(rig: &Rig, kind: Kind, count: usize) {
    for _ in 0..count {
        step(rig, kind);
    }
}

#[test]
fn a_paused_queue_is_served_by_nobody() {
    for inline in [false, true] {
        let mut rig = Rig::running(Echo::new(4), inline);
        let gauge = rig.pair.gauge();
        assert_eq!(gauge.step(Kind::Tx).unwrap_err(), Refused::NotPaused);
        gauge.pause(Kind::Tx);
        gauge.pause(Kind::Rx);
        rig.post(0);
        rig.send(1, &[7; 60]);
        // Whoever may want to serve it.
        rig.pair.doorbell(Kind::Tx);
        rig.pair.doorbell(Kind::Rx);
        rig.pair.wake();
        std::thread::sleep(std::time::Duration::from_millis(20));
        rig.pair.quiesce();
        assert_eq!((rig.tx.used_idx(), rig.rx.used_idx()), (0, 0));
        assert_eq!(rig.vector.raised(), 0);
        gauge.resume(Kind::Tx);
        eventually("sent", || rig.tx.used_idx() == 1);
        assert_eq!(rig.rx.used_idx(), 0);
        gauge.resume(Kind::Rx);
        eventually("received", || rig.rx.used_idx() == 1);
    }
}

#[test]
fn what_is_in_hand_is_a_copy() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), false);
    rig.pair.gauge().pause(Kind::Tx);
    rig.send(1, &[7; 60]);
    let (did, next) = step(&rig, Kind::Tx);
    assert!(matches!(did, Did::Fetched(_)), "{did:?}");
    assert_eq!(next, Some(Next::Read { head: 1 }));
    step(&rig, Kind::Tx);
    // A driver that changes what it has given away deceives nobody.
    rig.tx.chain(1, &[(Rig::tx_buffer(2), 5)], false);
    let (did, _) = step(&rig, Kind::Tx);
    let Did::HandedOver(offered) = did else {
        panic!("{did:?}");
    };
    assert_eq!(
        (offered.frame.len, &offered.frame.start[..]),
        (60, &[7; 60][..])
    );
}

#[test]
fn memory_that_goes_between_two_steps_is_a_fault() {
    let mut rig = Rig::running(Echo::new(4), false);
    rig.pair.gauge().pause(Kind::Tx);
    rig.send(1, &[7; 60]);
    steps(&rig, Kind::Tx, 2);
    rig.mem.space.unmap(Rig::rx_buffer(0), 0x8_0000);
    rig.pair.quiesce();
    let (did, next) = step(&rig, Kind::Tx);
    let Did::Failed(fault) = did else {
        panic!("{did:?}");
    };
    assert_eq!(
        (fault.error, fault.info, next),
        (Error::BufferFault, 1, None)
    );
    assert_eq!(*rig.reports.queues.lock().unwrap(), [(tx_index(3), fault)]);
    let refused = rig.pair.gauge().step(Kind::Tx).unwrap_err();
    assert_eq!(refused, Refused::NotRunning);
}

#[test]
fn a_rule_that_is_broken_stops_the_queue() {
    let mut rig = Rig::running(Echo::new(4), false);
    let gauge = rig.pair.gauge();
    gauge.pause(Kind::Rx);
    // For the device to read.
    rig.rx.chain(5, &[(Rig::rx_buffer(5), 2048)], false);
    rig.rx.offer(5);
    step(&rig, Kind::Rx);
    let (did, _) = step(&rig, Kind::Rx);
    let Did::Failed(fault) = did else {
        panic!("{did:?}");
    };
    assert_eq!(fault.error, Error::Direction);
    assert_eq!(*rig.reports.queues.lock().unwrap(), [(rx_index(3), fault)]);
    // Index as if it had not been fetched.
    assert_eq!(rig.pair.indices(Kind::Rx), Some((0, 0)));
    // It is paused when it is started again.
    rig.pair.stop(Kind::Rx);
    rig.rx = vnet_queue::mock::Driver::new(&rig.mem, rig.rx.config.desc, 64, 0);
    rig.rx.set_avail_idx(0);
    rig.start(Kind::Rx);
    assert_eq!(gauge.next(Kind::Rx), Some(Next::Fetch));
    rig.post(6);
    let (_, next) = step(&rig, Kind::Rx);
    assert_eq!(next, Some(Next::Read { head: 6 }));
}

#[test]
fn frames_that_nobody_wants_leave_the_buffer_in_hand() {
    let mut rig = Rig::running(Echo::new(4), false);
    let gauge = rig.pair.gauge();
    gauge.pause(Kind::Rx);
    rig.post(0);
    steps(&rig, Kind::Rx, 2);
    let fate = |rig: &Rig| match step(rig, Kind::Rx) {
        (Did::Received(came), next) => (came.fate, matches!(next, Some(Next::Hand { .. }))),
        other => panic!("{other:?}"),
    };
    assert_eq!(fate(&rig), (Fate::None, true));
    // Longer than the MTU, and than the buffer.
    for (len, due) in [(1600, Fate::Unwanted), (3000, Fate::TooLong)] {
        rig.send(1, &vec![7; len]);
        eventually("echoed", || fate(&rig) == (due, true));
    }
    rig.send(2, &[9; 60]);
    eventually("echoed", || fate(&rig) == (Fate::Delivered, false));
    assert_eq!(rig.rx.used_idx(), 0);
    step(&rig, Kind::Rx);
    assert_eq!(rig.take(), Some((0, vec![9; 60])));
}

#[test]
fn an_interrupt_waits_for_company_there_too() {
    let mut rig = Rig::running(Tap(Wire::new()), false);
    rig.pair.gauge().pause(Kind::Tx);
    let moderation = Moderation {
        usecs: 20_000,
        frames: 0,
    };
    rig.pair.set_moderation(Kind::Tx, moderation);
    rig.tx.rearm();
    rig.send(1, &[7; 60]);
    steps(&rig, Kind::Tx, 4);
    let (did, next) = step(&rig, Kind::Tx);
    let Did::Decided {
        due: true, wait, ..
    } = did
    else {
        panic!("{did:?}");
    };
    assert_eq!(next, Some(Next::Decide), "{wait:?}");
    assert!(wait.is_some());
    eventually("its time is over", || {
        step(&rig, Kind::Tx).1 == Some(Next::Signal)
    });
    assert_eq!(rig.vector.raised(), 0);
    step(&rig, Kind::Tx);
    assert_eq!(rig.vector.raised(), 1);
}
