// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Another backend while the pair runs, and cables that are pulled.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use vnet_backend::Losses;
use vnet_worker::{Kind, Replacement};

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig, PATIENCE};

fn replace(rig: &mut Rig, wire: &Arc<Wire>) -> u64 {
    let new = Replacement::new(Box::new(Tap(Arc::clone(wire)))).unwrap();
    rig.pair.replace(new).settle(PATIENCE)
}

fn drops(rig: &Rig) -> [u64; 2] {
    rig.pair.quiesce();
    [Kind::Rx, Kind::Tx].map(|kind| rig.pair.counters(kind).drops)
}

#[test]
fn another_backend_takes_over_under_traffic() {
    for inline in [false, true] {
        let (old, new) = (Wire::new(), Wire::new());
        let mut rig = Rig::running(Tap(old.clone()), inline);
        for head in 0..4 {
            rig.post(head);
        }
        rig.send(0, &[0; 60]);
        eventually("it is sent", || old.sent() == 1);
        // The old one takes no more: what is sent goes to the new one.
        old.full.store(true, Ordering::SeqCst);
        rig.send(1, &[0; 60]);
        assert_eq!(replace(&mut rig, &new), 0);
        assert_eq!(Arc::strong_count(&old), 1, "the old one is gone");
        eventually("it is sent", || new.sent() == 1);
        assert_eq!(old.sent(), 1);
        // The worker sleeps on the descriptor of the new one.
        new.deliver(vec![7; 60]);
        eventually("it is received", || rig.rx.used_idx() == 1);
        assert_eq!(rig.take(), Some((0, vec![7; 60])));
        assert_eq!(drops(&rig), [0, 0]);
    }
}

#[test]
fn frames_that_the_old_backend_has_and_has_lost_are_drops() {
    let (old, new) = (Wire::new(), Wire::new());
    // No buffers: frames wait.
    let mut rig = Rig::running(Tap(old.clone()), true);
    for _ in 0..100 {
        old.deliver(vec![0; 60]);
    }
    rig.pair.quiesce();
    *old.losses.lock().unwrap() = Losses {
        sent: 2,
        missed: 1,
        received: 2,
    };
    assert_eq!(replace(&mut rig, &new), 100);
    assert_eq!(drops(&rig), [103, 2]);
    // The new one has lost frames before, for which this card is not to blame.
    let newer = Wire::new();
    newer.losses.lock().unwrap().sent = 1000;
    assert_eq!(replace(&mut rig, &newer), 0);
    rig.send(0, &[0; 60]);
    eventually("it is sent", || newer.sent() == 1);
    assert_eq!(drops(&rig), [103, 2]);
}

#[test]
fn a_backend_is_told_whether_the_driver_receives() {
    let (old, new) = (Wire::new(), Wire::new());
    let mut rig = Rig::new(Tap(old.clone()), true);
    eventually("it is detached", || !old.attached.load(Ordering::SeqCst));
    replace(&mut rig, &new);
    eventually("it is detached", || !new.attached.load(Ordering::SeqCst));
    rig.start(Kind::Rx);
    eventually("it is attached", || new.attached.load(Ordering::SeqCst));
}

#[test]
fn without_a_cable_frames_are_lost_in_both_directions() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    for head in 0..4 {
        rig.post(head);
    }
    let gauge = rig.pair.gauge();
    gauge.set_plugged(false);
    for head in 0..3 {
        rig.send(head, &[0; 60]);
        wire.deliver(vec![0; 60]);
    }
    eventually("buffers come back", || rig.tx.used_idx() == 3);
    eventually("they are lost", || drops(&rig) == [3, 3]);
    let c = rig.pair.counters(Kind::Tx);
    assert_eq!((c.frames, c.bytes), (0, 0));
    assert_eq!((wire.sent(), rig.rx.used_idx()), (0, 0));

    gauge.set_plugged(true);
    rig.send(3, &[0; 60]);
    wire.deliver(vec![9; 60]);
    eventually("it is sent", || wire.sent() == 1);
    eventually("it is received", || rig.rx.used_idx() == 1);
    assert_eq!(drops(&rig), [3, 3]);
}

#[test]
fn totals_go_on_through_a_reset() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    let gauge = rig.pair.gauge();
    rig.send(0, &[0; 60]);
    eventually("it is sent", || wire.sent() == 1);
    rig.pair.quiesce();
    let before = gauge.totals(Kind::Tx);
    assert_eq!((before.frames, before.bytes), (1, 60));
    rig.pair.reset();
    assert_eq!(rig.pair.counters(Kind::Tx).frames, 0);
    assert_eq!(gauge.totals(Kind::Tx), before);
    drop(rig);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(gauge.totals(Kind::Tx), before);
}
