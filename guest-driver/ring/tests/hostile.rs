// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card that lies.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod common;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use common::{slots, HeapRing};
use proptest::prelude::*;
use vnet_ring::{rx, tx, Buffer, Memory, Slot, Tables, Violation};

type Tx = tx::Ring<HeapRing, Vec<Slot<(u64, u32), u32>>>;
type Rx = rx::Ring<HeapRing, Vec<Slot<(u64, u32), ()>>>;

fn tx_with(count: u32) -> (Tx, HeapRing) {
    let memory = HeapRing::new(8);
    let mut ring = Tx::new(memory.clone(), slots(8)).unwrap();
    for cookie in 0..count {
        let mut chain = ring.begin(2).unwrap();
        chain.push((0x1000, 12)).unwrap();
        chain.push((0x2000, 60)).unwrap();
        chain.commit(cookie).unwrap();
    }
    let _ = ring.publish();
    (ring, memory)
}

/// The ring is unusable, says why, costs nothing to poll, and a reset repairs it.
fn assert_broken(mut ring: Tx, violation: Violation) {
    assert_eq!(ring.reclaim(), Err(violation));
    assert_eq!(ring.reclaim(), Err(violation));
    assert_eq!(ring.broken(), Some(violation));
    assert!(ring.begin(1).is_none());
    assert!(!ring.has_used());
    assert!(ring.enable_interrupts(), "a poll loop must end");
    assert!(ring.enable_interrupts_delayed());
    assert_eq!(ring.publish(), None);
    let held = ring.in_flight();
    let mut back = 0;
    ring.reset(|_| back += 1);
    assert_eq!(back, held);
    assert_eq!(ring.broken(), None);
    assert_eq!(ring.free(), 8);
    assert!(ring.begin(8).is_some());
}

#[test]
fn used_index_that_jumps() {
    for index in [3, 4, 100, 0x8000, u16::MAX] {
        let (ring, memory) = tx_with(2);
        memory.0.set_used_index(index);
        assert_broken(ring, Violation::UsedIndex { index, last: 0 });
    }
}

#[test]
fn used_index_that_counts_unpublished_chains() {
    let (mut ring, memory) = tx_with(1);
    let mut chain = ring.begin(1).unwrap();
    chain.push((0x3000, 60)).unwrap();
    chain.commit(9).unwrap();
    memory.0.set_used_index(2);
    assert_broken(ring, Violation::UsedIndex { index: 2, last: 0 });
}

#[test]
fn used_index_that_runs_back() {
    let (mut ring, memory) = tx_with(2);
    let (head, _) = memory.0.chain(0);
    memory.0.write_used(0, u32::from(head), 0);
    memory.0.set_used_index(1);
    assert_eq!(ring.reclaim(), Ok(Some(0)));
    memory.0.set_used_index(0);
    assert_broken(ring, Violation::UsedIndex { index: 0, last: 1 });
}

#[test]
fn used_id_out_of_range() {
    for id in [8, 0x1_0000, 0x1_0001, u32::MAX] {
        let (ring, memory) = tx_with(1);
        memory.0.write_used(0, id, 0);
        memory.0.set_used_index(1);
        assert_broken(ring, Violation::IdRange(id));
    }
}

#[test]
fn used_id_that_is_free_or_no_head() {
    let (_, memory) = tx_with(1);
    let (head, chain) = memory.0.chain(0);
    for id in (0..8).filter(|&id| id != head) {
        let (ring, memory) = tx_with(1);
        memory.0.write_used(0, u32::from(id), 0);
        memory.0.set_used_index(1);
        assert_broken(ring, Violation::IdNotHeld(id));
    }
    assert_ne!(chain[0].next, head, "the loop above covered a middle");
}

#[test]
fn used_id_twice() {
    let (mut ring, memory) = tx_with(2);
    let (head, _) = memory.0.chain(0);
    memory.0.write_used(0, u32::from(head), 0);
    memory.0.write_used(1, u32::from(head), 0);
    memory.0.set_used_index(2);
    assert_eq!(ring.reclaim(), Ok(Some(0)));
    assert_broken(ring, Violation::IdNotHeld(head));
}

/// Gives the id of the first chain `times` times.
fn give_first_back(memory: &HeapRing, times: u16) -> u16 {
    let (head, _) = memory.0.chain(0);
    for entry in 0..times {
        memory.0.write_used(entry, u32::from(head), 0);
    }
    memory.0.set_used_index(times);
    head
}

#[test]
fn used_id_twice_while_another_chain_begins_with_it() {
    let (mut ring, memory) = tx_with(2);
    let head = give_first_back(&memory, 1);
    assert_eq!(ring.reclaim(), Ok(Some(0)));
    let mut chain = ring.begin(2).unwrap();
    assert_eq!(chain.head(), head, "the test is about this");
    chain.push((0x3000, 60)).unwrap();
    chain.commit(2).unwrap();
    // The card cannot be done with what it has not seen.
    give_first_back(&memory, 2);
    assert_broken(ring, Violation::IdNotHeld(head));
}

/// A receive ring of 4 with two buffers that the card has.
fn rx_with_two() -> (Rx, HeapRing) {
    let memory = HeapRing::new(4);
    let mut ring = Rx::new(memory.clone(), slots(4)).unwrap();
    for n in 1..=2 {
        ring.post((n, 2048)).unwrap();
    }
    let _ = ring.publish();
    (ring, memory)
}

#[test]
fn used_id_twice_of_a_buffer_that_is_posted_again() {
    let (mut ring, memory) = rx_with_two();
    let head = give_first_back(&memory, 2);
    assert_eq!(ring.peek(), Ok(Some((&(1, 2048), 0))));
    assert!(ring.repost());
    assert_eq!(ring.peek(), Err(Violation::IdNotHeld(head)));
}

#[test]
fn used_id_twice_of_a_descriptor_with_another_buffer() {
    let (mut ring, memory) = rx_with_two();
    let head = give_first_back(&memory, 2);
    assert_eq!(ring.take(), Ok(Some(((1, 2048), 0))));
    ring.post((3, 1024)).unwrap();
    assert_eq!(ring.take(), Err(Violation::IdNotHeld(head)));
}

/// Out of order as much as a card can be, and not to be blamed for it.
#[test]
fn a_chain_may_be_kept_while_the_indices_wrap() {
    let (mut ring, memory) = rx_with_two();
    let heads = [0, 1].map(|entry| memory.0.chain(entry).0);
    // The first is at 0; the other goes round until, modulo 2^16, one is entered there again.
    for used in 0..u16::MAX {
        memory.0.write_used(used, heads[1].into(), 0);
        memory.0.set_used_index(used.wrapping_add(1));
        assert_eq!(ring.peek(), Ok(Some((&(2, 2048), 0))));
        assert!(ring.repost());
        if used < u16::MAX - 1 {
            let _ = ring.publish();
        }
    }
    memory.0.write_used(u16::MAX, heads[0].into(), 0);
    memory.0.set_used_index(0);
    assert_eq!(ring.peek(), Ok(Some((&(1, 2048), 0))));
}

#[test]
fn used_length_beyond_the_writable_bytes() {
    let (ring, memory) = tx_with(1);
    let (head, _) = memory.0.chain(0);
    memory.0.write_used(0, u32::from(head), 1);
    memory.0.set_used_index(1);
    let violation = Violation::Length {
        id: head,
        len: 1,
        posted: 0,
    };
    assert_broken(ring, violation);

    for (len, ok) in [(2048, true), (2049, false), (u32::MAX, false)] {
        let memory = HeapRing::new(4);
        let mut ring = Rx::new(memory.clone(), slots(4)).unwrap();
        ring.post((0x1000, 2048)).unwrap();
        let _ = ring.publish();
        let (head, _) = memory.0.chain(0);
        memory.0.write_used(0, u32::from(head), len);
        memory.0.set_used_index(1);
        assert_eq!(ring.take().is_ok(), ok, "{len}");
    }
}

#[test]
fn driver_memory_is_never_believed() {
    let (mut ring, memory) = tx_with(4);
    let heads: Vec<u16> = (0..4).map(|i| memory.0.chain(i).0).collect();
    memory.0.scribble(0xdead_beef_ffff_ffff);
    for (i, head) in heads.iter().enumerate() {
        memory.0.write_used(i as u16, u32::from(*head), 0);
    }
    memory.0.set_used_index(4);
    for cookie in 0..4 {
        assert_eq!(ring.reclaim(), Ok(Some(cookie)));
    }
    // The descriptors that came back are all there and form chains again.
    let mut chain = ring.begin(8).unwrap();
    for i in 0..8 {
        chain.push((i, 1)).unwrap();
    }
    chain.commit(4).unwrap();
    let _ = ring.publish();
    let addrs: Vec<u64> = memory.0.chain(4).1.iter().map(|d| d.addr).collect();
    assert_eq!(addrs, (0..8).collect::<Vec<_>>());
}

/// A ring of 8 with two tables, in which the chains with cookie 0 and 1 lie.
fn tx_with_tables() -> (Tx, HeapRing) {
    let tables = Tables {
        count: 2,
        entries: 6,
    };
    let memory = HeapRing::with_tables(8, tables);
    let mut ring = Tx::new(memory.clone(), slots(8 + tables.slots() as u16)).unwrap();
    for cookie in 0..2 {
        let mut chain = ring.begin(6).unwrap();
        assert!(chain.is_indirect());
        for i in 0..6 {
            chain.push((0x1000 + i, 60)).unwrap();
        }
        chain.commit(cookie).unwrap();
    }
    let _ = ring.publish();
    (ring, memory)
}

#[test]
fn used_id_that_would_be_a_descriptor_of_a_table() {
    for id in 8..8 + 2 * 6 {
        let (ring, memory) = tx_with_tables();
        memory.0.write_used(0, id, 0);
        memory.0.set_used_index(1);
        assert_broken(ring, Violation::IdRange(id));
    }
}

#[test]
fn used_id_twice_of_a_chain_in_a_table() {
    let (mut ring, memory) = tx_with_tables();
    let (head, _) = memory.0.chain(1);
    memory.0.write_used(0, u32::from(head), 0);
    memory.0.write_used(1, u32::from(head), 0);
    memory.0.set_used_index(2);
    assert_eq!(ring.reclaim(), Ok(Some(1)));
    assert_broken(ring, Violation::IdNotHeld(head));
}

#[test]
fn tables_are_never_believed() {
    for value in [0, u64::MAX, 0x8001_0000_8001_0000] {
        let (mut ring, memory) = tx_with_tables();
        let heads = [1, 0].map(|entry| memory.0.chain(entry).0);
        memory.0.scribble(value);
        for (i, head) in heads.iter().enumerate() {
            memory.0.write_used(i as u16, u32::from(*head), 0);
        }
        memory.0.set_used_index(2);
        assert_eq!(ring.reclaim(), Ok(Some(1)));
        assert_eq!(ring.reclaim(), Ok(Some(0)));
        assert_eq!(ring.free(), 8);
        // Both tables are free again, and no two chains get the same.
        for cookie in 2..4 {
            let mut chain = ring.begin(6).unwrap();
            for i in 0..6 {
                chain.push((0x2000 + i, 1)).unwrap();
            }
            chain.commit(cookie).unwrap();
        }
        let at = [2, 3].map(|entry| memory.0.chain(entry).1[0].addr);
        assert_ne!(at[0], at[1]);
    }
}

/// What a card may write, right or wrong.
#[derive(Clone, Debug)]
enum Lie {
    Used { entry: u16, id: u32, len: u32 },
    UsedIndex(u16),
    AvailEvent(u16),
    Scribble(u64),
}

fn lies() -> impl Strategy<Value = Lie> {
    let id = prop_oneof![8 => 0u32..8, 1 => any::<u32>()];
    let len = prop_oneof![8 => Just(0u32), 1 => any::<u32>()];
    let index = prop_oneof![8 => 0u16..24, 1 => any::<u16>()];
    prop_oneof![
        4 => (0u16..8, id, len).prop_map(|(entry, id, len)| Lie::Used { entry, id, len }),
        4 => index.prop_map(Lie::UsedIndex),
        1 => any::<u16>().prop_map(Lie::AvailEvent),
        1 => any::<u64>().prop_map(Lie::Scribble),
    ]
}

impl Lie {
    fn tell(self, memory: &HeapRing) {
        match self {
            Self::Used { entry, id, len } => memory.0.write_used(entry, id, len),
            Self::UsedIndex(index) => memory.0.set_used_index(index),
            Self::AvailEvent(index) => memory.0.set_avail_event(index),
            Self::Scribble(value) => memory.0.scribble(value),
        }
    }
}

#[derive(Clone, Debug)]
enum Move {
    Send(u16),
    Publish,
    Reclaim(u8),
    Arm(bool),
    Disarm,
    Card(Lie),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (1u16..9).prop_map(Move::Send),
        4 => Just(Move::Publish),
        4 => (1u8..9).prop_map(Move::Reclaim),
        1 => any::<bool>().prop_map(Move::Arm),
        1 => Just(Move::Disarm),
        10 => lies().prop_map(Move::Card),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::rounds(2000), failure_persistence: None, ..Default::default() })]

    /// Whatever the card writes: no panic, no cookie lost or given twice, no descriptor lost, and none
    /// taken back that the card was not shown.
    #[test]
    fn nothing_is_lost_or_given_twice(count in 0u16..4, list in prop::collection::vec(moves(), 1..120)) {
        let tables = Tables { count, entries: 7 };
        let memory = HeapRing::with_tables(8, tables);
        let mut ring = Tx::new(memory.clone(), slots(8 + tables.slots() as u16)).unwrap();
        let (mut hidden, mut held) = (HashSet::new(), HashSet::new());
        let mut descriptors = HashMap::new();
        let mut next = 0;
        for step in list {
            match step {
                Move::Send(count) => {
                    let room = ring.has_room(count);
                    let chain = ring.begin(count);
                    prop_assert_eq!(chain.is_some(), room);
                    if let Some(mut chain) = chain {
                        let taken = if chain.is_indirect() { 1 } else { count };
                        for _ in 0..count {
                            chain.push((0x1000, 60)).unwrap();
                        }
                        chain.commit(next).unwrap();
                        hidden.insert(next);
                        descriptors.insert(next, taken);
                        next += 1;
                    }
                }
                Move::Publish => {
                    let _ = ring.publish();
                    if ring.broken().is_none() {
                        held.extend(hidden.drain());
                    }
                }
                Move::Reclaim(times) => for _ in 0..times {
                    match ring.reclaim() {
                        Ok(Some(cookie)) => prop_assert!(held.remove(&cookie)),
                        Ok(None) => break,
                        Err(violation) => prop_assert_eq!(ring.broken(), Some(violation)),
                    }
                },
                Move::Arm(delayed) => {
                    let _ = if delayed { ring.enable_interrupts_delayed() } else { ring.enable_interrupts() };
                }
                Move::Disarm => ring.disable_interrupts(),
                Move::Card(lie) => lie.tell(&memory),
            }
            let out: u16 = held.union(&hidden).map(|c| descriptors[c]).sum();
            prop_assert_eq!(ring.free() + out, 8);
            prop_assert_eq!(usize::from(ring.in_flight()), held.len() + hidden.len());
        }
        held.extend(hidden);
        ring.reset(|cookie| assert!(held.remove(&cookie)));
        prop_assert!(held.is_empty());
        prop_assert_eq!(ring.free(), 8);
        for _ in 0..count {
            let mut chain = ring.begin(7).unwrap();
            prop_assert!(chain.is_indirect(), "a table is lost");
            chain.push((0x1000, 60)).unwrap();
            chain.commit(0).unwrap();
        }
    }
}

/// Moves of a driver that receives, and of its card.
#[derive(Clone, Debug)]
enum RxMove {
    /// Posts a buffer, or one with another for headers.
    Post {
        split: bool,
    },
    Publish,
    Peek,
    Repost,
    /// Takes a chain as what it is, or as what it is not.
    Take {
        rightly: bool,
    },
    Arm,
    Disarm,
    Reset,
    /// The card is done with a chain: that with this id, whatever it is.
    Complete(u16),
    Card(Lie),
}

fn rx_moves() -> impl Strategy<Value = RxMove> {
    let rightly = prop_oneof![8 => Just(true), 1 => Just(false)];
    prop_oneof![
        8 => any::<bool>().prop_map(|split| RxMove::Post { split }),
        4 => Just(RxMove::Publish),
        4 => Just(RxMove::Peek),
        4 => Just(RxMove::Repost),
        4 => rightly.prop_map(|rightly| RxMove::Take { rightly }),
        1 => Just(RxMove::Arm),
        1 => Just(RxMove::Disarm),
        1 => Just(RxMove::Reset),
        8 => (0u16..8).prop_map(RxMove::Complete),
        1 => lies().prop_map(RxMove::Card),
    ]
}

/// A buffer with a number of its own, which says where it is gone to when it is dropped.
#[derive(Debug)]
struct Numbered(u64, Rc<RefCell<Vec<u64>>>);

impl Buffer for Numbered {
    fn addr(&self) -> u64 {
        self.0
    }

    fn length(&self) -> u32 {
        1024
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

/// A receive ring of 8, and what must be true of it. A chain is known by its first buffer; the second has
/// the next number.
struct Receiver {
    ring: rx::Ring<HeapRing, Vec<Slot<Numbered, ()>>>,
    memory: HeapRing,
    dropped: Rc<RefCell<Vec<u64>>>,
    next: u64,
    /// Buffers of each chain that the card was not shown yet, and of each that it was.
    hidden: HashMap<u64, u16>,
    shown: HashMap<u64, u16>,
    peeked: Option<u64>,
}

impl Receiver {
    fn new() -> Self {
        let memory = HeapRing::new(8);
        Self {
            ring: rx::Ring::new(memory.clone(), slots(8)).unwrap(),
            memory,
            dropped: Rc::default(),
            next: 0,
            hidden: HashMap::new(),
            shown: HashMap::new(),
            peeked: None,
        }
    }

    fn post(&mut self, split: bool) {
        let buffer = |number| Numbered(number, self.dropped.clone());
        let (first, second) = (buffer(self.next), split.then(|| buffer(self.next + 1)));
        let posted = match second {
            Some(second) => self.ring.post_split(first, second).is_ok(),
            None => self.ring.post(first).is_ok(),
        };
        if posted {
            self.hidden.insert(self.next, 1 + u16::from(split));
        }
        self.next += 2;
        self.dropped.borrow_mut().clear();
    }

    fn peek(&mut self) {
        let before = self.peeked;
        self.peeked = match self.ring.peek() {
            Ok(Some((buffer, len))) => {
                assert!(u32::from(self.shown[&buffer.0]) * 1024 >= len);
                Some(buffer.0)
            }
            Ok(None) | Err(_) => None,
        };
        assert!(before.is_none() || before == self.peeked);
    }

    fn repost(&mut self) {
        assert_eq!(self.ring.repost(), self.peeked.is_some());
        if let Some(first) = self.peeked.take() {
            let count = self.shown.remove(&first).unwrap();
            self.hidden.insert(first, count);
        }
    }

    fn take(&mut self, rightly: bool) {
        // To know what there is to take.
        self.peek();
        let Some(first) = self.peeked.take() else {
            return;
        };
        let count = self.shown.remove(&first).unwrap();
        let mut back = Vec::new();
        if (count == 1) == rightly {
            let (buffer, _) = self.ring.take().unwrap().unwrap();
            back.push(buffer.0);
        } else if let Some((head, payload, _)) = self.ring.take_split().unwrap() {
            back.extend([head.0, payload.0]);
        }
        // What is not given back is dropped; what is, was just now.
        let all: Vec<u64> = (first..).take(count.into()).collect();
        let mut dropped = self.dropped.take();
        dropped.sort_unstable();
        assert_eq!(dropped, all);
        assert!(!rightly || back == all);
    }

    /// Every buffer comes back, once.
    fn reset(&mut self) {
        let mut back = Vec::new();
        self.ring.reset(|buffer| back.push(buffer.0));
        let chains = self.hidden.drain().chain(self.shown.drain());
        let mut all: Vec<u64> = chains
            .flat_map(|(first, count)| (first..).take(count.into()))
            .collect();
        all.sort_unstable();
        back.sort_unstable();
        assert_eq!(back, all);
        self.dropped.borrow_mut().clear();
        self.peeked = None;
    }

    fn run(&mut self, step: RxMove) {
        match step {
            RxMove::Post { split } => self.post(split),
            RxMove::Publish => {
                let _ = self.ring.publish();
                if self.ring.broken().is_none() {
                    self.shown.extend(self.hidden.drain());
                }
            }
            RxMove::Peek => self.peek(),
            RxMove::Repost => self.repost(),
            RxMove::Take { rightly } => self.take(rightly),
            RxMove::Arm => {
                let _ = self.ring.enable_interrupts();
            }
            RxMove::Disarm => self.ring.disable_interrupts(),
            RxMove::Reset => self.reset(),
            RxMove::Complete(id) => {
                let used = self.memory.used_index();
                self.memory.0.write_used(used, id.into(), 1);
                self.memory.0.set_used_index(used.wrapping_add(1));
            }
            RxMove::Card(lie) => lie.tell(&self.memory),
        }
        assert_eq!(*self.dropped.borrow(), []);
        let out = self.hidden.values().chain(self.shown.values());
        assert_eq!(self.ring.free() + out.sum::<u16>(), 8);
        let chains = self.hidden.len() + self.shown.len() - usize::from(self.peeked.is_some());
        assert_eq!(usize::from(self.ring.in_flight()), chains);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::rounds(2000), failure_persistence: None, ..Default::default() })]

    /// Whatever the card writes: no panic, no buffer lost or given back twice, and none that the card
    /// was not shown.
    #[test]
    fn no_buffer_is_lost_or_given_twice(list in prop::collection::vec(rx_moves(), 1..200)) {
        let mut receiver = Receiver::new();
        for step in list {
            receiver.run(step);
        }
        receiver.reset();
        prop_assert_eq!(receiver.ring.free(), 8);
    }
}
