// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ring memory on the heap, with a card's side that may write whatever it likes.
#![allow(dead_code, reason = "each test binary uses a part")]
use std::ops::Deref;
use std::sync::atomic::{fence, AtomicU16, AtomicU64, Ordering};
use std::sync::Arc;

use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_SIZE};
use vnet_ring::{Memory, Slot, Tables, Used};

/// Bus address of the first table, and the distance to the next.
pub(crate) const TABLES: u64 = 0x8000_0000;
pub(crate) const TABLE_STRIDE: u64 = 0x1_0000;

/// The memory that both sides see.
#[derive(Debug)]
pub(crate) struct Shared {
    desc: Vec<[AtomicU64; 2]>,
    avail: Vec<AtomicU16>,
    avail_index: AtomicU16,
    used_event: AtomicU16,
    used: Vec<AtomicU64>,
    used_index: AtomicU16,
    avail_event: AtomicU16,
    layout: Tables,
    tables: Vec<Vec<[AtomicU64; 2]>>,
}

/// The driver's view. A clone is of the same memory, or, if this is in a box, a copy.
#[derive(Clone, Debug)]
pub(crate) struct HeapRing<P = Arc<Shared>>(pub(crate) P);

impl HeapRing {
    pub(crate) fn new(size: u16) -> Self {
        Self::with_tables(size, Tables::NONE)
    }

    pub(crate) fn with_tables(size: u16, layout: Tables) -> Self {
        Self(Arc::new(Shared::new(size, layout)))
    }
}

pub(crate) fn slots<B, T>(size: u16) -> Vec<Slot<B, T>> {
    (0..size).map(|_| Slot::new()).collect()
}

impl<P: Deref<Target = Shared>> Memory for HeapRing<P> {
    fn size(&self) -> u16 {
        self.0.desc.len() as u16
    }

    fn tables(&self) -> Tables {
        self.0.layout
    }

    fn table_address(&self, table: u16) -> u64 {
        assert!(table < self.0.layout.count);
        TABLES + u64::from(table) * TABLE_STRIDE
    }

    fn write_table(&mut self, table: u16, entry: u16, desc: Desc) {
        let words = &self.0.tables[usize::from(table)][usize::from(entry)];
        for (word, value) in words.iter().zip(desc.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn clear(&mut self) {
        let s = &self.0;
        let words = s.desc.iter().flatten().chain(&s.used);
        words.for_each(|w| w.store(0, Ordering::Relaxed));
        let indices = [&s.avail_index, &s.used_event, &s.used_index, &s.avail_event];
        let halves = s.avail.iter().chain(indices);
        halves.for_each(|h| h.store(0, Ordering::Relaxed));
    }

    fn write_desc(&mut self, index: u16, desc: Desc) {
        for (word, value) in self.0.desc[usize::from(index)].iter().zip(desc.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn write_avail(&mut self, entry: u16, head: u16) {
        self.0.avail[usize::from(entry)].store(head, Ordering::Relaxed);
    }

    fn publish_avail_index(&mut self, index: u16) {
        self.0.avail_index.store(index, Ordering::Release);
    }

    fn write_used_event(&mut self, index: u16) {
        self.0.used_event.store(index, Ordering::Relaxed);
    }

    fn used_index(&self) -> u16 {
        self.0.used_index.load(Ordering::Acquire)
    }

    fn used(&self, entry: u16) -> Used {
        let word = self.0.used[usize::from(entry)].load(Ordering::Relaxed);
        Used {
            id: word as u32,
            len: (word >> 32) as u32,
        }
    }

    fn avail_event(&self) -> u16 {
        self.0.avail_event.load(Ordering::Relaxed)
    }

    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Rounds of a property test: many more in a long run of all tests.
pub(crate) fn rounds(usual: u32) -> u32 {
    match std::env::var_os("VNET_LONG") {
        Some(_) => usual * 20,
        None => usual,
    }
}

/// Follows a chain from `index`.
fn walk(table: &[[AtomicU64; 2]], mut index: u16) -> Vec<Desc> {
    let mut list = Vec::new();
    loop {
        let words = &table[usize::from(index)];
        let desc = Desc::from_words([
            words[0].load(Ordering::Relaxed),
            words[1].load(Ordering::Relaxed),
        ]);
        list.push(desc);
        if desc.flags & DESC_F_NEXT == 0 {
            return list;
        }
        assert!(list.len() <= table.len(), "chain loops");
        index = desc.next;
    }
}

impl Shared {
    pub(crate) fn new(size: u16, layout: Tables) -> Self {
        let table = |_| (0..layout.entries).map(|_| Default::default()).collect();
        let n = usize::from(size);
        Self {
            desc: (0..n).map(|_| Default::default()).collect(),
            avail: (0..n).map(|_| AtomicU16::new(0)).collect(),
            avail_index: AtomicU16::new(0),
            used_event: AtomicU16::new(0),
            used: (0..n).map(|_| AtomicU64::new(0)).collect(),
            used_index: AtomicU16::new(0),
            avail_event: AtomicU16::new(0),
            layout,
            tables: (0..layout.count).map(table).collect(),
        }
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        let half = |h: &AtomicU16| AtomicU16::new(h.load(Ordering::Relaxed));
        let word = |w: &AtomicU64| AtomicU64::new(w.load(Ordering::Relaxed));
        let table =
            |t: &Vec<[AtomicU64; 2]>| t.iter().map(|d| [word(&d[0]), word(&d[1])]).collect();
        Self {
            desc: table(&self.desc),
            avail: self.avail.iter().map(half).collect(),
            avail_index: half(&self.avail_index),
            used_event: half(&self.used_event),
            used: self.used.iter().map(word).collect(),
            used_index: half(&self.used_index),
            avail_event: half(&self.avail_event),
            layout: self.layout,
            tables: self.tables.iter().map(table).collect(),
        }
    }
}

/// What a card, honest or not, does to the memory.
impl Shared {
    pub(crate) fn avail_index(&self) -> u16 {
        self.avail_index.load(Ordering::Acquire)
    }

    /// The chain at `avail[entry]`, as the descriptors of the ring link it.
    pub(crate) fn chain(&self, entry: u16) -> (u16, Vec<Desc>) {
        let mask = self.desc.len() as u16 - 1;
        let head = self.avail[usize::from(entry & mask)].load(Ordering::Relaxed);
        (head, walk(&self.desc, head))
    }

    /// The chain in the table that a descriptor points to, as its descriptors link it.
    pub(crate) fn table(&self, desc: Desc) -> Vec<Desc> {
        assert_eq!(desc.flags, DESC_F_INDIRECT);
        assert_eq!(desc.addr % TABLE_STRIDE, 0);
        let table = &self.tables[((desc.addr - TABLES) / TABLE_STRIDE) as usize];
        assert_eq!(desc.len as usize % DESC_SIZE, 0);
        walk(&table[..desc.len as usize / DESC_SIZE], 0)
    }

    pub(crate) fn used_event(&self) -> u16 {
        self.used_event.load(Ordering::Relaxed)
    }

    pub(crate) fn set_avail_event(&self, index: u16) {
        self.avail_event.store(index, Ordering::Relaxed);
    }

    pub(crate) fn write_used(&self, entry: u16, id: u32, len: u32) {
        let place = usize::from(entry) % self.used.len();
        self.used[place].store(u64::from(id) | u64::from(len) << 32, Ordering::Relaxed);
    }

    pub(crate) fn set_used_index(&self, index: u16) {
        self.used_index.store(index, Ordering::Release);
    }

    /// Scribbles over everything that the driver wrote and must not rely on.
    pub(crate) fn scribble(&self, value: u64) {
        let descs = self.desc.iter().chain(self.tables.iter().flatten());
        for word in descs.flatten() {
            word.store(value, Ordering::Relaxed);
        }
        for half in self
            .avail
            .iter()
            .chain([&self.avail_index, &self.used_event])
        {
            half.store(value as u16, Ordering::Relaxed);
        }
    }
}
