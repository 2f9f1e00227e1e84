// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that are not what their metadata says.

use proptest::prelude::*;
use vnet_backend::{Checksum, Gso, GsoKind, Meta, Offloads};
use vnet_segment::{Segmenter, MAX_SEGMENTS};

use crate::backend::{offer, Backend, Buffers};
use crate::packet::{flow, Flow, Piece};

const V4: Flow = Flow {
    tags: 0,
    v6: false,
    extensions: Vec::new(),
    options: 0,
    tcp: true,
    tcp_options: 0,
    final_address: 9,
};

fn large(flow: &Flow, payload: usize, size: u16) -> (Vec<u8>, Meta) {
    let payload = vec![5; payload];
    let piece = Piece {
        ident: 1,
        sequence: 1,
        flags: 0x10,
        payload: &payload,
    };
    flow.large(piece, size, false)
}

fn run(bytes: Vec<u8>, meta: Meta) -> (usize, Backend) {
    let len = bytes.len();
    let mut backend = Backend::new(Offloads::default());
    // A good frame behind it goes on all the same.
    let mut batch = [
        Buffers::whole(bytes, meta),
        Buffers::whole(vec![1; 60], Meta::default()),
    ];
    let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
    assert_eq!(taken.frames, 2);
    assert_eq!(taken.refused_bytes, taken.refused * len);
    assert_eq!(backend.sent.pop().map(|(f, _)| f.len()), Some(60));
    (taken.refused, backend)
}

fn assert_refused(what: &str, bytes: Vec<u8>, meta: Meta) {
    let (refused, backend) = run(bytes, meta);
    assert_eq!((refused, backend.sent.len()), (1, 0), "{what}");
}

/// The good frame, changed.
fn changed(flow: &Flow, what: &str, change: impl FnOnce(&mut Vec<u8>, &mut Meta)) {
    let (mut bytes, mut meta) = large(flow, 3000, 1000);
    assert_eq!(run(bytes.clone(), meta).1.sent.len(), 3);
    change(&mut bytes, &mut meta);
    assert_refused(what, bytes, meta);
}

fn with(meta: &mut Meta, change: impl FnOnce(&mut Gso)) {
    change(meta.gso.as_mut().unwrap());
}

#[test]
fn frames_that_are_not_what_their_metadata_says() {
    let v6 = Flow { v6: true, ..V4 };
    let udp = Flow { tcp: false, ..V4 };
    let tagged = Flow { tags: 2, ..V4 };
    let extended = Flow {
        extensions: vec![(0, 0)],
        ..v6.clone()
    };
    for (flow, kind) in [
        (&V4, GsoKind::TcpV6),
        (&V4, GsoKind::Udp),
        (&v6, GsoKind::TcpV4),
        (&v6, GsoKind::Udp),
        (&udp, GsoKind::TcpV4),
    ] {
        changed(flow, "another protocol", |_, m| with(m, |g| g.kind = kind));
    }
    changed(&V4, "no checksum", |_, m| m.checksum = Checksum::Unverified);
    for (start, offset) in [(33, 16), (35, 16), (34, 6), (34, 18)] {
        changed(&V4, "checksum elsewhere", |_, m| {
            m.checksum = Checksum::Partial { start, offset };
        });
    }
    changed(&V4, "another EtherType", |f, _| f[13] = 6);
    changed(&V4, "version", |f, _| f[14] = 0x55);
    changed(&V4, "header length", |f, _| f[14] = 0x44);
    changed(&V4, "more fragments", |f, _| f[20] = 0x20);
    changed(&V4, "fragment offset", |f, _| f[21] = 1);
    changed(&V4, "TCP header length", |f, _| f[46] = 0x40);
    changed(&V4, "too short for its TCP header", |f, _| {
        f.truncate(60);
        f[46] = 0xf0;
    });
    changed(&tagged, "a third tag", |f, _| {
        f[20..22].copy_from_slice(&[0x81, 0]);
    });
    changed(&extended, "fragment header", |f, _| f[20] = 44);
    changed(&extended, "extension too long", |f, _| f[55] = 255);
    changed(&v6, "version", |f, _| f[14] = 0x45);
    // More header than can be repeated.
    let long = Flow {
        extensions: vec![(60, 20), (60, 20)],
        ..v6.clone()
    };
    let (bytes, meta) = large(&long, 3000, 1000);
    assert_refused("long headers", bytes, meta);
    // More extensions than anyone needs.
    let many = Flow {
        extensions: vec![(60, 0); 9],
        ..v6
    };
    let (bytes, meta) = large(&many, 3000, 1000);
    assert_refused("many extensions", bytes, meta);
}

#[test]
fn a_frame_is_cut_into_so_many_segments_and_no_more() {
    let (bytes, meta) = large(&V4, MAX_SEGMENTS * 2, 2);
    assert_eq!(run(bytes, meta).1.sent.len(), MAX_SEGMENTS);
    let (bytes, meta) = large(&V4, MAX_SEGMENTS * 2 + 1, 2);
    assert_refused("one more", bytes, meta);
}

#[test]
fn a_call_makes_no_more_segments_than_one_frame_may_have() {
    // Each frame is good; together they would keep the caller's lock for long.
    const EACH: usize = 1500;
    let (bytes, meta) = large(&V4, EACH, 1);
    let mut batch: Vec<Buffers> = (0..10)
        .map(|_| Buffers::whole(bytes.clone(), meta))
        .collect();
    let mut backend = Backend::new(Offloads::default());
    let mut segmenter = Segmenter::default();
    let mut calls = 0;
    while !batch.is_empty() {
        let before = backend.sent.len();
        let taken = offer(&mut segmenter, &mut backend, &mut batch);
        let made = backend.sent.len() - before;
        assert!(made <= MAX_SEGMENTS, "{made}");
        // Not the backend's doing, so nobody would tell when to go on.
        assert_eq!(taken.spent, taken.frames < batch.len());
        assert_eq!(taken.spent, made == MAX_SEGMENTS);
        batch.drain(..taken.frames);
        calls += 1;
    }
    assert_eq!(calls, (10 * EACH).div_ceil(MAX_SEGMENTS));
    assert_eq!(backend.sent.len(), 10 * EACH);
    let idents = backend.sent.iter().map(|(f, _)| f[18..20].to_vec());
    let expected = (0..10 * EACH).map(|i| (1 + (i % EACH) as u16).to_be_bytes().to_vec());
    assert!(idents.eq(expected), "each segment once and in order");
}

#[test]
fn a_frame_that_changes_when_it_was_sent_in_part_spoils_no_other() {
    let (bytes, meta) = large(&V4, 3000, 1000);
    let mut batch = vec![
        Buffers::whole(bytes.clone(), meta),
        Buffers::whole(bytes, meta),
    ];
    let mut backend = Backend::new(Offloads::default());
    let mut segmenter = Segmenter::default();
    backend.takes = Some(2);
    assert_eq!(offer(&mut segmenter, &mut backend, &mut batch).frames, 0);
    batch[0].meta = Meta::default();
    backend.takes = None;
    assert_eq!(offer(&mut segmenter, &mut backend, &mut batch).frames, 2);
    // Two segments of the first, the first as it is now, and all of the second.
    assert_eq!(backend.sent.len(), 2 + 1 + 3);
}

#[test]
fn a_segment_that_ip_cannot_say_the_length_of_is_refused() {
    let (mut bytes, mut meta) = large(&V4, 3000, 1000);
    bytes.resize(14 + 65_535, 0);
    with(&mut meta, |g| g.size = u16::MAX);
    assert_eq!(run(bytes.clone(), meta).1.sent.len(), 1);
    bytes.push(0);
    assert_refused("65536 bytes", bytes.clone(), meta);
    // Cut into two it is fine.
    with(&mut meta, |g| g.size = 60_000);
    assert_eq!(run(bytes, meta).1.sent.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::rounds(2000)))]

    /// Whatever a guest sends, it is cut within bounds or refused.
    #[test]
    fn any_frame(
        flow in flow(),
        payload in 0..4000usize,
        size in 1..2000u16,
        changes in prop::collection::vec((0..120usize, any::<u8>()), 0..4),
        keep in prop_oneof![3 => Just(usize::MAX), 1 => 14..200usize],
        hdr_len in any::<u16>(),
        kind in prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::Udp)],
        right in any::<bool>(),
    ) {
        let (mut bytes, mut meta) = large(&flow, payload, size);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(keep);
        let len = bytes.len();
        with(&mut meta, |g| {
            g.hdr_len = hdr_len;
            if !right {
                g.kind = kind;
            }
        });
        let (refused, backend) = run(bytes, meta);
        prop_assert!(backend.sent.len() <= MAX_SEGMENTS);
        prop_assert_eq!(refused == 1, backend.sent.is_empty());
        let headers = backend.sent.first().map_or(0, |(first, _)| first.len().min(256));
        let sent: usize = backend.sent.iter().map(|(f, _)| f.len()).sum();
        prop_assert!(sent <= len + headers * backend.sent.len());
    }
}
