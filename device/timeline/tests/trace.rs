// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the trace of a capture has: slices that nest, and arrows with both ends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta};
use vnet_capture::{now, Bell, Capture, Config, Event, Recorder, Selection, What, WHOLE};
use vnet_contract::hdr::FlowHash;
use vnet_timeline::{export, Error, Summary};

fn frame(bytes: &mut [u8], tell: impl FnOnce(&Frame<'_>)) {
    let len = bytes.len();
    tell(&Frame {
        meta: Meta::default(),
        len,
        parts: &[VolatileSlice::from(bytes)],
    });
}

/// A batch of `count` frames that were sent.
fn send(tx: &mut Recorder, count: usize) {
    tx.begin();
    tx.lend();
    tx.returned();
    for _ in 0..count {
        frame(&mut [0; 60], |frame| assert!(tx.sent(frame)));
    }
    tx.shown(false);
}

fn config() -> Config {
    Config {
        card: "nic0".into(),
        mac: None,
        pairs: 1,
        selection: Selection::default(),
        snaplen: WHOLE,
        count: None,
        time: None,
    }
}

/// A capture: three batches sent, of which two wait for one interrupt, one received, an event.
fn capture() -> tempfile::NamedTempFile {
    let path = tempfile::NamedTempFile::new().unwrap();
    let capture = Capture::start(config(), path.reopen().unwrap()).unwrap();
    let bell = Bell::default();
    let mut tx = capture.recorder(1, &bell).unwrap();
    bell.ring();
    send(&mut tx, 3);
    send(&mut tx, 1);
    tx.settle(true);
    send(&mut tx, 2);
    tx.settle(false);
    let mut rx = capture.recorder(0, &Bell::default()).unwrap();
    rx.begin();
    for _ in 0..4 {
        receive(&mut rx);
    }
    rx.shown(false);
    rx.settle(true);
    capture.event(Event {
        time: now(),
        queue: None,
        what: What::Fault,
        text: "reset".into(),
    });
    drop((tx, rx));
    assert!(capture.stop(std::time::Duration::from_secs(20)));
    path
}

fn receive(rx: &mut Recorder) {
    let none = FlowHash::default();
    frame(&mut [0; 1514], |frame| {
        assert!(rx.received(None, frame, none));
    });
}

/// In the file, the frames of queues that receive at the same time are mixed.
#[test]
fn batches_of_two_queues_stay_together() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let pairs = 2;
    let config = Config { pairs, ..config() };
    let capture = Capture::start(config, path.reopen().unwrap()).unwrap();
    let mut queues = [0, 2].map(|rx| capture.recorder(rx, &Bell::default()).unwrap());
    queues.iter_mut().for_each(Recorder::begin);
    for _ in 0..4 {
        queues.iter_mut().for_each(receive);
    }
    for rx in &mut queues {
        rx.shown(false);
        rx.settle(true);
    }
    drop(queues);
    assert!(capture.stop(std::time::Duration::from_secs(20)));
    let summary = export(path.reopen().unwrap(), Vec::new()).unwrap();
    let due = Summary {
        frames: 8,
        batches: 2,
    };
    assert_eq!(summary, due);
}

fn number(event: &Value, key: &str) -> i64 {
    // Nanoseconds, which are whole.
    (event[key].as_f64().unwrap() * 1000.0).round() as i64
}

fn track(event: &Value) -> (u64, u64) {
    (
        event["pid"].as_u64().unwrap(),
        event["tid"].as_u64().unwrap(),
    )
}

#[test]
fn slices_nest_and_arrows_have_both_ends() {
    let mut out = Vec::new();
    let summary = export(capture().reopen().unwrap(), &mut out).unwrap();
    let due = Summary {
        frames: 10,
        batches: 4,
    };
    assert_eq!(summary, due);
    let trace: Value = serde_json::from_slice(&out).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &'static str| events.iter().filter(move |e| e["ph"] == phase);

    let mut tracks: BTreeMap<_, Vec<(i64, i64, &str)>> = BTreeMap::new();
    for slice in of("X") {
        let (from, dur) = (number(slice, "ts"), number(slice, "dur"));
        assert!(from >= 0 && dur >= 0);
        let name = slice["name"].as_str().unwrap();
        let all = tracks.entry(track(slice)).or_default();
        all.push((from, from + dur, name));
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for slices in tracks.values() {
        for (n, a) in slices.iter().enumerate() {
            *names.entry(a.2).or_default() += 1;
            for b in &slices[n + 1..] {
                let apart = a.1 <= b.0 || b.1 <= a.0;
                let inside = a.0 <= b.0 && b.1 <= a.1 || b.0 <= a.0 && a.1 <= b.1;
                assert!(apart || inside, "{a:?} {b:?}");
            }
        }
    }
    for (name, count) in [
        ("doorbell", 1),
        ("fetch", 4),
        ("backend", 3 + 4),
        ("used", 4),
        ("interrupt", 3),
        ("3 frames", 1),
        ("rx0: 4 frames", 1),
    ] {
        assert_eq!(names.get(name), Some(&count), "{name} in {names:?}");
    }

    let mut flows: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for phase in ["s", "t", "f"] {
        for arrow in of(phase) {
            let at = number(arrow, "ts");
            let slices = &tracks[&track(arrow)];
            assert!(slices
                .iter()
                .any(|(from, to, _)| (*from..=*to).contains(&at)));
            let id = arrow["id"].as_u64().unwrap();
            assert!(flows.entry(id).or_default().insert(phase));
        }
    }
    assert_eq!(flows.len(), 4);
    let whole = BTreeSet::from(["s", "t", "f"]);
    assert!(flows.values().all(|flow| *flow == whole));

    let event = of("i").next().unwrap();
    assert_eq!(event["name"], "vnet event=fault reset");
    let named: BTreeSet<_> = of("M").filter_map(|e| e["args"]["name"].as_str()).collect();
    for name in ["nic0", "rx0", "tx0", "tx0, meanwhile", "events"] {
        assert!(named.contains(name), "{name} in {named:?}");
    }
}

#[test]
fn what_is_no_capture_of_a_card_is_refused() {
    let whole = std::fs::read(capture().path()).unwrap();
    let mut out = Vec::new();
    for bad in [&b""[..], b"hello", &whole[..whole.len() - 5]] {
        let refused = export(bad, &mut out);
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    }
    let path = tempfile::NamedTempFile::new().unwrap();
    let empty = Capture::start(config(), path.reopen().unwrap()).unwrap();
    assert!(empty.stop(std::time::Duration::from_secs(20)));
    let refused = export(path.reopen().unwrap(), &mut out);
    assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
}
