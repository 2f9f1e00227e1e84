// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ring arithmetic, at every place where an index or its place in the ring wraps.

use vnet_contract::hdr::NetHdr;
use vnet_contract::queue::Error;
use vnet_queue::mock::{packet, Driver, Memory};
use vnet_queue::{Budget, Fault, Rx, Tx, Waits};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};

const SIZE: u16 = 64;
/// Bytes of a frame, and with its header.
const FRAME: usize = 60;
const PACKET: u32 = 72;

/// Memory in which every descriptor is a chain with the same frame, or with room for one.
fn rings(room: bool) -> Memory {
    let mem = memory();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(FRAME, 0)));
    let driver = driver(&mem, SIZE, 0);
    for head in 0..SIZE {
        driver.chain(head, &[(BUFFERS, PACKET)], room);
    }
    mem
}

/// Starts within two rings of zero, each with all sizes that a batch can have; in a long run, the
/// other starts with some.
fn batches() -> impl Iterator<Item = (u16, u16)> {
    let all = std::env::var_os("VNET_LONG").is_some();
    (0..=u16::MAX)
        .flat_map(|at| (1..=SIZE).map(move |count| (at, count)))
        .filter(move |&(at, count)| {
            let near = at.wrapping_add(2 * SIZE) < 4 * SIZE;
            near || all && [1, 2, 3, SIZE / 2, SIZE - 1, SIZE].contains(&count)
        })
}

/// Descriptors in an order that is not that of the ring.
fn heads(from: u16, count: u16) -> impl Iterator<Item = u16> {
    (0..count).map(move |n| from.wrapping_add(7 * n) % SIZE)
}

fn start(mem: &Memory, at: u16) -> (Driver, Tx) {
    let driver = driver(mem, SIZE, 0).start_at(at);
    let tx = Tx::start(&driver.config, &mem.device()).unwrap();
    (driver, tx)
}

#[test]
fn batches_of_every_size_are_sent_from_every_start() {
    let mem = rings(false);
    let device = mem.device();
    for (at, count) in batches() {
        let (mut driver, mut tx) = start(&mem, at);
        heads(at, count).for_each(|head| {
            driver.offer(head);
        });
        let mut backend = Backend::default();
        let outcome = tx.run(&device, &mut backend, Budget::default());
        assert_eq!((outcome.frames, outcome.fault), (count.into(), None));
        assert_eq!(backend.sent.len(), usize::from(count));
        for head in heads(at, count) {
            assert_eq!(driver.take_used(), Some((head.into(), 0)));
        }
        assert_eq!(driver.take_used(), None);
        let index = at.wrapping_add(count);
        assert_eq!(tx.indices(), (index, index));
        // The next chain has to ring, and no other.
        assert_eq!(tx.rearm(&device), Ok(false));
        assert_eq!(driver.avail_event(), index);
    }
}

/// A part of a full ring is filled, and then the rest of it.
#[test]
fn batches_of_every_size_are_received_from_every_start() {
    let mem = rings(true);
    let device = mem.device();
    for (at, count) in batches() {
        let mut driver = driver(&mem, SIZE, 0).start_at(at);
        let mut rx = Rx::start(&driver.config, &device).unwrap();
        heads(at, SIZE).for_each(|head| {
            driver.offer(head);
        });
        let mut order = heads(at, SIZE);
        let mut index = at;
        for count in [count, SIZE - count] {
            let frames = (0..count).map(|_| frame(FRAME, 0));
            let mut backend = Backend::with_frames(frames);
            let outcome = rx.run(&device, &mut backend, &everything(), Budget::default());
            assert_eq!((outcome.frames, outcome.fault), (count.into(), None));
            for head in order.by_ref().take(count.into()) {
                assert_eq!(driver.take_used(), Some((head.into(), PACKET)));
            }
            assert_eq!(driver.take_used(), None);
            index = index.wrapping_add(count);
            assert_eq!(rx.indices(), (index, index));
        }
        // Nothing is left: what is posted next has to ring, and no other.
        let mut more = Backend::with_frames([frame(FRAME, 0)]);
        let outcome = rx.run(&device, &mut more, &everything(), Budget::default());
        assert_eq!((outcome.frames, outcome.waits), (0, Waits::Driver));
        assert_eq!(rx.rearm(&device), Ok(false));
        assert_eq!(driver.avail_event(), index);
    }
}

#[test]
fn an_avail_index_is_good_up_to_a_ring_ahead_and_no_further() {
    let mem = rings(false);
    let device = mem.device();
    for at in [
        0,
        1,
        SIZE - 1,
        0x7fff,
        0x8000,
        0u16.wrapping_sub(SIZE),
        0xffff,
    ] {
        for ahead in 0..=u16::MAX {
            let (mut driver, mut tx) = start(&mem, at);
            let index = at.wrapping_add(ahead);
            driver.set_avail_idx(index);
            let outcome = tx.run(&device, &mut Backend::default(), Budget::default());
            match ahead {
                0..=SIZE => {
                    assert_eq!((outcome.frames, outcome.fault), (ahead.into(), None));
                    for _ in 0..ahead {
                        assert!(driver.take_used().is_some());
                    }
                }
                _ => {
                    let fault = Fault::new(Error::AvailIndex, index);
                    assert_eq!((outcome.frames, outcome.fault), (0, Some(fault)));
                }
            }
            assert_eq!(driver.take_used(), None);
        }
    }
}

#[test]
fn of_all_events_those_that_were_passed_interrupt() {
    const COUNT: u16 = 3;
    let mem = rings(false);
    let device = mem.device();
    for at in [0, 1, 0x7ffe, 0xfffd, 0xfffe, 0xffff] {
        for event in 0..=u16::MAX {
            let (mut driver, mut tx) = start(&mem, at);
            driver.set_used_event(event);
            for head in 0..COUNT {
                driver.offer(head);
            }
            tx.run(&device, &mut Backend::default(), Budget::default());
            let passed = (0..COUNT).any(|n| at.wrapping_add(n) == event);
            let due = tx.interrupt_due(&device).unwrap();
            assert_eq!(due.is_some(), passed, "{event} from {at}");
        }
    }
}
