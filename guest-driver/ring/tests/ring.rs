// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What each call does to ring memory and what it gives back.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{slots, HeapRing};
use vnet_contract::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE};
use vnet_ring::{rx, tx, BadSize, Buffer, Slot, Tables};

type Tx<B = (u64, u32), T = u32> = tx::Ring<HeapRing, Vec<Slot<B, T>>>;
type Rx = rx::Ring<HeapRing, Vec<Slot<(u64, u32), ()>>>;

fn tx(size: u16) -> (Tx, HeapRing) {
    let memory = HeapRing::new(size);
    (Tx::new(memory.clone(), slots(size)).unwrap(), memory)
}

/// A transmit ring with `count` tables of six descriptors.
fn tx_with_tables<B: Buffer>(size: u16, count: u16) -> (Tx<B>, HeapRing) {
    let tables = Tables { count, entries: 6 };
    let memory = HeapRing::with_tables(size, tables);
    let slots = slots(size + tables.slots() as u16);
    (Tx::new(memory.clone(), slots).unwrap(), memory)
}

fn rx(size: u16) -> (Rx, HeapRing) {
    let memory = HeapRing::new(size);
    (Rx::new(memory.clone(), slots(size)).unwrap(), memory)
}

fn send(ring: &mut Tx, buffers: &[(u64, u32)], cookie: u32) {
    let mut chain = ring.begin(buffers.len() as u16).unwrap();
    for &buffer in buffers {
        chain.push(buffer).unwrap();
    }
    chain.commit(cookie).unwrap();
}

/// A buffer that says when it is dropped.
#[derive(Debug)]
struct Noted(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Buffer for Noted {
    fn addr(&self) -> u64 {
        0x1000
    }

    fn length(&self) -> u32 {
        64
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

#[test]
fn memory_and_slots_must_agree_on_a_power_of_two() {
    let new = |size, count| <Tx>::new(HeapRing::new(size), slots(count)).map(|_| ());
    assert_eq!(new(4, 4), Ok(()));
    assert_eq!(new(4096, 4096), Ok(()));
    assert_eq!(new(4, 8), Err(BadSize));
    assert_eq!(new(8, 4), Err(BadSize));
    assert_eq!(new(6, 6), Err(BadSize));
    assert_eq!(new(0, 0), Err(BadSize));
    assert_eq!(new(8192, 8192), Err(BadSize));
    let with = |count, entries, slots_of_tables: u16| {
        let memory = HeapRing::with_tables(8, Tables { count, entries });
        <Tx>::new(memory, slots(8 + slots_of_tables)).map(|_| ())
    };
    assert_eq!(with(2, 5, 10), Ok(()));
    assert_eq!(with(2, 5, 9), Err(BadSize));
    assert_eq!(with(2, 5, 0), Err(BadSize));
    assert_eq!(with(64, 8, 512), Ok(()));
    assert_eq!(with(65, 8, 520), Err(BadSize), "too many");
    assert_eq!(with(1, 9, 9), Err(BadSize), "longer than the ring");
}

#[test]
fn a_long_chain_lies_in_a_table() {
    let (mut ring, memory) = tx_with_tables(8, 2);
    let long: Vec<_> = (0..5).map(|i| (0x1000 * (i + 1), 60 + i as u32)).collect();
    send(&mut ring, &long, 1);
    send(&mut ring, &long[..4], 2);
    assert_eq!(ring.publish(), Some(2));
    assert_eq!((ring.free(), ring.in_flight()), (3, 2));

    let (head, chain) = memory.0.chain(0);
    assert_eq!(chain.len(), 1);
    assert_eq!(chain[0].flags, DESC_F_INDIRECT);
    assert_eq!(chain[0].len as usize, 5 * DESC_SIZE);
    let table = memory.0.table(chain[0]);
    let seen: Vec<_> = table.iter().map(|d| (d.addr, d.len)).collect();
    assert_eq!(seen, long);
    let links: Vec<_> = table.iter().map(|d| (d.flags, d.next)).collect();
    let next = DESC_F_NEXT;
    assert_eq!(links, [(next, 1), (next, 2), (next, 3), (next, 4), (0, 0)]);

    let (_, chain) = memory.0.chain(1);
    assert_eq!(chain.len(), 4, "a short one does not");
    assert!(chain.iter().all(|d| d.flags & !DESC_F_NEXT == 0));

    memory.0.write_used(0, u32::from(head), 0);
    memory.0.set_used_index(1);
    assert_eq!(ring.reclaim(), Ok(Some(1)));
    assert_eq!(ring.free(), 4);
}

#[test]
fn chains_without_a_table_take_the_room_that_there_is() {
    let (mut ring, memory) = tx_with_tables(8, 1);
    let chain = [(0x1000, 60); 6];
    send(&mut ring, &chain, 0);
    assert!(!ring.has_room(8), "seven are free");
    assert!(ring.has_room(7), "which is all that there is");
    send(&mut ring, &chain[..5], 1);
    assert_eq!(memory.0.chain(1).1.len(), 5, "no table is left");
    assert_eq!(ring.free(), 2);
    assert!(ring.has_room(2) && !ring.has_room(3));
    assert!(ring.begin(3).is_none());

    // The table again, and be it for a short chain that would not fit otherwise.
    memory.0.write_used(0, u32::from(memory.0.chain(0).0), 0);
    memory.0.set_used_index(1);
    let _ = ring.publish();
    assert_eq!(ring.reclaim(), Ok(Some(0)));
    assert!(ring.has_room(6) && !ring.has_room(7));
    assert!(!ring.begin(3).unwrap().is_indirect());
    let mut chain = ring.begin(4).unwrap();
    assert!(chain.is_indirect());
    for i in 0..6 {
        chain.push((i, 1)).unwrap();
    }
    assert_eq!(chain.push((6, 1)), Err((6, 1)), "the table is full");
    chain.commit(2).unwrap();
    assert_eq!(ring.free(), 2);
}

#[test]
fn a_table_needs_a_descriptor_of_the_ring() {
    let (mut ring, _) = tx_with_tables(8, 2);
    for cookie in 0..8 {
        send(&mut ring, &[(0x1000, 60)], cookie);
    }
    assert!(!ring.has_room(1) && !ring.has_room(6));
    assert!(ring.begin(6).is_none());
}

#[test]
fn buffers_in_tables_live_as_long_as_others() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let (mut ring, memory) = tx_with_tables(8, 2);
    let add = |ring: &mut Tx<Noted>, name, cookie: Option<u32>| {
        let mut chain = ring.begin(6).unwrap();
        assert!(chain.is_indirect());
        chain.push(Noted(name, log.clone())).unwrap();
        chain.push(Noted(name, log.clone())).unwrap();
        if let Some(cookie) = cookie {
            chain.commit(cookie).unwrap();
        }
    };
    add(&mut ring, "given up", None);
    assert_eq!(log.take(), ["given up", "given up"]);
    assert_eq!((ring.free(), ring.in_flight()), (8, 0));

    add(&mut ring, "a", Some(1));
    add(&mut ring, "b", Some(2));
    assert!(ring.publish().is_some());
    let (second, _) = memory.0.chain(1);
    memory.0.write_used(0, u32::from(second), 0);
    memory.0.set_used_index(1);
    assert!(log.borrow().is_empty());
    assert_eq!(ring.taken(), 0);
    assert_eq!(ring.reclaim(), Ok(Some(2)));
    assert_eq!((ring.taken(), log.take()), (1, vec!["b", "b"]));

    add(&mut ring, "c", Some(3));
    let mut cookies = Vec::new();
    ring.reset(|cookie| cookies.push(cookie));
    assert_eq!(cookies.len(), 2);
    assert_eq!(log.take(), ["a", "a", "c", "c"]);
    assert_eq!((ring.free(), ring.in_flight()), (8, 0));
    add(&mut ring, "d", Some(4));
    add(&mut ring, "e", Some(5));
}

#[test]
fn no_two_chains_in_flight_have_the_same_head() {
    let (mut ring, memory) = tx(8);
    let mut heads = Vec::new();
    for cookie in 0..4 {
        let mut chain = ring.begin(2).unwrap();
        let head = chain.head();
        chain.push((0x1000, 12)).unwrap();
        chain.push((0x2000, 60)).unwrap();
        assert_eq!(chain.head(), head);
        chain.commit(cookie).unwrap();
        assert!(!heads.contains(&head), "{head} twice in {heads:?}");
        assert_eq!(memory.0.chain(cookie as u16).0, head);
        heads.push(head);
    }
}

#[test]
fn a_chain_is_linked_and_ends() {
    let (mut ring, memory) = tx(8);
    send(&mut ring, &[(0x1000, 12), (0x2000, 60), (0x3000, 1)], 7);
    assert_eq!(memory.0.avail_index(), 0, "not published yet");
    assert_eq!(ring.publish(), Some(1));
    assert_eq!(memory.0.avail_index(), 1);
    let (_, chain) = memory.0.chain(0);
    let seen: Vec<_> = chain.iter().map(|d| (d.addr, d.len, d.flags)).collect();
    assert_eq!(
        seen,
        [
            (0x1000, 12, DESC_F_NEXT),
            (0x2000, 60, DESC_F_NEXT),
            (0x3000, 1, 0)
        ]
    );
    assert_eq!((ring.free(), ring.in_flight()), (5, 1));
}

#[test]
fn a_receive_buffer_is_one_writable_descriptor() {
    let (mut ring, memory) = rx(4);
    ring.post((0x9000, 2048)).unwrap();
    assert_eq!(ring.publish(), Some(1));
    let (head, chain) = memory.0.chain(0);
    assert_eq!((chain.len(), chain[0].flags), (1, DESC_F_WRITE));
    memory.0.write_used(0, u32::from(head), 100);
    memory.0.set_used_index(1);
    assert_eq!(ring.taken(), 0);
    assert_eq!(ring.take(), Ok(Some(((0x9000, 2048), 100))));
    assert_eq!(ring.take(), Ok(None));
    assert_eq!(ring.taken(), 1);
}

#[test]
fn a_buffer_can_be_looked_at_and_posted_again() {
    let (mut ring, memory) = rx(4);
    for addr in [0x9000, 0xa000, 0xb000] {
        ring.post((addr, 2048)).unwrap();
    }
    let _ = ring.publish();
    assert_eq!(ring.peek(), Ok(None));
    assert!(!ring.repost(), "nothing was looked at");
    let heads: Vec<u16> = (0..3).map(|entry| memory.0.chain(entry).0).collect();
    for entry in 0..2 {
        memory
            .0
            .write_used(entry, u32::from(heads[usize::from(entry)]), 60);
    }
    memory.0.set_used_index(2);

    assert_eq!(ring.peek(), Ok(Some((&(0x9000, 2048), 60))));
    assert_eq!(
        ring.peek(),
        Ok(Some((&(0x9000, 2048), 60))),
        "looking takes nothing"
    );
    assert!(ring.has_used());
    assert!(!ring.enable_interrupts(), "it is still to be dealt with");
    assert!(ring.repost());
    assert!(!ring.repost(), "once only");
    assert_eq!(ring.free(), 1, "its descriptor is in use all the time");
    memory.0.set_avail_event(3);
    assert_eq!(ring.publish(), Some(4));
    let (head, chain) = memory.0.chain(3);
    assert_eq!(head, heads[0]);
    assert_eq!(
        (chain[0].addr, chain[0].len, chain[0].flags),
        (0x9000, 2048, DESC_F_WRITE)
    );

    assert_eq!(ring.peek(), Ok(Some((&(0xa000, 2048), 60))));
    assert_eq!(
        ring.take(),
        Ok(Some(((0xa000, 2048), 60))),
        "what was looked at"
    );
    assert_eq!(ring.take(), Ok(None));
    assert_eq!((ring.free(), ring.in_flight()), (2, 2));
    let mut left = Vec::new();
    ring.reset(|buffer| left.push(buffer.0));
    left.sort_unstable();
    assert_eq!(left, [0x9000, 0xb000]);
}

#[test]
fn a_buffer_that_is_looked_at_survives_a_reset_once() {
    let (mut ring, memory) = rx(4);
    ring.post((0x9000, 2048)).unwrap();
    let _ = ring.publish();
    memory.0.write_used(0, u32::from(memory.0.chain(0).0), 60);
    memory.0.set_used_index(1);
    assert!(ring.peek().unwrap().is_some());
    let mut left = Vec::new();
    ring.reset(|buffer| left.push(buffer.0));
    assert_eq!(left, [0x9000]);
    assert_eq!(ring.peek(), Ok(None));
    assert!(!ring.repost());
}

#[test]
fn a_full_ring_gives_back_what_it_cannot_take() {
    let (mut ring, _) = rx(2);
    ring.post((1, 1)).unwrap();
    ring.post((2, 1)).unwrap();
    assert_eq!(ring.post((3, 1)), Err((3, 1)));

    let (mut ring, _) = tx(2);
    assert!(ring.begin(3).is_none());
    let mut chain = ring.begin(2).unwrap();
    chain.push((1, 1)).unwrap();
    chain.push((2, 1)).unwrap();
    assert_eq!(chain.push((3, 1)), Err((3, 1)));
    chain.commit(0).unwrap();
    assert!(ring.begin(1).is_none());
    assert!(ring.begin(0).unwrap().commit(9) == Err(9));
}

#[test]
fn a_chain_given_up_leaves_the_ring_as_it_was() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let memory = HeapRing::new(4);
    let mut ring: Tx<Noted> = Tx::new(memory.clone(), slots(4)).unwrap();
    {
        let mut chain = ring.begin(3).unwrap();
        chain.push(Noted("a", log.clone())).unwrap();
        chain.push(Noted("b", log.clone())).unwrap();
    }
    assert_eq!(*log.borrow(), ["a", "b"]);
    assert_eq!((ring.free(), ring.in_flight()), (4, 0));
    assert_eq!(ring.publish(), None);
    // All four descriptors are still usable, in one chain.
    let mut chain = ring.begin(4).unwrap();
    for _ in 0..4 {
        chain.push(Noted("c", log.clone())).unwrap();
    }
    chain.commit(1).unwrap();
    assert_eq!(ring.publish(), Some(1));
    assert_eq!(memory.0.chain(0).1.len(), 4);
}

#[test]
fn buffers_are_dropped_when_the_chain_comes_back_and_not_before() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let memory = HeapRing::new(4);
    let mut ring: Tx<Noted> = Tx::new(memory.clone(), slots(4)).unwrap();
    for (cookie, names) in [(1, ["a", "b"]), (2, ["c", "d"])] {
        let mut chain = ring.begin(2).unwrap();
        for name in names {
            chain.push(Noted(name, log.clone())).unwrap();
        }
        chain.commit(cookie).unwrap();
    }
    assert_eq!(ring.publish(), Some(2));
    assert!(log.borrow().is_empty());
    // The card may finish in any order.
    let (second, _) = memory.0.chain(1);
    memory.0.write_used(0, u32::from(second), 0);
    memory.0.set_used_index(1);
    assert_eq!(ring.reclaim(), Ok(Some(2)));
    assert_eq!(*log.borrow(), ["c", "d"]);
    assert_eq!(ring.reclaim(), Ok(None));
}

#[test]
fn reset_gives_everything_back_and_starts_over() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let memory = HeapRing::new(4);
    let mut ring: Tx<Noted, Noted> = Tx::new(memory.clone(), slots(4)).unwrap();
    for buffer in ["buffer", "buffer"] {
        let mut chain = ring.begin(1).unwrap();
        chain.push(Noted(buffer, log.clone())).unwrap();
        chain.commit(Noted("cookie", log.clone())).unwrap();
    }
    assert_eq!(ring.publish(), Some(2));
    let mut cookies = 0;
    ring.reset(|_| cookies += 1);
    assert_eq!(cookies, 2);
    assert_eq!(*log.borrow(), ["buffer", "buffer", "cookie", "cookie"]);
    assert_eq!((ring.free(), ring.in_flight()), (4, 0));
    assert_eq!((memory.0.avail_index(), memory.0.used_event()), (0, 0));

    let (mut ring, _) = rx(4);
    ring.post((1, 1)).unwrap();
    ring.post((2, 1)).unwrap();
    let mut back = Vec::new();
    ring.reset(|b| back.push(b));
    assert_eq!(back, [(1, 1), (2, 1)]);
}

#[test]
fn the_doorbell_is_due_only_past_the_event() {
    let (mut ring, memory) = tx(8);
    memory.0.set_avail_event(2);
    send(&mut ring, &[(1, 1)], 0);
    send(&mut ring, &[(1, 1)], 1);
    assert_eq!(ring.publish(), None, "0..2 does not hold 2");
    assert_eq!(memory.0.avail_index(), 2);
    send(&mut ring, &[(1, 1)], 2);
    assert_eq!(ring.publish(), Some(3));
    assert_eq!(ring.publish(), None, "nothing new");
    send(&mut ring, &[(1, 1)], 3);
    assert_eq!(ring.publish(), None, "the event lies behind");
}

#[test]
fn interrupts_are_asked_for_ahead_and_refused_behind() {
    let (mut ring, memory) = tx(8);
    for cookie in 0..8 {
        send(&mut ring, &[(1, 1)], cookie);
    }
    assert!(ring.publish().is_some());
    assert!(ring.enable_interrupts());
    assert_eq!(memory.0.used_event(), 0);
    ring.disable_interrupts();
    assert_eq!(memory.0.used_event(), u16::MAX);
    assert!(ring.enable_interrupts_delayed());
    assert_eq!(memory.0.used_event(), 6, "three quarters of 8 in flight");

    for entry in 0..6u16 {
        let (head, _) = memory.0.chain(entry);
        memory.0.write_used(entry, u32::from(head), 0);
    }
    memory.0.set_used_index(6);
    assert!(ring.has_used());
    assert!(!ring.enable_interrupts(), "six have come back");
    assert!(ring.enable_interrupts_delayed(), "but not seven");
    for cookie in 0..6 {
        assert_eq!(ring.reclaim(), Ok(Some(cookie)));
    }
    assert!(!ring.has_used());
    assert!(ring.enable_interrupts());
    assert_eq!(memory.0.used_event(), 6);
}

#[test]
fn suppression_survives_the_wrap_of_the_index() {
    let (mut ring, memory) = tx(2);
    for i in 0..200_000u32 {
        // After an interrupt nothing is written as long as the event lies behind; the card must
        // never see one that it can reach with the next chain.
        ring.disable_interrupts();
        assert_ne!(memory.0.used_event(), i as u16);
        send(&mut ring, &[(1, 1)], i);
        let _ = ring.publish();
        let (head, _) = memory.0.chain(i as u16);
        memory.0.write_used(i as u16, u32::from(head), 0);
        memory.0.set_used_index((i as u16).wrapping_add(1));
        assert_eq!(ring.reclaim(), Ok(Some(i)));
    }
}

#[test]
fn headers_have_a_buffer_of_their_own() {
    let (mut ring, memory) = rx(8);
    for n in 0..4 {
        ring.post_split((0x100 * n, 256), (0x10000 + 0x1000 * n, 4096))
            .unwrap();
    }
    let refused = ring.post_split((1, 256), (2, 4096));
    assert_eq!(refused, Err(((1, 256), (2, 4096))));
    assert_eq!((ring.free(), ring.in_flight()), (0, 4));
    assert_eq!(ring.publish(), Some(4));
    let (head, chain) = memory.0.chain(1);
    let seen: Vec<_> = chain.iter().map(|d| (d.addr, d.len, d.flags)).collect();
    let write = DESC_F_WRITE;
    assert_eq!(
        seen,
        [(0x100, 256, write | DESC_F_NEXT), (0x11000, 4096, write)]
    );

    // As much as both hold, and not more.
    memory.0.write_used(0, head.into(), 256 + 4096);
    memory.0.set_used_index(1);
    assert_eq!(ring.peek(), Ok(Some((&(0x100, 256), 256 + 4096))));
    let taken = ring.take_split();
    assert_eq!(taken, Ok(Some(((0x100, 256), (0x11000, 4096), 256 + 4096))));
    assert_eq!((ring.free(), ring.in_flight()), (2, 3));
    assert_eq!(ring.take_split(), Ok(None));
    ring.post_split((0x100, 256), (0x20000, 4096)).unwrap();

    // What was only looked at goes back as it is.
    let (head, _) = memory.0.chain(2);
    memory.0.write_used(1, head.into(), 60);
    memory.0.set_used_index(2);
    assert_eq!(ring.peek(), Ok(Some((&(0x200, 256), 60))));
    assert!(ring.repost());
    let _ = ring.publish();
    let (again, chain) = memory.0.chain(5);
    assert_eq!((again, chain.len()), (head, 2));
    assert_eq!(chain[1].addr, 0x12000);

    let (head, _) = memory.0.chain(0);
    memory.0.write_used(2, head.into(), 256 + 4096 + 1);
    memory.0.set_used_index(3);
    assert!(ring.take_split().is_err());
    assert!(ring.post_split((1, 256), (2, 4096)).is_err());
    let mut left = Vec::new();
    ring.reset(|(addr, _)| left.push(addr));
    assert_eq!(left.len(), 8);
}
