// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What somebody sees who looks on.

use std::fs::File;
use std::time::Duration;

use rustix::fs::{memfd_create, MemfdFlags};
use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta};
use vnet_capture::{Bell, Capture, Config, Onlooker, Recorder, Selection, Watch, WHOLE};

/// Tells of a batch with one frame, which was sent.
fn send(recorder: &mut Recorder, bytes: &mut [u8]) {
    let len = bytes.len();
    recorder.begin();
    recorder.lend();
    recorder.returned();
    let parts = [VolatileSlice::from(bytes)];
    let frame = Frame {
        meta: Meta::default(),
        len,
        parts: &parts,
    };
    if recorder.sent(&frame) {
        assert!(recorder.chain(3, false));
        assert!(recorder.descriptor(len as u32));
    }
    recorder.shown(false);
    recorder.settle(true);
}

#[test]
fn frames_are_seen_in_order_and_not_too_many() {
    let watch = Watch::new();
    let mut recorder = watch.recorder(1, &Bell::default());
    for n in 0..3 {
        send(&mut recorder, &mut [n; 200]);
    }
    let seen = watch.take();
    assert_eq!(seen.iter().map(|s| s.number).collect::<Vec<_>>(), [1, 2, 3]);
    for (n, seen) in (0..).zip(&seen) {
        assert_eq!((seen.len, &seen.start[..]), (200, &[n; 96][..]));
        assert_eq!((seen.chains.len(), seen.chains[0].head), (1, 3));
        let s = seen.stages;
        let times = [s.fetch, s.backend, s.done, s.used, s.interrupt];
        assert!(times[0] > 0 && times.is_sorted(), "{s:?}");
    }
    // Nobody takes what comes now.
    for _ in 0..1000 {
        send(&mut recorder, &mut [9; 60]);
    }
    let some = watch.take();
    assert!((1..=32).contains(&some.len()), "{}", some.len());
    assert_eq!(some[0].number, 4);
    send(&mut recorder, &mut [7; 60]);
    assert_eq!(watch.take()[0].number, 1004);
    // And nobody wants any of these.
    watch.end();
    send(&mut recorder, &mut [7; 60]);
    assert!(watch.is_over() && watch.take().is_empty());
}

#[test]
fn a_capture_lets_others_see_what_it_takes() {
    let file = File::from(memfd_create("capture", MemfdFlags::CLOEXEC).unwrap());
    let config = Config {
        card: "nic0".into(),
        mac: None,
        pairs: 1,
        selection: Selection::default(),
        snaplen: WHOLE,
        count: None,
        time: None,
    };
    let capture = Capture::start(config, file).unwrap();
    let watch = Watch::new();
    let recorder = capture.recorder(1, &Bell::default()).unwrap();
    let onlooker = Onlooker::default();
    onlooker.set(Some(watch.clone()));
    let mut recorder = recorder.shown_to(onlooker);
    for n in 0..100 {
        send(&mut recorder, &mut [n; 200]);
    }
    let seen = watch.take();
    assert!((1..=32).contains(&seen.len()), "{}", seen.len());
    assert_eq!((seen[0].number, &seen[0].start[..]), (1, &[0; 96][..]));
    assert_eq!(seen[0].chains[0].lens, [200]);
    watch.end();
    send(&mut recorder, &mut [1; 60]);
    assert!(watch.take().is_empty());
    drop(recorder);
    assert!(capture.stop(Duration::from_secs(20)));
    assert_eq!(capture.status().frames, 101);
}
