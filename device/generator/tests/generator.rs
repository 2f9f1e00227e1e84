// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Generators as cards and switches use them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use vnet_backend::{mock, Endpoint, Meta, Queue};
use vnet_generator::{Counters, Generator};
use vnet_switch::{Switch, Uplink};

const MAC: &str = "mac=52:54:00:76:6e:00";
/// Where the payload of ICMP and UDP begins.
const PAYLOAD: usize = 42;

fn generator(text: &str, queues: u16) -> (Vec<Box<dyn Queue>>, Counters) {
    let mut generator = Generator::new(text.parse().unwrap());
    (generator.open(queues).unwrap(), generator.counters())
}

fn frames(queue: &mut dyn Queue, most: usize) -> Vec<Vec<u8>> {
    let frames = mock::receive(queue, most, 70_000);
    frames.into_iter().map(|(bytes, _)| bytes).collect()
}

/// The echo of a frame, or its return over a bridge that swaps stations: checksums do not mind.
fn back(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    for (a, b, len) in [(0, 6, 6), (26, 30, 4)] {
        back[a..a + len].copy_from_slice(&frame[b..b + len]);
        back[b..b + len].copy_from_slice(&frame[a..a + len]);
    }
    back
}

#[test]
fn the_same_seed_gives_the_same_frames_but_for_the_time() {
    let run = |seed: u32| {
        let text = format!("traffic=icmp+udpx2,size=60-1514,flows=50,full,{MAC},seed={seed}");
        let (mut queues, _) = generator(&text, 1);
        let mut got = frames(queues[0].as_mut(), 500);
        assert_eq!(got.len(), 500);
        for frame in &mut got {
            // The time, and what sums it.
            frame[PAYLOAD + 8..PAYLOAD + 16].fill(0);
            frame[36..38].fill(0);
            if frame[23] == 17 {
                frame[40..42].fill(0);
            }
        }
        got
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}

#[test]
fn imix_is_in_proportion_and_ends() {
    let (mut queues, counters) =
        generator(&format!("traffic=udp,size=imix,count=1200,full,{MAC}"), 1);
    let queue = queues[0].as_mut();
    let mut got = frames(queue, 1000);
    assert!(queue.has_frames());
    got.extend(frames(queue, 1000));
    assert_eq!(got.len(), 1200);
    assert!(!queue.has_frames());
    assert_eq!(queue.deadline(), None);
    for (len, due) in [(60, 700), (590, 400), (1514, 100)] {
        let found = got.iter().filter(|frame| frame.len() == len).count();
        assert!(found.abs_diff(due) < 90, "{found} of {len}");
    }
    let report = counters.report();
    assert_eq!(report.sent, 1200);
    let bytes = got.iter().map(|frame| frame.len() as u64).sum::<u64>();
    assert_eq!(report.sent_bytes, bytes);
    // And once more after a reset.
    queue.reset();
    assert_eq!(counters.report().lost, 1200);
    assert_eq!(frames(queue, 5000).len(), 1200);
}

#[test]
fn it_asks_where_to_send_to_and_answers_who_asks_for_it() {
    let (mut queues, counters) = generator("traffic=icmp,full,count=3", 2);
    let question = frames(queues[0].as_mut(), 10);
    assert_eq!(question.len(), 1);
    assert_eq!(question[0].len(), 60);
    assert_eq!(question[0][12..14], [8, 6]);
    assert!(queues[0].deadline().is_some());
    assert!(frames(queues[0].as_mut(), 10).is_empty());
    // The guest asks back, on another queue, as Linux does. That tells where it is.
    let mut asks = question[0].clone();
    let guest = [0x52, 0x54, 0, 0x76, 0x6e, 0];
    asks[6..12].copy_from_slice(&guest);
    asks[22..28].copy_from_slice(&guest);
    asks[28..32].copy_from_slice(&[10, 77, 0, 2]);
    asks[38..42].copy_from_slice(&[10, 77, 0, 1]);
    assert!(mock::transmit(queues[1].as_mut(), &asks, Meta::default()));
    let answer = frames(queues[1].as_mut(), 10);
    assert_eq!(answer.len(), 1);
    assert_eq!((&answer[0][..6], answer[0][21]), (&guest[..], 2));
    // Now it sends, and knows what comes back, on whatever queue.
    let sent = frames(queues[0].as_mut(), 10);
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|frame| frame[..6] == guest));
    for (n, frame) in sent.iter().enumerate() {
        let queue = queues[n % 2].as_mut();
        assert!(mock::transmit(queue, &back(frame), Meta::default()));
    }
    let report = counters.report();
    assert_eq!((report.received, report.unanswered, report.lost), (3, 0, 0));
    assert_eq!(report.latency.count(), 3);
}

#[test]
fn a_driver_without_room_makes_it_wait() {
    let (mut queues, counters) = generator(&format!("traffic=tcp,size=1514,full,count=9,{MAC}"), 1);
    let queue = queues[0].as_mut();
    assert!(mock::receive(queue, 10, 100).is_empty());
    assert!(queue.has_frames());
    assert_eq!(queue.deadline(), None);
    assert_eq!(counters.report().sent, 0);
    let frames = frames(queue, 10);
    assert_eq!(frames.len(), 9);
    // SYN, then data.
    let flags: Vec<_> = frames.iter().map(|frame| frame[47]).collect();
    assert_eq!(flags, [2, 24, 24, 24, 24, 24, 24, 24, 24]);
}

#[test]
fn two_of_them_measure_a_switch() {
    measure("10.0.0.1", "10.0.0.2");
}

#[test]
fn two_of_them_measure_a_switch_over_ipv6() {
    measure("fd00::1", "fd00::2");
}

fn measure(one: &str, other: &str) {
    let switch = Switch::new();
    let start = |text: &str| {
        let generator = Generator::new(text.parse().unwrap());
        let counters = generator.counters();
        let uplink = Uplink::start(&switch, Default::default(), Box::new(generator)).unwrap();
        (uplink, counters)
    };
    // With the answers, no more than a port of the switch has room for: an uplink may have to wait for its turn.
    let options = "traffic=icmp+udp+tcp,size=imix,flows=10,pps=2000,count=250";
    let (_a, a) = start(&format!("to={other},from={one},{options}"));
    let (_b, b) = start(&format!("to={one},from={other},{options}"));
    let end = Instant::now() + Duration::from_secs(60);
    let all = |counters: &Counters| counters.report().received == 250;
    while !(all(&a) && all(&b)) {
        assert!(Instant::now() < end, "{}\n{}", a.report(), b.report());
        sleep(Duration::from_millis(10));
    }
    for report in [a.report(), b.report()] {
        assert_eq!((report.sent, report.lost, report.damaged), (250, 0, 0));
        assert_eq!(report.latency.count(), 250);
        assert_eq!(report.received_bytes, a.report().sent_bytes);
    }
}
