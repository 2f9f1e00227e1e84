// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What goes wrong stays where it went wrong.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vnet_contract::queue::{rx_index, tx_index, Error, Kind};
use vnet_worker::{Fault, RingConfig};

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig, SIZE};

#[test]
fn a_fault_stops_one_queue_and_is_reported_once() {
    for inline in [false, true] {
        let wire = Wire::new();
        let mut rig = Rig::running(Tap(wire.clone()), inline);
        rig.post(0);
        rig.post(1);
        rig.send(0, &[0; 60]);
        rig.tx.offer(SIZE);
        rig.pair.doorbell(Kind::Tx);
        let expected = (
            tx_index(3),
            Fault {
                error: Error::DescIndex,
                info: SIZE.into(),
            },
        );
        eventually("report", || {
            *rig.reports.queues.lock().unwrap() == [expected]
        });
        assert_eq!(wire.sent(), 1, "the frame before the fault");
        assert_eq!(rig.pair.counters(Kind::Tx).errors, 1);
        // It stays stopped, and quiet.
        rig.send(1, &[0; 60]);
        rig.pair.doorbell(Kind::Tx);
        rig.pair.wake();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(wire.sent(), 1);
        assert_eq!(rig.reports.queues.lock().unwrap().len(), 1);
        // The other queue goes on.
        wire.deliver(vec![5; 60]);
        eventually("receive goes on", || rig.rx.used_idx() == 1);
        assert_eq!(rig.pair.stop(Kind::Tx), Some((1, 1)));
        // And it can be started again.
        rig.tx = rig.tx.clone().start_at(0);
        rig.start(Kind::Tx);
        rig.send(2, &[0; 60]);
        eventually("transmit works again", || wire.sent() == 2);
    }
}

#[test]
fn a_receive_fault_leaves_transmit_alone() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    rig.rx.set_avail_idx(SIZE + 1);
    wire.deliver(vec![5; 60]);
    eventually("report", || {
        let reports = rig.reports.queues.lock().unwrap();
        matches!(reports[..], [(q, f)] if q == rx_index(3) && f.error == Error::AvailIndex)
    });
    rig.send(0, &[0; 60]);
    eventually("transmit goes on", || wire.sent() == 1);
}

#[test]
fn ring_memory_that_is_unmapped_stops_the_queue() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    rig.send(0, &[0; 60]);
    eventually("sent", || wire.sent() == 1);
    assert_eq!(rig.mem.space.unmap(0, u64::MAX), 3);
    rig.pair.quiesce();
    rig.send(1, &[0; 60]);
    rig.pair.doorbell(Kind::Tx);
    eventually("report", || {
        let reports = rig.reports.queues.lock().unwrap();
        reports
            .iter()
            .any(|(q, f)| *q == tx_index(3) && f.error == Error::RingFault)
    });
    assert_eq!((wire.sent(), rig.tx.used_idx()), (1, 1));
}

#[test]
fn a_ring_that_cannot_be_is_refused_and_nothing_starts() {
    let wire = Wire::new();
    let mut rig = Rig::new(Tap(wire.clone()), true);
    let config = RingConfig {
        size: 100,
        ..rig.tx.config
    };
    let fault = rig.pair.start(Kind::Tx, config, None).unwrap_err();
    assert_eq!(fault.error, Error::Size);
    assert_eq!(rig.pair.indices(Kind::Tx), None);
    rig.send(0, &[0; 60]);
    rig.pair.doorbell(Kind::Tx);
    assert_eq!(wire.sent(), 0);
}

#[test]
fn a_panic_of_the_backend_is_contained() {
    for inline in [false, true] {
        let wire = Wire::new();
        let mut rig = Rig::running(Tap(wire.clone()), inline);
        wire.broken.store(true, Ordering::SeqCst);
        rig.send(0, &[0; 60]);
        eventually("report", || *rig.reports.pairs.lock().unwrap() == [3]);
        wire.broken.store(false, Ordering::SeqCst);
        // Nothing is served until the reset, and everything works after it.
        rig.start(Kind::Tx);
        rig.pair.doorbell(Kind::Tx);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(wire.sent(), 0);
        rig.pair.reset();
        rig.start(Kind::Tx);
        eventually("works again", || wire.sent() == 1);
        assert_eq!(rig.reports.pairs.lock().unwrap().len(), 1);
    }
}
