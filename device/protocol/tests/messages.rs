// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Every message, right and wrong.
#![allow(missing_docs)]

mod common;

use std::io;

use common::{access, irqs, map, unmap, words, Call, Peer, NO_REPLY};
use rustix::io::Errno;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;
const WRITE_MULTI: u16 = 15;

const INVAL: u32 = 22;
const NOTTY: u32 = 25;
const NOTSUP: u32 = 95;
const PROTO: u32 = 71;
const MSGSIZE: u32 = 90;

/// Flags of `SET_IRQS`.
const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

#[test]
fn the_version_comes_first_and_once() {
    let mut peer = Peer::new();
    for command in (0..20).filter(|&c| c != VERSION) {
        assert_eq!(peer.call(command, &[0; 64]), Err(PROTO), "{command}");
    }
    assert!(peer.calls().is_empty());
    // What is malformed may be put right.
    assert_eq!(peer.call(VERSION, b"\0\0\0\0nonsense\0"), Err(INVAL));
    assert_eq!(peer.call(VERSION, &[0; 3]), Err(INVAL));
    assert_eq!(
        peer.call(VERSION, b"\0\0\0\0{}\0").unwrap(),
        b"\0\0\0\0{\"capabilities\":{}}\0"
    );
    assert_eq!(peer.call(VERSION, b"\0\0\0\0{}\0"), Err(PROTO));
    peer.call(RESET, &[]).unwrap();
    assert_eq!(peer.calls(), [Call::Reset]);
}

#[test]
fn another_major_version_ends_the_session() {
    let mut peer = Peer::new();
    let reply = peer.call(VERSION, b"\x01\0\0\0{}\0");
    assert_eq!(reply, Err(Errno::PROTONOSUPPORT.raw_os_error() as u32));
    assert!(peer.ended);
}

#[test]
fn a_session_goes_on_where_another_server_left_it() {
    let negotiated = Peer::negotiated().protocol.negotiated();
    assert!(negotiated.is_some());
    let mut peer = Peer::with(negotiated);
    peer.call(RESET, &[]).unwrap();
    assert_eq!(peer.protocol.negotiated(), negotiated);
}

#[test]
fn what_the_device_is() {
    let mut peer = Peer::negotiated();
    let info = peer.call(GET_INFO, &words(&[16, 0, 0, 0])).unwrap();
    assert_eq!(info, words(&[16, 3, 3, 3]));
    let region = |index| words(&[32, 0, index, 0, 0, 0, 0, 0]);
    let info = peer.call(GET_REGION_INFO, &region(0)).unwrap();
    assert_eq!(info, words(&[32, 3, 0, 0, 0x4000, 0, 0, 0]));
    let info = peer.call(GET_REGION_INFO, &region(1)).unwrap();
    assert_eq!(info, words(&[32, 0, 1, 0, 0, 0, 0, 0]));
    for index in [3, u32::MAX] {
        assert_eq!(peer.call(GET_REGION_INFO, &region(index)), Err(INVAL));
    }
    let irq = |index| words(&[16, 0, index, 0]);
    let info = peer.call(GET_IRQ_INFO, &irq(2)).unwrap();
    assert_eq!(info, words(&[16, 1, 2, 4]));
    for index in [3, u32::MAX] {
        assert_eq!(peer.call(GET_IRQ_INFO, &irq(index)), Err(INVAL));
    }
    // Too short, or without room for what is to be told.
    for (command, size) in [(GET_INFO, 4), (GET_REGION_INFO, 12), (GET_IRQ_INFO, 12)] {
        assert_eq!(peer.call(command, &vec![0xff; size - 1]), Err(INVAL));
        assert_eq!(peer.call(command, &vec![0; size]), Err(INVAL));
    }
}

#[test]
fn reads() {
    let mut peer = Peer::negotiated();
    let reply = peer.call(REGION_READ, &access(0x10, 0, 4, &[])).unwrap();
    assert_eq!(reply, access(0x10, 0, 4, &[0x5a; 4]));
    let whole = peer.call(REGION_READ, &access(0, 0, 0x4000, &[])).unwrap();
    assert_eq!(whole.len(), 16 + 0x4000);
    peer.call(REGION_READ, &access(0x4000, 0, 0, &[])).unwrap();
    peer.calls();
    for (offset, region, count) in [
        (0, 3, 4),
        (0, u32::MAX, 4),
        (0, 1, 1),
        (0x4000, 0, 1),
        (0x3ffd, 0, 4),
        (0, 0, 0x4001),
        (0, 0, u32::MAX),
        (u64::MAX, 0, 1),
        (u64::MAX, 0, u32::MAX),
    ] {
        let request = access(offset, region, count, &[]);
        assert_eq!(peer.call(REGION_READ, &request), Err(INVAL));
    }
    assert_eq!(peer.call(REGION_READ, &[0; 15]), Err(INVAL));
    assert!(peer.calls().is_empty());
}

#[test]
fn reads_are_not_longer_than_the_client_takes() {
    let mut peer = Peer::new();
    let data = b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":8}}\0";
    peer.call(VERSION, data).unwrap();
    peer.call(REGION_READ, &access(0, 0, 8, &[])).unwrap();
    assert_eq!(peer.call(REGION_READ, &access(0, 0, 9, &[])), Err(MSGSIZE));
}

/// A doorbell is counted, and two writes of a register are not one.
#[test]
fn writes_that_are_alike_all_reach_the_device() {
    let mut peer = Peer::negotiated();
    let bell = access(0, 0, 4, b"bell");
    let size = (16 + bell.len()) as u32;
    let header = [
        words(&[u32::from(REGION_WRITE) << 16, size, NO_REPLY, 0]),
        bell,
    ];
    peer.receive(&header.concat().repeat(3), Vec::new());
    let write = || Call::Write(0, 0, b"bell".to_vec());
    assert_eq!(peer.calls(), [write(), write(), write()]);
}

#[test]
fn writes() {
    let mut peer = Peer::negotiated();
    let reply = peer.call(REGION_WRITE, &access(8, 2, 4, b"data")).unwrap();
    assert_eq!(reply, access(8, 2, 4, &[]));
    assert_eq!(peer.calls(), [Call::Write(2, 8, b"data".to_vec())]);
    // Posted, as doorbells are.
    peer.send(REGION_WRITE, NO_REPLY, &access(0, 0, 4, b"bell"), 0);
    assert_eq!(peer.answer(), None);
    assert_eq!(peer.calls(), [Call::Write(0, 0, b"bell".to_vec())]);
    for (offset, region, count, data) in [
        (0, 3, 4, &[0; 4][..]),
        (0, 1, 4, &[0; 4]),
        (0x3ffd, 0, 4, &[0; 4]),
        (u64::MAX, 0, 4, &[0; 4]),
        // Other lengths than they say.
        (0, 0, 4, &[0; 3]),
        (0, 0, 4, &[0; 5]),
        (0, 0, 0x4000, &[]),
        (0, 0, u32::MAX, &[0; 4]),
    ] {
        let request = access(offset, region, count, data);
        assert_eq!(peer.call(REGION_WRITE, &request), Err(INVAL));
        peer.send(REGION_WRITE, NO_REPLY, &request, 0);
        assert_eq!(peer.answer(), None, "errors are not answered either");
    }
    assert_eq!(peer.call(REGION_WRITE, &[0; 15]), Err(INVAL));
    assert!(peer.calls().is_empty());
}

#[test]
fn several_writes_in_one_message() {
    let one = |offset: u64, region: u32, count: u32, data: u64| {
        access(offset, region, count, &data.to_ne_bytes())
    };
    let multi = |count: u64, list: &[Vec<u8>]| [&count.to_ne_bytes()[..], &list.concat()].concat();
    let mut peer = Peer::negotiated();
    let two = [one(4, 0, 4, 0x0403_0201), one(0x100, 2, 1, 7)];
    let reply = peer.call(WRITE_MULTI, &multi(2, &two)).unwrap();
    assert_eq!(reply, 2u64.to_ne_bytes());
    let written = [
        Call::Write(0, 4, vec![1, 2, 3, 4]),
        Call::Write(2, 0x100, vec![7]),
    ];
    assert_eq!(peer.calls(), written);
    peer.send(WRITE_MULTI, NO_REPLY, &multi(2, &two), 0);
    assert_eq!(peer.answer(), None);
    assert_eq!(peer.calls(), written);
    peer.call(WRITE_MULTI, &multi(0, &[])).unwrap();
    for (count, list) in [
        (1, &two[..]),
        (3, &two),
        (u64::MAX, &two),
        (1 << 61, &[]),
        // The second is wrong, and the first is not done.
        (2, &[one(0, 0, 4, 0), one(0x4000, 0, 4, 0)]),
        (2, &[one(0, 0, 4, 0), one(0, 0, 9, 0)]),
        (2, &[one(0, 0, 4, 0), one(0, 9, 4, 0)]),
    ] {
        assert_eq!(peer.call(WRITE_MULTI, &multi(count, list)), Err(INVAL));
    }
    assert_eq!(peer.call(WRITE_MULTI, &[0; 7]), Err(INVAL));
    assert!(peer.calls().is_empty());

    let mut peer = Peer::new();
    peer.call(VERSION, b"\0\0\0\0").unwrap();
    assert_eq!(peer.call(WRITE_MULTI, &multi(2, &two)), Err(NOTSUP));
}

#[test]
fn memory_comes() {
    let mut peer = Peer::negotiated();
    let request = map(32, 3, 0x1000, 0x10_0000, 0x2000);
    assert_eq!(peer.call_with(DMA_MAP, &request, 1), Ok(vec![]));
    let mapped = |flags, fd| Call::Map(flags, 0x1000, 0x10_0000, 0x2000, fd);
    assert_eq!(peer.calls(), [mapped(3, true)]);
    let read_only = map(32, 1, 0x1000, 0x10_0000, 0x2000);
    assert_eq!(peer.call(DMA_MAP, &read_only), Ok(vec![]));
    assert_eq!(peer.calls(), [mapped(1, false)]);
    assert_eq!(peer.call_with(DMA_MAP, &request, 2), Err(INVAL));
    assert_eq!(peer.call_with(DMA_MAP, &request, 16), Err(INVAL));
    for (argsz, flags) in [(31, 3), (0, 3), (32, 16), (32, u32::MAX)] {
        let request = map(argsz, flags, 0, 0, 0x1000);
        assert_eq!(peer.call_with(DMA_MAP, &request, 1), Err(INVAL));
    }
    // A client may say how its memory is to be reached.
    let to_map = map(32, 7, 0x1000, 0x10_0000, 0x2000);
    assert_eq!(peer.call(DMA_MAP, &to_map), Err(INVAL));
    let to_read = map(32, 11, 0x1000, 0x10_0000, 0x2000);
    assert_eq!(peer.call_with(DMA_MAP, &to_read, 1), Err(NOTSUP));
    assert!(peer.calls().is_empty());
    assert_eq!(peer.call_with(DMA_MAP, &to_map, 1), Ok(vec![]));
    assert_eq!(peer.calls(), [mapped(3, true)]);
    assert_eq!(peer.call_with(DMA_MAP, &request[..31], 1), Err(INVAL));
    assert!(peer.calls().is_empty());
}

#[test]
fn memory_goes() {
    let mut peer = Peer::negotiated();
    let request = unmap(24, 0, 0x1000, 0x2000);
    assert_eq!(peer.call(DMA_UNMAP, &request).unwrap(), request);
    let all = unmap(24, 2, 0, 0);
    assert_eq!(peer.call(DMA_UNMAP, &all).unwrap(), all);
    assert_eq!(
        peer.calls(),
        [Call::Unmap(0, 0x1000, 0x2000), Call::Unmap(2, 0, 0)]
    );
    // Dirty pages are not tracked; a client that wants to know must not believe there are none.
    assert_eq!(peer.call(DMA_UNMAP, &unmap(40, 1, 0, 0x1000)), Err(NOTSUP));
    assert_eq!(peer.call(DMA_UNMAP, &unmap(24, 4, 0, 0x1000)), Err(INVAL));
    assert_eq!(peer.call(DMA_UNMAP, &unmap(23, 0, 0, 0x1000)), Err(INVAL));
    assert_eq!(peer.call(DMA_UNMAP, &request[..23]), Err(INVAL));
    assert!(peer.calls().is_empty());
}

#[test]
fn interrupts_are_attached_detached_and_raised() {
    let mut peer = Peer::negotiated();
    for (request, fds, call) in [
        // As QEMU enables MSI-X, unmasks two vectors, and disables it.
        (
            irqs(20, EVENTFD | TRIGGER, 2, 0, 1),
            0,
            (EVENTFD | TRIGGER, 0, 1),
        ),
        (
            irqs(20, EVENTFD | TRIGGER, 2, 1, 2),
            2,
            (EVENTFD | TRIGGER, 1, 2),
        ),
        (irqs(20, NONE | TRIGGER, 2, 0, 0), 0, (NONE | TRIGGER, 0, 0)),
        (irqs(20, NONE | TRIGGER, 2, 3, 1), 0, (NONE | TRIGGER, 3, 1)),
        (
            irqs(20, EVENTFD | TRIGGER, 2, 0, 4),
            4,
            (EVENTFD | TRIGGER, 0, 4),
        ),
    ] {
        assert_eq!(peer.call_with(SET_IRQS, &request, fds), Ok(vec![]));
        let (flags, start, count) = call;
        assert_eq!(peer.calls(), [Call::Irqs(2, flags, start, count, fds)]);
    }
    // Kind 0 has none, and nothing is taken away.
    peer.call(SET_IRQS, &irqs(20, NONE | TRIGGER, 0, 0, 0))
        .unwrap();
    peer.calls();
    // Those for which the truth value is true.
    let some = [irqs(23, BOOL | TRIGGER, 2, 1, 3), vec![1, 0, 0xff]].concat();
    peer.call(SET_IRQS, &some).unwrap();
    let one = |n| Call::Irqs(2, NONE | TRIGGER, n, 1, 0);
    assert_eq!(peer.calls(), [one(1), one(3)]);
    // Kind 1 can be masked.
    for action in [MASK, UNMASK] {
        peer.call(SET_IRQS, &irqs(20, NONE | action, 1, 0, 1))
            .unwrap();
        assert_eq!(peer.calls(), [Call::Irqs(1, NONE | action, 0, 1, 0)]);
    }
}

#[test]
fn interrupts_that_make_no_sense() {
    let mut peer = Peer::negotiated();
    let eventfd = EVENTFD | TRIGGER;
    for (request, fds) in [
        (irqs(20, eventfd, 3, 0, 1), 1),
        (irqs(20, eventfd, u32::MAX, 0, 1), 1),
        (irqs(20, eventfd, 2, 4, 1), 1),
        (irqs(20, eventfd, 2, 0, 5), 0),
        (irqs(20, eventfd, 2, u32::MAX, 1), 1),
        (irqs(20, eventfd, 2, 1, u32::MAX), 0),
        (irqs(20, eventfd, 0, 0, 1), 1),
        // As many descriptors as interrupts, or none.
        (irqs(20, eventfd, 2, 0, 2), 1),
        (irqs(20, eventfd, 2, 0, 1), 2),
        (irqs(20, eventfd, 2, 0, 0), 1),
        (irqs(20, NONE | TRIGGER, 2, 0, 1), 1),
        ([irqs(21, BOOL | TRIGGER, 2, 0, 1), vec![1]].concat(), 1),
        // As many truth values as interrupts.
        (irqs(20, BOOL | TRIGGER, 2, 0, 1), 0),
        ([irqs(22, BOOL | TRIGGER, 2, 0, 1), vec![1, 1]].concat(), 0),
        // One kind of data and one action, both known, the action possible.
        (irqs(20, 0, 2, 0, 1), 0),
        (irqs(20, NONE, 2, 0, 1), 0),
        (irqs(20, TRIGGER, 2, 0, 1), 0),
        (irqs(20, NONE | EVENTFD | TRIGGER, 2, 0, 1), 0),
        (irqs(20, NONE | MASK | TRIGGER, 1, 0, 1), 0),
        (irqs(20, NONE | TRIGGER | 64, 2, 0, 1), 0),
        (irqs(20, u32::MAX, 2, 0, 1), 0),
        (irqs(20, NONE | MASK, 2, 0, 1), 0),
        (irqs(20, NONE | UNMASK, 2, 0, 1), 0),
        (irqs(19, NONE | TRIGGER, 2, 0, 1), 0),
        (irqs(20, NONE | TRIGGER, 2, 0, 1)[..19].to_vec(), 0),
    ] {
        let refused = peer.call_with(SET_IRQS, &request, fds);
        assert_eq!(refused, Err(INVAL), "{request:?}");
    }
    // Kind 1 has no eventfds.
    let refused = peer.call_with(SET_IRQS, &irqs(20, eventfd, 1, 0, 1), 1);
    assert_eq!(refused, Err(NOTSUP));
    assert!(peer.calls().is_empty());
}

#[test]
fn commands_that_are_not_served_are_refused_and_the_next_one_is_served() {
    let mut peer = Peer::negotiated();
    for command in [0, 6, 11, 12, 14, 16, 17, 18, 99, 0xffff] {
        for payload in [&[][..], &[0xff; 100]] {
            let errno = if command == 16 { NOTTY } else { NOTSUP };
            assert_eq!(peer.call(command, payload), Err(errno));
        }
        peer.call(RESET, &[]).unwrap();
        peer.send(command, NO_REPLY, &[], 0);
        assert_eq!(peer.answer(), None);
    }
}

#[test]
fn messages_that_are_no_commands() {
    let mut peer = Peer::negotiated();
    // Replies are never answered; anything else is.
    peer.send(RESET, 1, &[], 0);
    assert_eq!(peer.answer(), None);
    for kind in [2, 7, 0xf] {
        peer.send(RESET, kind, &[], 0);
        assert_eq!(peer.answer(), Some(Err(PROTO)));
    }
    assert!(peer.calls().is_empty());
}

#[test]
fn messages_that_are_too_long_are_answered_once_they_are_over() {
    let mut peer = Peer::negotiated();
    let long = access(0, 0, 500_000, &vec![0; 500_000]);
    assert_eq!(peer.call(REGION_WRITE, &long), Err(MSGSIZE));
    peer.send(REGION_WRITE, NO_REPLY, &long, 0);
    assert_eq!(peer.answer(), None);
    peer.call(RESET, &[]).unwrap();
    assert_eq!(peer.calls(), [Call::Reset]);
}

#[test]
fn errors_of_the_device_reach_the_client() {
    let mut peer = Peer::negotiated();
    let requests = [
        (REGION_READ, access(0, 0, 4, &[])),
        (REGION_WRITE, access(0, 0, 4, &[0; 4])),
        (DMA_MAP, map(32, 3, 0, 0, 0x1000)),
        (DMA_UNMAP, unmap(24, 0, 0, 0x1000)),
        (SET_IRQS, irqs(20, NONE | TRIGGER, 2, 0, 1)),
        (RESET, vec![]),
    ];
    for (command, request) in &requests {
        for (errno, got) in [(17, 17), (12, 12), (0, 5)] {
            peer.fail_next(io::Error::from_raw_os_error(errno));
            assert_eq!(peer.call(*command, request), Err(got), "{command}");
        }
        peer.call(*command, request).unwrap();
        // Of a posted request, nobody hears.
        peer.fail_next(io::Error::from_raw_os_error(17));
        peer.send(*command, NO_REPLY, request, 0);
        assert_eq!(peer.answer(), None);
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let mut peer = Peer::negotiated();
    peer.call_with(GET_INFO, &words(&[16, 0, 0, 0]), 3).unwrap();
    peer.call_with(RESET, &[], 16).unwrap();
}
