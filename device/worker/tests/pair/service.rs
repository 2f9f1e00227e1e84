// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames in, frames out, and what the message thread does in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::Losses;
use vnet_contract::queue::Kind;
use vnet_faults::{Faults, Faulty};
use vnet_worker::Counters;

use crate::backends::{Echo, Tap, Wire};
use crate::rig::{eventually, Rig, SIZE};

#[test]
fn frames_travel_both_ways_and_are_counted() {
    for inline in [false, true] {
        let mut rig = Rig::running(Echo::new(100), inline);
        for head in 0..4 {
            rig.post(head);
        }
        for (head, len) in [(0, 60), (1, 1500)] {
            rig.send(head, &vec![head as u8; len]);
            assert!(rig.interrupted());
            eventually("frame comes back", || rig.rx.used_idx() == head + 1);
            assert_eq!(rig.take(), Some((head, vec![head as u8; len])));
            eventually("buffer comes back", || rig.tx.used_idx() == head + 1);
            rig.tx.take_used();
            rig.rx.rearm();
            rig.tx.rearm();
        }
        rig.pair.quiesce();
        for kind in [Kind::Rx, Kind::Tx] {
            let c = rig.pair.counters(kind);
            assert_eq!((c.frames, c.bytes, c.drops, c.errors), (2, 1560, 0, 0));
        }
        let interrupts =
            rig.pair.counters(Kind::Rx).interrupts + rig.pair.counters(Kind::Tx).interrupts;
        assert_eq!(interrupts, rig.vector.raised());
        assert!(rig.pair.counters(Kind::Tx).doorbells <= 2);
        rig.pair.reset_counters();
        assert_eq!(rig.pair.counters(Kind::Tx), Counters::default());
    }
}

#[test]
fn frames_that_the_backend_lost_are_drops_of_the_queue_that_they_were_of() {
    let wire = Wire::new();
    let rig = Rig::running(Tap(wire.clone()), true);
    let drops = || {
        let [rx, tx] = [Kind::Rx, Kind::Tx].map(|kind| rig.pair.counters(kind));
        (rx.drops, rx.missed, tx.drops)
    };
    // The driver does nothing: the backend is called for frames that it may have, and loses others.
    for n in 1..3 {
        *wire.losses.lock().unwrap() = Losses {
            sent: 4 * n,
            missed: n,
            received: 2 * n,
        };
        wire.ready();
        eventually("they are counted", || drops() == (3 * n, n, 4 * n));
    }

    // Those of before a reset are not counted after it.
    rig.pair.stop(Kind::Rx);
    rig.pair.stop(Kind::Tx);
    wire.losses.lock().unwrap().missed += 100;
    rig.pair.reset();
    rig.start(Kind::Rx);
    wire.losses.lock().unwrap().missed += 1;
    wire.ready();
    eventually("they are counted", || drops() == (1, 1, 0));
}

#[test]
fn entries_that_wait_when_the_queue_starts_need_no_doorbell() {
    let wire = Wire::new();
    let mut rig = Rig::new(Tap(wire.clone()), true);
    for head in 0..3 {
        rig.send(head, &[0; 60]);
    }
    assert_eq!(wire.sent(), 0);
    rig.start(Kind::Tx);
    eventually("frames are sent", || wire.sent() == 3);
}

#[test]
fn a_stopped_queue_touches_nothing_and_starts_again_where_it_stood() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    for head in 0..5 {
        rig.send(head, &[0; 60]);
    }
    eventually("frames are sent", || wire.sent() == 5);
    assert_eq!(rig.pair.stop(Kind::Tx), Some((5, 5)));
    assert_eq!(rig.pair.stop(Kind::Tx), None);
    assert_eq!(rig.pair.indices(Kind::Tx), None);
    rig.send(5, &[0; 60]);
    rig.pair.doorbell(Kind::Tx);
    rig.pair.wake();
    std::thread::sleep(Duration::from_millis(20));
    rig.pair.quiesce();
    assert_eq!((wire.sent(), rig.tx.used_idx()), (5, 5));
    rig.tx.config.index_avail = 5;
    rig.tx.config.index_used = 5;
    rig.start(Kind::Tx);
    eventually("the frame that waited is sent", || wire.sent() == 6);
    eventually("indices go on", || {
        rig.pair.indices(Kind::Tx) == Some((6, 6))
    });
}

#[test]
fn quiesce_waits_for_the_batch_that_runs() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), false);
    wire.slow.store(100_000, Ordering::SeqCst);
    for head in 0..3 {
        rig.send(head, &[0; 60]);
        eventually("the backend is at it", || {
            wire.began.load(Ordering::SeqCst) > u64::from(head)
        });
        rig.pair.quiesce();
        assert!(!wire.busy.load(Ordering::SeqCst));
        assert_eq!(rig.tx.used_idx(), head + 1);
    }
}

#[test]
fn the_message_thread_gets_in_however_busy_the_worker_is() {
    const TIMES: u64 = 200;
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), false);
    wire.slow.store(200, Ordering::SeqCst);
    for head in 0..SIZE {
        rig.send(head, &[0; 60]);
    }
    let stop = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|s| {
        let (pair, mut tx) = (&rig.pair, rig.tx.clone());
        let stop = &stop;
        s.spawn(move || {
            // Every frame that was sent is offered again, so the worker finds work in each round.
            while !stop.load(Ordering::Relaxed) {
                while let Some((head, _)) = tx.take_used() {
                    if tx.offer(head as u16) {
                        pair.doorbell(Kind::Tx);
                    }
                }
            }
        });
        for _ in 0..TIMES {
            // Long enough for the worker to be at it again.
            std::thread::sleep(Duration::from_micros(500));
            // Each round asks the backend for frames once.
            let before = wire.received.load(Ordering::SeqCst);
            pair.quiesce();
            rounds += wire.received.load(Ordering::SeqCst) - before;
        }
        stop.store(true, Ordering::Relaxed);
    });
    // The end of the round that ran, and now and then one that was about to begin.
    assert!(
        rounds <= 3 * TIMES,
        "{rounds} rounds while waiting {TIMES} times"
    );
}

#[test]
fn without_bus_mastering_everything_pauses() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    rig.mem.space.set_bus_master(false);
    rig.pair.quiesce();
    rig.send(0, &[0; 60]);
    rig.pair.doorbell(Kind::Tx);
    wire.deliver(vec![0; 60]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((wire.sent(), rig.tx.used_idx()), (0, 0));
    assert!(rig.pair.start(Kind::Rx, rig.rx.config, None).is_err());
    rig.mem.space.set_bus_master(true);
    rig.pair.wake();
    eventually("the frame is sent", || wire.sent() == 1);
}

#[test]
fn frames_that_the_backend_refused_go_when_it_is_ready() {
    for inline in [false, true] {
        let wire = Wire::new();
        let mut rig = Rig::running(Tap(wire.clone()), inline);
        wire.full.store(true, Ordering::SeqCst);
        for head in 0..3 {
            rig.send(head, &[0; 60]);
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(rig.tx.used_idx(), 0);
        wire.full.store(false, Ordering::SeqCst);
        wire.ready();
        eventually("frames are sent", || wire.sent() == 3);
    }
}

/// What goes on in the place of a frame is not lost sight of: nothing else wakes the worker.
#[test]
fn the_last_frame_under_a_plan_goes_when_the_backend_is_ready() {
    for (inline, receives) in [(false, true), (true, true), (false, false), (true, false)] {
        let wire = Wire::new();
        let mut rig = Rig::new(Tap(wire.clone()), inline);
        let faults = Arc::new(Faults::default());
        faults.load(&"frame-duplicated at=1".parse().unwrap());
        rig.pair.wrap(|queue| Faulty::queue(queue, 3, &faults));
        if receives {
            rig.start(Kind::Rx);
        }
        rig.start(Kind::Tx);
        wire.full.store(true, Ordering::SeqCst);
        rig.send(0, &[0; 60]);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(rig.tx.used_idx(), 0, "it is the card's until it is sent");
        wire.full.store(false, Ordering::SeqCst);
        wire.ready();
        eventually("it is sent, twice", || wire.sent() == 2);
        eventually("the driver gets it back", || rig.tx.used_idx() == 1);
    }
}

#[test]
fn a_backend_that_is_full_of_frames_for_the_guest_takes_more_when_it_could_deliver() {
    for inline in [false, true] {
        let mut rig = Rig::running(Echo::new(2), inline);
        for head in 0..6 {
            rig.send(head, &[head as u8; 60]);
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(rig.rx.used_idx(), 0);
        for head in 0..6 {
            rig.post(head);
        }
        eventually("all come back", || rig.rx.used_idx() == 6);
        for head in 0..6 {
            assert_eq!(rig.take(), Some((head, vec![head as u8; 60])));
        }
        assert_eq!(rig.tx.used_idx(), 6);
    }
}

#[test]
fn a_deadline_is_kept() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    rig.post(0);
    // Set by an inline round on this thread, for a worker that sleeps without one.
    std::thread::sleep(Duration::from_millis(10));
    *wire.deadline.lock().unwrap() = Some(Instant::now() + Duration::from_millis(300));
    rig.send(0, &[0; 60]);
    wire.inbox.lock().unwrap().push_back(vec![7; 60]);
    eventually("called at the deadline", || {
        // The frame is the driver's a moment after the backend is done.
        wire.deadline.lock().unwrap().is_none() && rig.rx.used_idx() == 1
    });
    assert_eq!(rig.take().map(|(_, frame)| frame), Some(vec![7; 60]));
}

/// A line or a socket has them still, and `receive` would see to them.
#[test]
fn frames_that_were_taken_are_sent_although_the_driver_does_not_receive() {
    for (inline, stops) in [(false, false), (false, true), (true, false), (true, true)] {
        let wire = Wire::new();
        let mut rig = Rig::new(Tap(wire.clone()), inline);
        if stops {
            rig.start(Kind::Rx);
        }
        rig.start(Kind::Tx);
        // Of frames for the driver, who does not want them.
        wire.insists.store(true, Ordering::SeqCst);
        *wire.deadline.lock().unwrap() = Some(Instant::now());
        let due = Instant::now() + Duration::from_millis(100);
        *wire.owes.lock().unwrap() = Some(due);
        rig.send(0, &[0; 60]);
        eventually("taken", || wire.sent() == 1);
        if stops {
            rig.pair.stop(Kind::Rx);
            rig.pair.stop(Kind::Tx);
        }
        eventually("sent", || wire.owes.lock().unwrap().is_none());
        assert!(Instant::now() >= due);

        *wire.owes.lock().unwrap() = Some(Instant::now() + Duration::from_secs(600));
        rig.pair.wake();
        std::thread::sleep(Duration::from_millis(20));
        let before = wire.empty.load(Ordering::SeqCst);
        wire.ready();
        eventually("called", || wire.empty.load(Ordering::SeqCst) > before);

        // Nothing is left that it would wake for.
        *wire.owes.lock().unwrap() = None;
        rig.pair.wake();
        std::thread::sleep(Duration::from_millis(20));
        let before = wire.empty.load(Ordering::SeqCst);
        wire.ready();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(wire.empty.load(Ordering::SeqCst), before);
    }
}

#[test]
fn neither_a_noisy_descriptor_nor_an_old_deadline_makes_the_worker_spin() {
    for noisy in [true, false] {
        let wire = Wire::new();
        let mut rig = Rig::running(Tap(wire.clone()), true);
        wire.insists.store(true, Ordering::SeqCst);
        if noisy {
            wire.noisy.store(true, Ordering::SeqCst);
        } else {
            *wire.deadline.lock().unwrap() = Some(Instant::now());
        }
        for head in 0..8 {
            rig.post(head);
        }
        wire.ready();
        std::thread::sleep(Duration::from_millis(50));
        let before = wire.received.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        let calls = wire.received.load(Ordering::SeqCst) - before;
        assert!(calls < 100, "{calls} calls in 200 ms");
        // It is slow now, but not deaf.
        rig.send(0, &[0; 60]);
        wire.inbox.lock().unwrap().push_back(vec![1; 60]);
        eventually("sent", || wire.sent() == 1);
        eventually("received", || rig.rx.used_idx() == 1);
    }
}

/// Waits until of eight tries in a row most take less than 10 ms. For a worker that naps without being woken that is
/// one in six; for one that waits for its turn on a busy machine it may be none for a while.
fn most_are_prompt(mut tries: impl FnMut() -> [Duration; 8]) {
    eventually("most are prompt", || {
        let late = tries();
        late.iter().filter(|d| d.as_millis() < 10).count() > late.len() / 2
    });
}

/// Frames on a line with a delay: the descriptor wakes the worker, and nothing comes of it yet.
#[test]
fn a_worker_that_naps_keeps_a_deadline() {
    let wire = Wire::new();
    let rig = Rig::running(Tap(wire.clone()), true);
    wire.noisy.store(true, Ordering::SeqCst);
    wire.ready();
    most_are_prompt(|| {
        // For want of anything to do, naps have become as long as they can.
        std::thread::sleep(Duration::from_millis(300));
        [(); 8].map(|()| {
            // A nap that began before is over by then, and another would not be.
            let due = Instant::now() + Duration::from_millis(80);
            *wire.deadline.lock().unwrap() = Some(due);
            eventually("called", || wire.deadline.lock().unwrap().is_none());
            due.elapsed()
        })
    });
    drop(rig);
}

#[test]
fn a_doorbell_wakes_a_worker_that_naps() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), true);
    wire.insists.store(true, Ordering::SeqCst);
    *wire.deadline.lock().unwrap() = Some(Instant::now());
    rig.pair.wake();
    let mut heads = (0..SIZE).cycle();
    most_are_prompt(|| {
        [(); 8].map(|()| {
            // For want of anything to do, naps have become as long as they can.
            std::thread::sleep(Duration::from_millis(200));
            let before = wire.received.load(Ordering::SeqCst);
            let rung = Instant::now();
            rig.send(heads.next().unwrap(), &[0; 60]);
            // Served inline, which leaves the worker something to wait for. It has to take note.
            eventually("the worker looks", || {
                wire.received.load(Ordering::SeqCst) > before
            });
            rung.elapsed()
        })
    });
}

#[test]
fn a_backend_with_work_that_brings_no_frames_is_called_until_it_is_done() {
    for inline in [false, true] {
        let wire = Wire::new();
        let mut rig = Rig::running(Tap(wire.clone()), inline);
        // With nothing but this deadline the worker would nap between the calls.
        wire.insists.store(true, Ordering::SeqCst);
        *wire.deadline.lock().unwrap() = Some(Instant::now());
        wire.work.store(2000, Ordering::SeqCst);
        rig.send(0, &[0; 60]);
        eventually("done", || wire.work.load(Ordering::SeqCst) == 0);
    }
}

#[test]
fn only_the_worker_calls_a_backend_whose_queues_wait_for_each_other() {
    for shared in [false, true] {
        let wire = Wire::new();
        wire.shared.store(shared, Ordering::SeqCst);
        let mut rig = Rig::running(Tap(wire.clone()), true);
        for head in 0..8 {
            // Long enough for the worker to sleep.
            std::thread::sleep(Duration::from_millis(5));
            rig.send(head, &[0; 60]);
            eventually("sent", || wire.sent() == u64::from(head) + 1);
        }
        assert_eq!(wire.inline.load(Ordering::SeqCst) == 0, shared);
    }
}

#[test]
fn reset_stops_everything_and_forgets_frames() {
    let mut rig = Rig::running(Echo::new(10), true);
    rig.send(0, &[1; 60]);
    eventually("taken", || rig.tx.used_idx() == 1);
    rig.pair.reset();
    assert_eq!(rig.pair.indices(Kind::Rx), None);
    assert_eq!(rig.pair.counters(Kind::Tx), Counters::default());
    rig.start(Kind::Rx);
    rig.post(0);
    std::thread::sleep(Duration::from_millis(20));
    rig.pair.quiesce();
    assert_eq!(rig.rx.used_idx(), 0, "the frame from before the reset");
}

#[test]
fn dropping_the_pair_ends_its_thread() {
    let wire = Wire::new();
    let mut rig = Rig::running(Tap(wire.clone()), false);
    rig.send(0, &[0; 60]);
    drop(rig);
    // The thread, and with it the backend, is gone.
    assert_eq!(std::sync::Arc::strong_count(&wire), 1);
}

#[test]
fn the_queue_is_attached_while_its_driver_receives() {
    let wire = Wire::new();
    let mut rig = Rig::new(Tap(wire.clone()), true);
    let attached = |wanted| {
        eventually("the backend is told", || {
            wire.attached.load(Ordering::SeqCst) == wanted
        });
    };
    attached(false);
    rig.start(Kind::Tx);
    rig.send(0, &[0; 60]);
    eventually("sent", || wire.sent() == 1);
    assert!(!wire.attached.load(Ordering::SeqCst));
    rig.start(Kind::Rx);
    attached(true);
    rig.pair.stop(Kind::Rx);
    attached(false);

    // A queue that fails receives nothing any more, in whichever thread it fails.
    rig.start(Kind::Rx);
    attached(true);
    rig.post(0);
    rig.rx.set_avail_idx(SIZE + 9);
    rig.pair.doorbell(Kind::Rx);
    wire.deliver(vec![0; 60]);
    attached(false);
    assert_eq!(rig.reports.queues.lock().unwrap().len(), 1);
}
