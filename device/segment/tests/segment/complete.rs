// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that need a checksum, and nothing else.

use proptest::prelude::*;
use vnet_backend::{checksum, Checksum, Meta, Offloads};
use vnet_segment::Segmenter;

use crate::backend::{offer, Backend, Buffers};
use crate::packet::{flow, Piece};

proptest! {
    #[test]
    fn the_checksum_is_the_one_that_the_sender_left_out(
        flow in flow(),
        payload in prop::collection::vec(any::<u8>(), 0..5000),
        cuts in prop::collection::btree_set(1..3000usize, 0..6),
    ) {
        let whole = Piece { ident: 1, sequence: 2, flags: 0x18, payload: &payload };
        let mut expected = flow.frame(whole);
        let mut bytes = expected.clone();
        flow.unfinish(&mut bytes);
        let meta = Meta { checksum: flow.partial(), gso: None };
        let mut batch = [Buffers { meta, bytes, cuts: cuts.into_iter().collect() }];
        let mut backend = Backend::new(Offloads::default());
        let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
        prop_assert_eq!((taken.frames, taken.refused), (1, 0));
        let (sent, meta) = backend.sent.remove(0);
        prop_assert_eq!(meta, Meta::default());
        let at = flow.field();
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].fill(0xff);
        }
        prop_assert!(sent == expected);
    }

    /// Start and offset may be anywhere within the frame, and in any buffer of it.
    #[test]
    fn any_place_for_a_checksum_will_do(
        mut bytes in prop::collection::vec(any::<u8>(), 60..4000),
        start: prop::sample::Index,
        offset: prop::sample::Index,
        cuts in prop::collection::btree_set(1..4000usize, 0..6),
    ) {
        let start = 14 + start.index(bytes.len() - 15);
        let offset = offset.index(bytes.len() - start - 1);
        let checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
        let meta = Meta { checksum, gso: None };
        let mut batch = [Buffers {
            meta,
            bytes: bytes.clone(),
            cuts: cuts.into_iter().collect(),
        }];
        let mut backend = Backend::new(Offloads { tso4: true, ..Offloads::default() });
        let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
        prop_assert_eq!((taken.frames, taken.refused), (1, 0));
        prop_assert!(checksum::complete(&mut bytes, start as u16, offset as u16));
        prop_assert!(backend.sent[0].0 == bytes);
    }
}

#[test]
fn a_verdict_that_the_backend_does_not_take_is_left_out() {
    let meta = Meta {
        checksum: Checksum::Valid,
        gso: None,
    };
    let mut backend = Backend::new(Offloads::default());
    let mut batch = [Buffers::whole(vec![1; 60], meta)];
    let taken = offer(&mut Segmenter::default(), &mut backend, &mut batch);
    assert_eq!((taken.frames, taken.refused), (1, 0));
    assert_eq!(backend.sent, [(vec![1; 60], Meta::default())]);
}
