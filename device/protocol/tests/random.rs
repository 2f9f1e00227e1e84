// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Streams that make no sense, in pieces of any size.
#![allow(missing_docs)]

mod common;

use std::fs::File;

use common::{access, irqs, map, unmap, words, Call, Peer, NO_REPLY};
use proptest::prelude::*;
use vnet_protocol::{CAPACITY, HEADER_SIZE, MAX_FDS, MAX_MESSAGE};

/// Most memory for a reply: the longest region, and what growing by doubling makes of that.
const MOST_REPLY: usize = 0x10000;

/// A number that means something, is next to one that does, or is any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..33u64,
        2 => prop::sample::select(vec![0x3ffc, 0x4000, 0x4001, 0x1000, 1 << 32, u64::MAX - 3]),
        1 => any::<u64>(),
    ]
}

/// A payload that begins as that of a real command does, or not.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let small = || number().prop_map(|n| n as u32);
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        bytes(100),
        (number(), small(), small(), bytes(40)).prop_map(|(o, r, c, d)| access(o, r, c, &d)),
        (number(), 0..3u32, bytes(40)).prop_map(|(o, r, d)| access(o, r, d.len() as u32, &d)),
        (small(), small(), number(), number(), number())
            .prop_map(|(a, f, o, i, s)| map(a, f, o, i, s)),
        (small(), small(), number(), number()).prop_map(|(a, f, i, s)| unmap(a, f, i, s)),
        (small(), 0..64u32, 0..4u32, small(), small(), bytes(8)).prop_map(|(a, f, i, s, c, d)| [
            irqs(a, f, i, s, c),
            d
        ]
        .concat()),
        prop::collection::vec(small(), 0..20).prop_map(|w| words(&w)),
        (CAPACITY - 40..CAPACITY + 40).prop_map(|n| vec![0xa5; n]),
    ]
}

/// A message with a size that is right: its bytes, whether it is answered, and its descriptors.
fn message() -> impl Strategy<Value = (Vec<u8>, bool, usize)> {
    let flags = prop_oneof![
        4 => Just(0),
        2 => Just(NO_REPLY),
        1 => any::<u32>(),
    ];
    let fds = prop_oneof![3 => Just(0usize), 1 => 0..MAX_FDS + 4];
    (any::<u16>(), 0..20u16, flags, payload(), fds).prop_map(
        |(id, command, flags, payload, fds)| {
            let size = (HEADER_SIZE + payload.len()) as u32;
            let bytes = [
                &id.to_ne_bytes()[..],
                &command.to_ne_bytes(),
                &words(&[size, flags, 0]),
                &payload,
            ];
            let answered = flags & NO_REPLY == 0 && flags & 0xf != 1;
            (bytes.concat(), answered, fds)
        },
    )
}

/// Each reply: its id and whether it is an error.
fn replies(mut bytes: &[u8]) -> Vec<(u16, bool)> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let (size, flags, errno) = (word(4) as usize, word(8), word(12));
        assert!(flags == 1 && errno == 0 || flags == 0x21 && errno != 0 && size == HEADER_SIZE);
        list.push((u16::from_ne_bytes([bytes[0], bytes[1]]), flags != 1));
        bytes = &bytes[size..];
    }
    list
}

/// Whatever a client sends, the device is only asked for what it has.
fn check(calls: &[Call]) {
    for call in calls {
        let within = |region: u32, offset: u64, length: usize| {
            let size = [0x4000, 0, 0x1000][region as usize];
            offset.checked_add(length as u64).unwrap() <= size
        };
        match call {
            Call::Read(region, offset, length) => assert!(within(*region, *offset, *length)),
            Call::Write(region, offset, data) => assert!(within(*region, *offset, data.len())),
            Call::Map(flags, ..) => assert_eq!(flags & !3, 0),
            Call::Unmap(flags, ..) => assert_eq!(flags & !2, 0),
            Call::Irqs(index, _, start, count, fds) => {
                let there = [0, 1, 4][*index as usize];
                assert!(start.checked_add(*count).unwrap() <= there);
                assert!(*fds == 0 || *fds == *count as usize);
            }
            Call::Reset => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Messages of which each has the size it says: all that want an answer get one, in order, and
    /// a good one behind them is served.
    #[test]
    fn the_place_in_the_stream_is_never_lost(
        messages in prop::collection::vec(message(), 0..30),
        cuts in prop::collection::vec(1..200usize, 1..50),
    ) {
        let mut peer = Peer::negotiated();
        let mut expected = Vec::new();
        let mut cuts = cuts.iter().cycle();
        for (bytes, answered, fds) in &messages {
            if *answered {
                expected.push(u16::from_ne_bytes([bytes[0], bytes[1]]));
            }
            let mut fds: Vec<File> = (0..*fds)
                .map(|_| File::open("/dev/zero").unwrap())
                .collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // Long ones in a few pieces only.
                let size = (*cuts.next().unwrap()).max(rest.len() / 50).min(rest.len());
                peer.receive(&rest[..size], std::mem::take(&mut fds));
                rest = &rest[size..];
            }
        }
        prop_assert!(!peer.ended);
        check(&peer.device.calls);
        let ids: Vec<u16> = replies(&peer.replies).iter().map(|r| r.0).collect();
        prop_assert_eq!(ids, expected);
        prop_assert!(peer.reply.capacity() <= MOST_REPLY);
        peer.replies.clear();
        let info = peer.call(4, &words(&[16, 0, 0, 0]));
        prop_assert_eq!(info, Ok(words(&[16, 3, 3, 3])));
    }

    /// Any bytes in any pieces: no panic, and no memory because of what they say.
    #[test]
    fn any_bytes(
        negotiated: bool,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..60),
        size in prop_oneof![Just(None), (0..2 * MAX_MESSAGE).prop_map(Some)],
    ) {
        let mut peer = if negotiated { Peer::negotiated() } else { Peer::new() };
        if let Some(size) = size {
            // So that not all end at the first header.
            peer.receive(&words(&[9, size, 0, 0]), Vec::new());
        }
        for chunk in &chunks {
            peer.receive(chunk, Vec::new());
        }
        check(&peer.device.calls);
        replies(&peer.replies);
        prop_assert!(peer.inbox.space().len() <= CAPACITY);
        prop_assert!(peer.reply.capacity() <= MOST_REPLY);
    }
}
