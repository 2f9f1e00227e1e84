// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that can be cut.

use proptest::prelude::*;
use vnet_backend::{checksum, Checksum, Meta, Offloads};
use vnet_segment::{Segmenter, Taken};

use crate::backend::{offer, Backend, Buffers};
use crate::packet::{flow, Flow, Piece, CWR, FIN, PSH};

/// What must come of a frame.
fn expected(flow: &Flow, whole: Piece<'_>, size: u16, ecn: bool) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = match whole.payload {
        [] => vec![&[]],
        payload => payload.chunks(size.into()).collect(),
    };
    let mut sequence = whole.sequence;
    let segment = |(index, payload): (usize, &&[u8])| {
        let mut flags = whole.flags;
        if index + 1 < pieces.len() {
            flags &= !(FIN | PSH);
        }
        if index > 0 && ecn {
            flags &= !CWR;
        }
        let piece = Piece {
            ident: whole.ident.wrapping_add(index as u16),
            sequence,
            flags,
            payload,
        };
        sequence = sequence.wrapping_add(payload.len() as u32);
        flow.frame(piece)
    };
    pieces.iter().enumerate().map(segment).collect()
}

/// TCP knows two forms of a zero checksum.
fn same(flow: &Flow, mut a: Vec<u8>, b: &[u8]) -> bool {
    let at = flow.field();
    if b[at..at + 2] == [0, 0] && a[at..at + 2] == [0xff; 2] {
        a[at..at + 2].fill(0);
    }
    a == b
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::rounds(1000)))]

    /// Whatever the frame, the segments are those that its sender would have sent one by one, to
    /// the byte; however the guest's buffers are cut, and however few the backend takes at a time.
    #[test]
    fn segments_are_what_their_sender_would_have_sent(
        flow in flow(),
        (size, payload) in prop_oneof![
            4 => (1..3000u16, prop::collection::vec(any::<u8>(), 0..2000)),
            1 => (1400..9000u16, prop::collection::vec(any::<u8>(), 10_000..60_000)),
        ],
        (ident, sequence, flags, ecn) in any::<(u16, u32, u8, bool)>(),
        cuts in prop::collection::btree_set(1..2000usize, 0..6),
        checksums in any::<bool>(),
        takes in prop::option::of(1..20usize),
    ) {
        let size = size.max((payload.len() / 2000) as u16);
        let whole = Piece { ident, sequence, flags, payload: &payload };
        let (frame, meta) = flow.large(whole, size, ecn);
        let before = frame.clone();
        let mut batch = [Buffers { meta, bytes: frame, cuts: cuts.into_iter().collect() }];
        let mut backend = Backend::new(Offloads { checksum: checksums, ..Offloads::default() });
        backend.takes = takes;

        let mut segmenter = Segmenter::default();
        let mut offers = 0;
        loop {
            let taken = offer(&mut segmenter, &mut backend, &mut batch);
            prop_assert_eq!(taken.refused, 0);
            offers += 1;
            if taken.frames == 1 {
                break;
            }
            prop_assert!(offers <= 2000, "does not come to an end");
        }
        prop_assert!(batch[0].bytes == before, "the guest's buffers were written to");

        let expected = expected(&flow, whole, size, meta.gso.unwrap().ecn);
        prop_assert_eq!(backend.sent.len(), expected.len());
        for ((mut sent, meta), expected) in backend.sent.into_iter().zip(&expected) {
            prop_assert_eq!(meta.gso, None);
            if checksums {
                prop_assert_eq!(meta.checksum, flow.partial());
                let Checksum::Partial { start, offset } = meta.checksum else { unreachable!() };
                prop_assert!(checksum::complete(&mut sent, start, offset));
            } else {
                prop_assert_eq!(meta.checksum, Checksum::Unverified);
            }
            prop_assert!(same(&flow, sent, expected));
        }
    }
}

const TCP: Flow = Flow {
    tags: 0,
    v6: false,
    extensions: Vec::new(),
    options: 0,
    tcp: true,
    tcp_options: 12,
    final_address: 9,
};

fn piece(payload: &[u8]) -> Piece<'_> {
    Piece {
        ident: 1,
        sequence: 1000,
        flags: 0x10,
        payload,
    }
}

#[test]
fn a_backend_that_takes_everything_gets_the_batch_as_it_is() {
    let (frame, meta) = TCP.large(piece(&[7; 5000]), 1448, true);
    let mut backend = Backend::new(Offloads::ALL);
    let mut batch: Vec<Buffers> = (0..5)
        .map(|_| Buffers::whole(frame.clone(), meta))
        .collect();
    let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
    assert_eq!(
        taken,
        Taken {
            frames: 5,
            ..Taken::default()
        }
    );
    assert_eq!(backend.batches, [5]);
    assert_eq!(backend.sent, vec![(frame, meta); 5]);
}

#[test]
fn frames_that_need_nothing_go_on_in_one_call_and_in_order() {
    let plain = |n| Buffers::whole(TCP.frame(piece(&[n; 100])), Meta::default());
    let (frame, meta) = TCP.large(piece(&[7; 3000]), 1448, false);
    let mut batch = vec![plain(0), plain(1), Buffers::whole(frame, meta), plain(2)];
    let mut backend = Backend::new(Offloads::default());
    let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
    assert_eq!((taken.frames, taken.refused), (4, 0));
    assert_eq!(backend.batches, [2, 3, 1]);
    let lengths: Vec<usize> = backend.sent.iter().map(|(f, _)| f.len()).collect();
    let headers = TCP.headers();
    assert_eq!(
        lengths,
        [
            headers + 100,
            headers + 100,
            headers + 1448,
            headers + 1448,
            headers + 104,
            headers + 100
        ]
    );
}

#[test]
fn a_frame_that_was_sent_in_part_goes_on_where_it_was() {
    let (first, meta) = TCP.large(piece(&[1; 3000]), 1000, false);
    let (second, _) = TCP.large(piece(&[2; 3000]), 1000, false);
    let mut batch = vec![Buffers::whole(first, meta), Buffers::whole(second, meta)];
    let mut backend = Backend::new(Offloads::default());
    let mut segmenter = Segmenter::default();
    for (takes, done) in [(2, 0), (0, 0), (1, 1)] {
        backend.takes = Some(takes);
        let taken = offer(&mut segmenter, &mut backend, &mut batch);
        // With the last segment of the first frame, the first of the second one goes.
        assert_eq!(taken.frames, done);
    }
    batch.remove(0);
    backend.takes = None;
    assert_eq!(offer(&mut segmenter, &mut backend, &mut batch).frames, 1);
    let payloads: Vec<u8> = backend.sent.iter().map(|(f, _)| f[TCP.headers()]).collect();
    assert_eq!(payloads, [1, 1, 1, 2, 2, 2]);
}

#[test]
fn a_frame_that_was_sent_in_part_goes_whole_to_another_backend_and_leaves_nothing_behind() {
    let (first, meta) = TCP.large(piece(&[1; 3000]), 1000, false);
    let (second, _) = TCP.large(piece(&[2; 3000]), 1000, false);
    let mut segmenter = Segmenter::default();
    let mut backend = Backend::new(Offloads::default());
    backend.takes = Some(2);
    let mut batch = [Buffers::whole(first.clone(), meta)];
    assert_eq!(offer(&mut segmenter, &mut backend, &mut batch).frames, 0);
    assert!(segmenter.is_midway());
    // The card was given another one.
    let mut other = Backend::new(Offloads::ALL);
    assert_eq!(offer(&mut segmenter, &mut other, &mut batch).frames, 1);
    assert_eq!(other.sent, [(first, meta)]);
    assert!(!segmenter.is_midway());
    let mut backend = Backend::new(Offloads::default());
    let mut batch = [Buffers::whole(second, meta)];
    assert_eq!(offer(&mut segmenter, &mut backend, &mut batch).frames, 1);
    assert_eq!(backend.sent.len(), 3);
}
