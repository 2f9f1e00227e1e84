// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that go from one pair to another.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use vnet_contract::features::MRG_RXBUF;
use vnet_contract::queue::Kind;
use vnet_faults::Faults;
use vnet_rss::{Rss, RssConfig, Toeplitz, TABLE_SIZE};
use vnet_worker::{Moderation, Options, RxFilter, Steering};

use crate::backends::{Tap, Wire};
use crate::rig::{eventually, Rig};

/// Everything goes to the second of two pairs.
fn all_to_the_second() -> Option<Arc<Rss>> {
    Some(Arc::new(Rss::new(RssConfig {
        key: Arc::new(Toeplitz::new(&[1; 40])),
        types: 0,
        symmetric: false,
        spread: true,
        table: [1; TABLE_SIZE],
        pairs: 2,
    })))
}

fn frame(serial: u8) -> Vec<u8> {
    let mut frame = vec![serial; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Two pairs that receive, all of whose frames belong to the second, and what is behind them.
struct Two {
    rigs: [Rig; 2],
    wires: [Arc<Wire>; 2],
    steering: Steering,
}

impl Two {
    fn new(options: Options) -> Self {
        let wires = [Wire::new(), Wire::new()];
        let rigs = [0, 1].map(|i| Rig::with_index(i as u16, Tap(wires[i].clone()), options));
        let steering = Steering::connect(rigs.iter().map(|rig| &rig.pair));
        steering.set_rules(all_to_the_second());
        for rig in &rigs {
            rig.start(Kind::Rx);
            rig.start(Kind::Tx);
        }
        Self {
            rigs,
            wires,
            steering,
        }
    }

    fn post(&mut self, heads: std::ops::Range<u16>) {
        for head in heads {
            self.rigs[0].post(head);
            self.rigs[1].post(head);
        }
    }

    /// Insists on these frames at the second pair.
    fn expect(&mut self, serials: std::ops::Range<u8>) {
        for serial in serials {
            let mut got = None;
            eventually("the frame arrives", || {
                got = self.rigs[1].take();
                got.is_some()
            });
            assert_eq!(got.unwrap().1, frame(serial));
        }
        assert_eq!(self.rigs[1].take(), None);
        assert_eq!(self.rigs[0].take(), None);
    }

    fn drops(&self) -> [u64; 2] {
        [0, 1].map(|i| self.rigs[i].pair.counters(Kind::Rx).drops)
    }
}

/// With workers that sleep at once, and with workers that poll.
fn both_ways(test: fn(Two)) {
    for poll in [Duration::ZERO, Duration::from_millis(2)] {
        let options = Options::default();
        test(Two::new(Options { poll, ..options }));
    }
}

#[test]
fn frames_cross_and_interrupt_their_own_pair() {
    both_ways(|mut two| {
        two.post(0..8);
        assert!(!two.rigs[1].rx.rearm());
        two.wires[0].deliver(frame(1));
        assert!(two.rigs[1].interrupted());
        two.expect(1..2);
        // By way of a doorbell, too, and without rules not at all.
        two.wires[0].deliver(frame(2));
        two.rigs[0].pair.doorbell(Kind::Rx);
        two.expect(2..3);
        two.steering.set_rules(None);
        two.wires[0].deliver(frame(3));
        eventually("the frame stays", || two.rigs[0].take().is_some());
        assert_eq!(two.rigs[1].take(), None);
    });
}

#[test]
fn frames_that_are_to_be_too_long_are_so_for_any_pair() {
    both_ways(|mut two| {
        two.post(0..2);
        let long = [frame(1), vec![1; 1800]].concat();
        two.wires[0].deliver(long.clone());
        eventually("it is dropped", || two.drops() == [0, 1]);
        let faults = Arc::new(Faults::default());
        faults.load(&"frame-oversized".parse().unwrap());
        for rig in &two.rigs {
            rig.pair.set_faults(&faults);
        }
        two.wires[0].deliver(long.clone());
        let mut got = None;
        eventually("it arrives", || {
            got = two.rigs[1].take();
            got.is_some()
        });
        assert_eq!(got.unwrap().1, long);
    });
}

#[test]
fn frames_wait_for_buffers_of_their_own_pair() {
    both_ways(|mut two| {
        for head in 0..8 {
            two.rigs[0].post(head);
        }
        for serial in 0..40 {
            two.wires[0].deliver(frame(serial));
        }
        eventually("they leave the first pair", || {
            two.wires[0].inbox.lock().unwrap().is_empty()
        });
        assert_eq!(two.rigs[1].take(), None);
        for head in 0..40 {
            two.rigs[1].post(head);
        }
        two.expect(0..40);
        assert_eq!(two.drops(), [0, 0]);
    });
}

#[test]
fn frames_wait_for_a_queue_that_is_to_be_resumed() {
    both_ways(|mut two| {
        two.rigs[1].pair.stop(Kind::Rx);
        two.rigs[1].pair.expect(Kind::Rx);
        two.rigs[0].post(0);
        two.wires[0].deliver(frame(1));
        eventually("it leaves the first pair", || {
            two.wires[0].inbox.lock().unwrap().is_empty()
        });
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(two.drops(), [0, 0]);
        two.rigs[1].pair.stop(Kind::Rx);
        eventually("it is dropped", || two.drops() == [0, 1]);
    });
}

#[test]
fn frames_of_others_and_own_ones_take_turns_when_buffers_are_short() {
    both_ways(|mut two| {
        for head in 0..8 {
            two.rigs[0].post(head);
        }
        for _ in 0..100 {
            two.wires[0].deliver(frame(1));
        }
        eventually("they leave the first pair", || {
            two.wires[0].inbox.lock().unwrap().is_empty()
        });
        for _ in 0..100 {
            two.wires[1].deliver(frame(2));
        }
        let mut counts = [0; 3];
        for head in 0..40 {
            two.rigs[1].post(head);
            let mut got = None;
            eventually("a frame arrives", || {
                got = two.rigs[1].take();
                got.is_some()
            });
            counts[usize::from(got.unwrap().1[0])] += 1;
        }
        let [_, others, own] = counts;
        assert!(others >= 10 && own >= 10, "{others} of others, {own} own");
    });
}

#[test]
fn a_pair_that_fails_for_a_frame_of_another_is_detached() {
    both_ways(|mut two| {
        two.rigs[0].post(0);
        eventually("attached", || two.wires[1].attached.load(Ordering::SeqCst));
        // A buffer that the card may only read.
        let at = Rig::rx_buffer(0);
        two.rigs[1].rx.chain(0, &[(at, 2048)], false);
        if two.rigs[1].rx.offer(0) {
            two.rigs[1].pair.doorbell(Kind::Rx);
        }
        // Long enough for the worker to be asleep.
        std::thread::sleep(Duration::from_millis(20));
        two.wires[0].deliver(frame(1));
        eventually("detached", || !two.wires[1].attached.load(Ordering::SeqCst));
        assert_eq!(two.rigs[1].reports.queues.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_queue_that_fails_for_an_own_frame_takes_none_of_others() {
    let mut two = Two::new(Options::default());
    two.rigs[0].post(0);
    let rig = &mut two.rigs[1];
    rig.pair.stop(Kind::Rx);
    rig.rx.config.features = MRG_RXBUF;
    rig.pair.set_rx_filter(RxFilter {
        promisc: true,
        mtu: 9000,
        ..RxFilter::default()
    });
    rig.start(Kind::Rx);
    // The turn of the backend comes after a frame of the other pair.
    rig.post(0);
    two.wires[0].deliver(frame(1));
    two.expect(1..2);
    // One frame of each waits for buffers, and that of the backend needs two.
    two.wires[0].deliver(frame(2));
    two.wires[1].deliver(vec![3; 3000]);
    eventually("it leaves the first pair", || {
        two.wires[0].inbox.lock().unwrap().is_empty()
    });
    std::thread::sleep(Duration::from_millis(20));
    let rig = &mut two.rigs[1];
    for (head, good) in [(1, true), (2, false)] {
        rig.rx.chain(head, &[(Rig::rx_buffer(head), 2048)], good);
        rig.rx.offer(head);
    }
    rig.pair.doorbell(Kind::Rx);
    eventually("the fault is reported", || {
        rig.reports.queues.lock().unwrap().len() == 1
    });
    assert_eq!(rig.take(), None);
}

#[test]
fn a_pair_that_is_busy_takes_them_when_it_is_done() {
    both_ways(|mut two| {
        two.post(0..8);
        for serial in 0..4 {
            // Before it looks for frames of others, or behind that look.
            let (slow, lingers) = [(50_000, 0), (0, 50_000)][usize::from(serial) % 2];
            two.wires[1].slow.store(slow, Ordering::SeqCst);
            two.wires[1].lingers.store(lingers, Ordering::SeqCst);
            // The worker sends, or the thread that rings: either has the lock meanwhile.
            let rig = &mut two.rigs[1];
            let wire = &two.wires[1];
            let before = wire.began.load(Ordering::SeqCst);
            std::thread::scope(|s| {
                s.spawn(|| rig.send(serial, &frame(0)));
                eventually("it is busy", || wire.began.load(Ordering::SeqCst) > before);
                two.wires[0].deliver(frame(serial as u8));
            });
            two.expect(serial as u8..serial as u8 + 1);
        }
        assert_eq!(two.drops(), [0, 0]);
    });
}

#[test]
fn frames_for_a_stopped_pair_are_lost_and_those_behind_one_get_through() {
    both_ways(|mut two| {
        two.post(0..8);
        two.rigs[0].pair.stop(Kind::Rx);
        two.wires[0].deliver(frame(1));
        two.expect(1..2);
        two.rigs[1].pair.stop(Kind::Rx);
        two.wires[0].deliver(frame(2));
        two.wires[1].deliver(frame(3));
        eventually("they count", || two.drops() == [0, 2]);
    });
}

#[test]
fn a_reset_forgets_frames_on_their_way() {
    both_ways(|mut two| {
        for serial in 0..10 {
            two.wires[0].deliver(frame(serial));
            two.rigs[0].post(u16::from(serial));
        }
        eventually("they leave the first pair", || {
            two.wires[0].inbox.lock().unwrap().is_empty()
        });
        two.steering.set_rules(None);
        for rig in &two.rigs {
            rig.pair.stop(Kind::Rx);
            rig.pair.stop(Kind::Tx);
        }
        two.rigs.iter().for_each(|rig| rig.pair.reset());
        assert_eq!(two.drops(), [0, 0]);
        two.rigs[1].start(Kind::Rx);
        two.rigs[1].post(0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(two.rigs[1].take(), None);
    });
}

#[test]
fn an_interrupt_for_frames_of_others_may_be_told_to_wait() {
    both_ways(|mut two| {
        two.post(0..8);
        assert!(!two.rigs[1].rx.rearm());
        let wait = Duration::from_millis(50);
        two.rigs[1].pair.set_moderation(
            Kind::Rx,
            Moderation {
                usecs: wait.as_micros() as u16,
                frames: 0,
            },
        );
        let start = std::time::Instant::now();
        two.wires[0].deliver(frame(1));
        assert!(two.rigs[1].interrupted());
        assert!(start.elapsed() >= wait);
        two.expect(1..2);
    });
}
