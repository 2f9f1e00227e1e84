// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Streams, cut in pieces.

use super::*;
use std::io::{Read, Seek, SeekFrom};

fn message(id: u16, payload: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + payload.len()) as u32;
    let mut bytes = vec![0; HEADER_SIZE];
    bytes[0..2].copy_from_slice(&id.to_ne_bytes());
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn put(inbox: &mut Inbox, bytes: &[u8], fds: Vec<File>) {
    inbox.space()[..bytes.len()].copy_from_slice(bytes);
    inbox.received(bytes.len(), fds, None);
}

fn files(count: usize) -> Vec<File> {
    (0..count)
        .map(|_| File::open("/dev/zero").unwrap())
        .collect()
}

/// What is there: id, payload length and number of descriptors of each message.
fn take(inbox: &mut Inbox) -> Vec<(u16, Option<usize>, usize)> {
    let mut list = Vec::new();
    while let Some(m) = inbox.next().unwrap() {
        assert_eq!(m.lost, None);
        list.push((m.header.id, m.payload.map(<[u8]>::len), m.fds.len()));
    }
    list
}

#[test]
fn messages_come_whole_however_the_stream_is_cut() {
    let stream: Vec<u8> = (0u8..20)
        .flat_map(|n| message(n.into(), &vec![n; usize::from(n) * 3]))
        .collect();
    for size in [1, 7, 16, 17, 36, 100, stream.len()] {
        let mut inbox = Inbox::default();
        let mut next = 0;
        for chunk in stream.chunks(size) {
            put(&mut inbox, chunk, Vec::new());
            while let Some(m) = inbox.next().unwrap() {
                assert_eq!(m.header.id, u16::from(next));
                assert_eq!(m.payload, Some(&vec![next; usize::from(next) * 3][..]));
                next += 1;
            }
        }
        assert_eq!(next, 20);
        assert_eq!(inbox.space().len(), CAPACITY);
    }
}

#[test]
fn the_longest_message_is_kept_and_longer_ones_are_read_over() {
    let mut inbox = Inbox::default();
    put(&mut inbox, &message(1, &[0; 20])[..30], Vec::new());
    take(&mut inbox);
    let longest = message(2, &vec![0; CAPACITY - HEADER_SIZE]);
    put(&mut inbox, &[0; 6], Vec::new());
    put(&mut inbox, &longest[..1000], Vec::new());
    assert_eq!(take(&mut inbox), [(1, Some(20), 0)]);
    put(&mut inbox, &longest[1000..], Vec::new());
    assert_eq!(take(&mut inbox), [(2, Some(CAPACITY - HEADER_SIZE), 0)]);

    for size in [CAPACITY + 1, 3 * CAPACITY, MAX_MESSAGE as usize] {
        let mut stream = message(3, &vec![0; size - HEADER_SIZE]);
        stream.extend(message(4, &[1]));
        let mut got = Vec::new();
        for chunk in stream.chunks(CAPACITY / 2) {
            put(&mut inbox, chunk, Vec::new());
            got.extend(take(&mut inbox));
            assert!(!inbox.space().is_empty());
        }
        assert_eq!(got, [(3, None, 0), (4, Some(1), 0)]);
    }
}

#[test]
fn sizes_that_no_message_has() {
    for size in [0, 1, 15, MAX_MESSAGE + 1, u32::MAX] {
        let mut inbox = Inbox::default();
        let mut bytes = message(9, &[]);
        bytes[4..8].copy_from_slice(&size.to_ne_bytes());
        put(&mut inbox, &bytes, Vec::new());
        let (header, refusal) = inbox.next().unwrap_err();
        assert_eq!((header.id, header.size), (9, size));
        assert!(refusal.is_fatal());
    }
}

#[test]
fn descriptors_go_with_the_last_message_of_a_read() {
    let mut inbox = Inbox::default();
    // Two posted writes, and then a message with descriptors that the read ends with.
    let three = [message(1, &[0; 20]), message(2, &[]), message(3, &[0; 32])].concat();
    put(&mut inbox, &three, files(3));
    put(&mut inbox, &message(4, &[]), Vec::new());
    let expected = [
        (1, Some(20), 0),
        (2, Some(0), 0),
        (3, Some(32), 3),
        (4, Some(0), 0),
    ];
    assert_eq!(take(&mut inbox), expected);

    // A message in pieces, with descriptors at the first or at a later one.
    for piece in [0, 1, 2] {
        let long = message(5, &[0; 44]);
        for (n, chunk) in long.chunks(20).enumerate() {
            put(&mut inbox, chunk, files(if n == piece { 2 } else { 0 }));
        }
        put(&mut inbox, &message(6, &[]), files(1));
        assert_eq!(take(&mut inbox), [(5, Some(44), 2), (6, Some(0), 1)]);
    }
}

#[test]
fn descriptors_keep_their_order() {
    let mut inbox = Inbox::default();
    let file = |n: u64| {
        let path = std::env::current_exe().unwrap();
        let mut file = File::open(path).unwrap();
        file.seek(SeekFrom::Start(n)).unwrap();
        file
    };
    put(&mut inbox, &message(1, &[]), (1..=3).map(file).collect());
    let mut message = inbox.next().unwrap().unwrap();
    let places: Vec<u64> = message
        .fds
        .iter_mut()
        .map(|f| f.stream_position().unwrap())
        .collect();
    assert_eq!(places, [1, 2, 3]);
    message.fds[0].read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn too_many_descriptors_are_noticed_and_not_kept() {
    let mut inbox = Inbox::default();
    let mut lost = |pieces: &[usize]| {
        let bytes = message(1, &vec![0; pieces.len()]);
        let (last, first) = bytes.split_last().unwrap();
        put(&mut inbox, &first[..HEADER_SIZE], Vec::new());
        for &count in pieces {
            put(&mut inbox, &[*last], files(count));
        }
        let message = inbox.next().unwrap().unwrap();
        assert!(message.fds.len() <= 2 * MAX_FDS);
        message.lost.is_some()
    };
    assert!(!lost(&[16]));
    assert!(lost(&[16, 1]));
    assert!(lost(&[16; 100]));
    assert!(!lost(&[0]));

    // The kernel says so, and only of this message.
    inbox.space()[..HEADER_SIZE].copy_from_slice(&message(2, &[]));
    inbox.received(HEADER_SIZE, files(16), Some(Lost::TooMany));
    put(&mut inbox, &message(3, &[]), files(16));
    let first = inbox.next().unwrap().unwrap();
    assert_eq!(first.lost, Some(Lost::TooMany));
    let second = inbox.next().unwrap().unwrap();
    assert_eq!(second.lost, None);
    assert_eq!(second.fds.len(), 16);
}
