// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the server asks of its client, and answers of every kind.
#![allow(missing_docs)]

use proptest::prelude::*;
use vnet_protocol::{Inbox, Refusal, Requests, HEADER_SIZE, MAX_DATA, MAX_REQUESTS};

const DMA_READ: u16 = 11;
const DMA_WRITE: u16 = 12;
const REPLY: u32 = 1;
const ERROR: u32 = 1 << 5;

const ADDRESS: u64 = 0x1_2345_6000;

fn header(id: u16, command: u16, flags: u32, errno: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&id.to_ne_bytes());
    bytes.extend_from_slice(&command.to_ne_bytes());
    let size = (HEADER_SIZE + payload.len()) as u32;
    for word in [size, flags, errno] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    [&bytes[..], payload].concat()
}

fn access(address: u64, count: u64, data: &[u8]) -> Vec<u8> {
    [&address.to_ne_bytes()[..], &count.to_ne_bytes(), data].concat()
}

/// Lets the server receive one message, and says what it took it for: the number of the request
/// with its data, or `Err(None)` for an answer to nothing.
fn answer(requests: &mut Requests, bytes: &[u8]) -> Result<(u16, Vec<u8>), Option<Refusal>> {
    let mut inbox = Inbox::default();
    let mut left = bytes;
    loop {
        let space = inbox.space();
        let count = left.len().min(space.len());
        space[..count].copy_from_slice(&left[..count]);
        inbox.received(count, [], None);
        left = &left[count..];
        if let Some(message) = inbox.next().unwrap() {
            assert!(message.header.is_reply());
            assert!(message.header.no_reply(), "a reply is never answered");
            let answer = match requests.answer(&message) {
                Ok(answer) => answer,
                Err(Refusal::Reply) => return Err(None),
                Err(other) => panic!("{other}"),
            };
            return match answer.result {
                Ok(data) => Ok((answer.id, data.to_vec())),
                Err(refusal) => Err(Some(refusal)),
            };
        }
    }
}

#[test]
fn reads_and_writes_as_the_specification_has_them() {
    let mut requests = Requests::default();
    let mut message = vec![7; 3];
    let id = requests.read(ADDRESS, 5, &mut message).unwrap();
    assert_eq!(
        message,
        header(id, DMA_READ, 0, 0, &access(ADDRESS, 5, b""))
    );
    let reply = header(id, DMA_READ, REPLY, 0, &access(ADDRESS, 5, b"12345"));
    assert_eq!(
        answer(&mut requests, &reply).unwrap(),
        (id, b"12345".to_vec())
    );

    let data = |to: &mut [u8]| to.copy_from_slice(b"abc");
    let id = requests.write(ADDRESS, 3, &mut message, data).unwrap();
    let expected = header(id, DMA_WRITE, 0, 0, &access(ADDRESS, 3, b"abc"));
    assert_eq!(message, expected);
    // With address and count, and, as some do, without.
    let reply = header(id, DMA_WRITE, REPLY, 0, &access(ADDRESS, 3, b""));
    assert_eq!(answer(&mut requests, &reply).unwrap(), (id, vec![]));
    let id = requests.write(ADDRESS, 3, &mut message, data).unwrap();
    let reply = header(id, DMA_WRITE, REPLY, 0, b"");
    assert_eq!(answer(&mut requests, &reply).unwrap(), (id, vec![]));
    assert!(requests.is_empty());
}

#[test]
fn so_many_at_a_time_answered_in_any_order() {
    let mut requests = Requests::default();
    let mut message = Vec::new();
    let mut ids: Vec<u16> = (0..MAX_REQUESTS as u64)
        .map(|n| requests.read(n, 1, &mut message).unwrap())
        .collect();
    assert!(requests.is_full());
    assert_eq!(requests.read(0, 1, &mut message), None);
    assert!(message.is_empty(), "nothing to send");
    ids.reverse();
    for (n, id) in (0..MAX_REQUESTS as u64).rev().zip(ids) {
        let reply = header(id, DMA_READ, REPLY, 0, &access(n, 1, &[n as u8]));
        assert_eq!(answer(&mut requests, &reply).unwrap(), (id, vec![n as u8]));
        // Answered once.
        assert!(answer(&mut requests, &reply).unwrap_err().is_none());
    }
    assert!(requests.is_empty());
}

#[test]
fn numbers_of_open_requests_are_not_used_again() {
    let mut requests = Requests::default();
    let mut message = Vec::new();
    let waits = requests.read(ADDRESS, 1, &mut message).unwrap();
    for _ in 0..70_000 {
        let id = requests.read(0, 1, &mut message).unwrap();
        assert_ne!(id, waits);
        let reply = header(id, DMA_READ, REPLY, 0, &access(0, 1, b"x"));
        answer(&mut requests, &reply).unwrap();
    }
}

#[test]
fn answers_that_do_not_fit_end_their_request() {
    let long = vec![0; MAX_DATA as usize + 1000];
    type Wrong<'a> = (u16, u32, u32, Vec<u8>);
    let wrong: Vec<Wrong<'_>> = vec![
        // Refused, with a number and without.
        (DMA_READ, REPLY | ERROR, 14, vec![]),
        (DMA_READ, REPLY | ERROR, 0, vec![]),
        (DMA_READ, REPLY | ERROR, 14, access(ADDRESS, 4, b"data")),
        // Too short, for its fields or for the data.
        (DMA_READ, REPLY, 0, vec![]),
        (DMA_READ, REPLY, 0, vec![0; 15]),
        (DMA_READ, REPLY, 0, access(ADDRESS, 4, b"dat")),
        // Too long.
        (DMA_READ, REPLY, 0, access(ADDRESS, 4, b"data.")),
        (DMA_READ, REPLY, 0, access(ADDRESS, 4, &long)),
        // About something else.
        (DMA_READ, REPLY, 0, access(ADDRESS + 1, 4, b"data")),
        (DMA_READ, REPLY, 0, access(ADDRESS, 5, b"data")),
        (DMA_READ, REPLY, 0, access(ADDRESS, 4 | 1 << 32, b"data")),
        (DMA_WRITE, REPLY, 0, access(ADDRESS, 4, b"data")),
        (9, REPLY, 0, access(ADDRESS, 4, b"data")),
    ];
    for (command, flags, errno, payload) in wrong {
        let mut requests = Requests::default();
        let mut message = Vec::new();
        let id = requests.read(ADDRESS, 4, &mut message).unwrap();
        let reply = header(id, command, flags, errno, &payload);
        let refusal = answer(&mut requests, &reply).unwrap_err().unwrap();
        assert!(refusal.errno() != 0 && !refusal.is_fatal(), "{refusal}");
        assert_eq!(
            matches!(refusal, Refusal::Client(_)),
            flags & ERROR != 0,
            "{refusal}"
        );
        assert!(requests.is_empty());
        // The next one is not affected.
        let id = requests.read(ADDRESS, 1, &mut message).unwrap();
        let reply = header(id, DMA_READ, REPLY, 0, &access(ADDRESS, 1, b"x"));
        assert_eq!(answer(&mut requests, &reply).unwrap(), (id, b"x".to_vec()));
    }
    let mut requests = Requests::default();
    let mut message = Vec::new();
    let id = requests.write(0, 1, &mut message, |_| {}).unwrap();
    let reply = header(id, DMA_WRITE, REPLY, 0, &access(0, 1, b"x"));
    assert!(answer(&mut requests, &reply).unwrap_err().is_some(), "data");
}

#[test]
fn answers_to_nothing() {
    let mut requests = Requests::default();
    let mut message = Vec::new();
    let id = requests.read(ADDRESS, 4, &mut message).unwrap();
    let reply = header(id ^ 1, DMA_READ, REPLY, 0, &access(ADDRESS, 4, b"data"));
    assert!(answer(&mut requests, &reply).unwrap_err().is_none());
    assert!(!requests.is_empty(), "the one that waits still waits");
}

proptest! {
    /// Whatever is answered: a request ends once, and only with data as long as was asked for.
    #[test]
    fn any_answers(replies in proptest::collection::vec(
        (0u16..20, 10u16..14, any::<bool>(), 0u64..3, 0u64..6, 0usize..24), 0..64)
    ) {
        let mut requests = Requests::default();
        let mut message = Vec::new();
        let mut open = std::collections::BTreeMap::new();
        for (n, (id, command, error, address, count, len)) in replies.into_iter().enumerate() {
            let asked = (n as u64 % 3, n as u32 % 6);
            if let Some(id) = requests.read(asked.0, asked.1, &mut message) {
                prop_assert_eq!(open.insert(id, asked), None);
            }
            let payload = access(address, count, &vec![n as u8; len]);
            let flags = if error { REPLY | ERROR } else { REPLY };
            let reply = header(id, command, flags, 0, &payload[..16 + len]);
            match answer(&mut requests, &reply) {
                Ok((ended, data)) => {
                    let (address, count) = open.remove(&ended).unwrap();
                    prop_assert_eq!(ended, id);
                    prop_assert_eq!(data.len(), count as usize);
                    prop_assert_eq!(&payload[..8], address.to_ne_bytes());
                }
                Err(Some(_)) => prop_assert!(open.remove(&id).is_some()),
                Err(None) => prop_assert!(!open.contains_key(&id)),
            }
        }
    }
}
