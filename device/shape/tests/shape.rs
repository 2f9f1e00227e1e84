// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A line before a backend that gives every frame back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::{
    mock, Capabilities, Endpoint, Error, Frame, Gso, GsoKind, Meta, Offloads, Queue, RxRing,
};
use vnet_loopback::{Loopback, Null};
use vnet_shape::{Report, Shaped};

fn shaped(config: &str) -> (Shaped, Box<dyn Queue>) {
    let mut shaped = Shaped::new(Box::new(Loopback::new()), config.parse().unwrap());
    let queue = shaped.open(1).unwrap().remove(0);
    shaped.set_offloads(Offloads::ALL);
    (shaped, queue)
}

fn frame(number: u8) -> Vec<u8> {
    vec![number; 100]
}

/// What comes back, for as long as something may.
fn drain(queue: &mut dyn Queue) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let frames = mock::receive(queue, 10_000, 2000);
        got.extend(frames.iter().map(|(bytes, _)| bytes[0]));
        if frames.is_empty() && queue.deadline().is_none() {
            return got;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The fate of some frames there and back.
fn run(queue: &mut dyn Queue) -> Vec<u8> {
    for n in 0..200 {
        assert!(mock::transmit(queue, &frame(n), Meta::default()));
    }
    drain(queue)
}

#[test]
fn a_line_that_does_nothing_lets_everything_pass() {
    let (shaped, mut queue) = shaped("seed=1");
    assert_eq!(run(queue.as_mut()), (0..200).collect::<Vec<_>>());
    let all = Report {
        frames: 200,
        bytes: 20_000,
        ..Report::default()
    };
    assert_eq!(shaped.counters().report(), [all, all]);
    assert_eq!(shaped.capabilities().receive, Offloads::ALL);
}

#[test]
fn the_same_seed_loses_the_same_frames_also_after_a_reset() {
    let config = "loss=20%,duplicate=5%,reorder=5%,seed=7";
    let (counted, mut queue) = shaped(config);
    let first = run(queue.as_mut());
    let [send, receive] = counted.counters().report();
    assert!((20..60).contains(&send.lost) && send.frames == 200);
    // One of each may wait to be overtaken, and never be.
    let through = |r: Report| r.frames + r.duplicated - r.lost;
    assert!(through(send) - receive.frames <= 1);
    assert!(through(receive) - first.len() as u64 <= 1);
    queue.reset();
    assert_eq!(run(queue.as_mut()), first);
    let (_other, mut queue) = shaped("loss=20%,duplicate=5%,reorder=5%,seed=8");
    assert_ne!(run(queue.as_mut()), first);
}

#[test]
fn nothing_comes_before_its_time() {
    let (_shaped, mut queue) = shaped("send.delay=30ms,receive.delay=20ms,receive.rate=80k");
    let start = Instant::now();
    for n in 0..3 {
        assert!(mock::transmit(queue.as_mut(), &frame(n), Meta::default()));
    }
    let due = queue.deadline().unwrap();
    assert!(due >= start + Duration::from_millis(30));
    assert_eq!(drain(queue.as_mut()), [0, 1, 2]);
    // There and back, and ten milliseconds for each frame.
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[test]
fn what_the_line_has_no_room_for_waits_in_the_guest() {
    let (shaped, mut queue) = shaped("send.delay=60s");
    let mut sent = 0;
    while mock::transmit(queue.as_mut(), &frame(0), Meta::default()) {
        sent += 1;
    }
    assert!((8000..9000).contains(&sent), "{sent}");
    assert_eq!(shaped.counters().report()[0].frames, sent);
    queue.reset();
    assert_eq!(queue.deadline(), None);
    assert!(mock::transmit(queue.as_mut(), &frame(0), Meta::default()));
}

#[test]
fn a_backend_is_not_asked_for_more_than_the_line_holds() {
    let source = Null {
        source: Some(1500),
        ..Null::default()
    };
    let mut shaped = Shaped::new(Box::new(source), "receive.delay=60s".parse().unwrap());
    let mut queue = shaped.open(1).unwrap().remove(0);
    loop {
        assert_eq!(mock::receive(queue.as_mut(), 10, 2000).len(), 0);
        if !queue.has_work() {
            break;
        }
    }
    let [_, receive] = shaped.counters().report();
    assert!((8000..9000).contains(&receive.frames));
    assert!(!queue.has_frames() && !queue.has_work());
}

/// Nothing else ends the call: the backend has as many as it is asked for, and a line that loses all
/// of them never fills.
#[test]
fn a_backend_that_never_runs_out_is_asked_for_a_batch_at_a_time() {
    for (len, frames) in [(1500, 64), (60_000, 5)] {
        for config in ["receive.delay=60s", "receive.loss=100%"] {
            let source = Null {
                source: Some(len),
                ..Null::default()
            };
            let mut shaped = Shaped::new(Box::new(source), config.parse().unwrap());
            let mut queue = shaped.open(1).unwrap().remove(0);
            for calls in 1..3 {
                assert_eq!(mock::receive(queue.as_mut(), 10, 2000).len(), 0);
                assert_eq!(shaped.counters().report()[1].frames, calls * frames);
                assert!(queue.has_work());
            }
            queue.reset();
            assert!(!queue.has_work());
        }
    }
}

/// The worker does not take a deadline that has passed for a reason to come back at once.
#[test]
fn a_frame_that_has_arrived_at_the_backend_is_work() {
    let (_shaped, mut queue) = shaped("send.delay=300ms");
    assert!(mock::transmit(queue.as_mut(), &frame(1), Meta::default()));
    assert!(!queue.has_work());
    std::thread::sleep(Duration::from_millis(301));
    assert!(queue.has_work());
    assert_eq!(drain(queue.as_mut()), [1]);
    assert!(!queue.has_work());
}

/// Nobody receives: a batch without frames brings to the backend what has arrived there.
#[test]
fn frames_on_their_way_to_the_backend_are_owed() {
    let (_shaped, mut queue) = shaped("send.delay=300ms,receive.delay=1ms");
    assert_eq!(queue.owes(), None);
    assert!(mock::transmit(queue.as_mut(), &frame(1), Meta::default()));
    let due = queue.owes().unwrap();
    assert_eq!(queue.deadline(), Some(due));
    assert_eq!(queue.transmit(&[]), 0);
    assert_eq!(queue.owes(), Some(due));
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    assert_eq!(queue.transmit(&[]), 0);
    assert_eq!(queue.owes(), None);
    assert_eq!(drain(queue.as_mut()), [1]);
}

/// Takes frames that need nothing any more, and counts them.
#[derive(Clone, Default)]
struct Plain(Arc<AtomicU64>);

impl Endpoint for Plain {
    fn capabilities(&self) -> Capabilities {
        Loopback::new().capabilities()
    }

    fn open(&mut self, _: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok(vec![Box::new(self.clone())])
    }

    fn set_offloads(&mut self, _: Offloads) {}
}

impl Queue for Plain {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.0.fetch_add(batch.len() as u64, Relaxed);
        batch.len()
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

#[test]
fn a_frame_that_is_refused_at_the_end_of_the_line_is_lost() {
    let mut shaped = Shaped::new(Box::<Plain>::default(), "delay=1ms".parse().unwrap());
    let mut queue = shaped.open(1).unwrap().remove(0);
    let large = Meta {
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1000,
            hdr_len: 54,
        }),
        ..Meta::default()
    };
    // It is no TCP frame.
    for meta in [large, Meta::default()] {
        assert!(mock::transmit(queue.as_mut(), &frame(1), meta));
    }
    assert_eq!(drain(queue.as_mut()), []);
    let losses = queue.losses();
    assert_eq!((losses.sent, losses.received), (1, 0));
}

/// They all arrive at once, and whoever sees to them has a lock that others want.
#[test]
fn a_backend_is_brought_a_batch_at_a_time() {
    const COUNT: u64 = 150;
    for (len, most) in [(100, 64), (60_000, 5)] {
        let backend = Plain::default();
        let brought = Arc::clone(&backend.0);
        let mut shaped = Shaped::new(Box::new(backend), "delay=50ms".parse().unwrap());
        let mut queue = shaped.open(1).unwrap().remove(0);
        for _ in 0..COUNT {
            assert!(mock::transmit(
                queue.as_mut(),
                &vec![0; len],
                Meta::default()
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
        for receives in [false, true].into_iter().cycle() {
            let before = brought.load(Relaxed);
            match receives {
                true => assert_eq!(mock::receive(queue.as_mut(), 10, 2000), []),
                false => assert_eq!(queue.transmit(&[]), 0),
            }
            let now = brought.load(Relaxed);
            assert!((1..=most).contains(&(now - before)), "{before} {now}");
            let more = now < COUNT;
            assert_eq!(queue.has_work(), more);
            let due = queue.owes().is_some_and(|due| due <= Instant::now());
            assert_eq!(due, more);
            if !more {
                break;
            }
        }
    }
}

#[test]
fn frames_without_room_in_the_ring_are_not_a_matter_of_time() {
    let (_shaped, mut queue) = shaped("delay=1ms");
    for n in 0..4 {
        mock::transmit(queue.as_mut(), &frame(n), Meta::default());
    }
    std::thread::sleep(Duration::from_millis(2));
    mock::receive(queue.as_mut(), 0, 2000);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(mock::receive(queue.as_mut(), 1, 2000).len(), 1);
    assert_eq!(queue.deadline(), None);
    assert!(queue.has_frames());
    assert_eq!(drain(queue.as_mut()), [1, 2, 3]);
}
