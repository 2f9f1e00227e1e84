// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The ring against an independent device side: rust-vmm's `virtio-queue`, over guest memory.
//! Random interleavings on small rings, with index 0 and just before both wrap-arounds as start.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{fence, Ordering};

use common::slots;
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vnet_contract::ring as layout;
use vnet_contract::ring::{Desc, DESC_F_NEXT, DESC_F_WRITE};
use vnet_ring::{rx, tx, Memory, Slot, Tables, Used};

const DESC: u64 = 0x0000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const TABLE_STRIDE: u64 = 0x400;
const BUFFERS: u64 = 0x1_0000;
const MEMORY: usize = 0x2_0000;

/// Ring memory inside guest memory, at the offsets that the contract gives.
#[derive(Clone)]
struct GuestRing {
    memory: GuestMemoryMmap<()>,
    size: u16,
    tables: Tables,
}

impl GuestRing {
    fn new(size: u16, tables: Tables) -> Self {
        let ranges = [(GuestAddress(0), MEMORY)];
        Self {
            memory: GuestMemoryMmap::from_ranges(&ranges).unwrap(),
            size,
            tables,
        }
    }

    fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_desc_table_address(Some(DESC as u32), Some(0));
        queue.set_avail_ring_address(Some(AVAIL as u32), Some(0));
        queue.set_used_ring_address(Some(USED as u32), Some(0));
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    fn store16(&self, addr: u64, value: u16, order: Ordering) {
        self.memory
            .store(value.to_le(), GuestAddress(addr), order)
            .unwrap();
    }

    fn load16(&self, addr: u64, order: Ordering) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(addr), order).unwrap())
    }

    fn store_desc(&self, table: u64, index: u16, desc: Desc) {
        let addr = table + u64::from(index) * layout::DESC_SIZE as u64;
        for (word, at) in desc.to_words().into_iter().zip([addr, addr + 8]) {
            self.memory
                .store(word.to_le(), GuestAddress(at), Ordering::Relaxed)
                .unwrap();
        }
    }
}

impl Memory for GuestRing {
    fn size(&self) -> u16 {
        self.size
    }

    fn tables(&self) -> Tables {
        self.tables
    }

    fn table_address(&self, table: u16) -> u64 {
        TABLES + u64::from(table) * TABLE_STRIDE
    }

    fn write_table(&mut self, table: u16, entry: u16, desc: Desc) {
        assert!(table < self.tables.count && entry < self.tables.entries);
        self.store_desc(self.table_address(table), entry, desc);
    }

    fn clear(&mut self) {
        self.memory
            .write_slice(&[0; BUFFERS as usize], GuestAddress(0))
            .unwrap();
    }

    fn write_desc(&mut self, index: u16, desc: Desc) {
        self.store_desc(DESC, index, desc);
    }

    fn write_avail(&mut self, entry: u16, head: u16) {
        let at = layout::RING_ENTRIES + usize::from(entry) * layout::AVAIL_ENTRY_SIZE;
        self.store16(AVAIL + at as u64, head, Ordering::Relaxed);
    }

    fn publish_avail_index(&mut self, index: u16) {
        self.store16(AVAIL + layout::RING_IDX as u64, index, Ordering::Release);
    }

    fn write_used_event(&mut self, index: u16) {
        let at = layout::used_event_offset(self.size) as u64;
        self.store16(AVAIL + at, index, Ordering::Relaxed);
    }

    fn used_index(&self) -> u16 {
        self.load16(USED + layout::RING_IDX as u64, Ordering::Acquire)
    }

    fn used(&self, entry: u16) -> Used {
        let at = layout::RING_ENTRIES + usize::from(entry) * layout::USED_ENTRY_SIZE;
        let load = |at: usize| {
            let addr = GuestAddress(USED + at as u64);
            u32::from_le(self.memory.load(addr, Ordering::Relaxed).unwrap())
        };
        Used {
            id: load(at),
            len: load(at + 4),
        }
    }

    fn avail_event(&self) -> u16 {
        let at = layout::avail_event_offset(self.size) as u64;
        self.load16(USED + at, Ordering::Relaxed)
    }

    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }
}

type Buffers = Vec<(u64, u32)>;
type Tx = tx::Ring<GuestRing, Vec<Slot<(u64, u32), u32>>>;
type Rx = rx::Ring<GuestRing, Vec<Slot<(u64, u32), ()>>>;

/// Both sides of one transmit ring and what each must see next.
struct World {
    shared: GuestRing,
    ring: Tx,
    queue: Queue,
    next: u32,
    /// Chains committed, not published.
    hidden: VecDeque<(u32, Buffers)>,
    /// Chains published, not popped by the device.
    shown: VecDeque<(u32, Buffers)>,
    /// Chains that the device works on.
    popped: Vec<(u16, u32)>,
    /// Chains that the device is done with, in its order.
    done: VecDeque<u32>,
    /// The device found nothing and waits for the doorbell.
    asleep: bool,
    /// Chains that may still come back before the one that owes an interrupt.
    armed: Option<u16>,
    /// The driver has not asked for an interrupt since it last said that it wants none.
    disarmed: bool,
}

impl World {
    fn new(size: u16, tables: u16, start: u32) -> Self {
        let tables = Tables {
            count: tables,
            entries: size.min(9),
        };
        let shared = GuestRing::new(size, tables);
        let count = size + tables.slots() as u16;
        let mut world = Self {
            ring: Tx::new(shared.clone(), slots(count)).unwrap(),
            queue: shared.queue(),
            shared,
            next: 0,
            hidden: VecDeque::new(),
            shown: VecDeque::new(),
            popped: Vec::new(),
            done: VecDeque::new(),
            asleep: false,
            armed: None,
            disarmed: false,
        };
        for _ in 0..start {
            world.send(&[60]);
            world.publish();
            world.pop();
            world.complete(0);
            world.reclaim();
        }
        // The event indices of the start are as stale as they get.
        world
            .queue
            .needs_notification(&world.shared.memory)
            .unwrap();
        world
    }

    fn send(&mut self, lens: &[u32]) {
        let free = usize::from(self.ring.free());
        let Some(mut chain) = self.ring.begin(lens.len() as u16) else {
            assert!(usize::from(self.ring.free()) < lens.len());
            return;
        };
        let most = usize::from(tx::MAX_DIRECT);
        assert!(lens.len() > most || !chain.is_indirect() || lens.len() > free);
        let mut buffers = Buffers::new();
        for &len in lens {
            let buffer = (BUFFERS + u64::from(self.next % 1000), len);
            chain.push(buffer).unwrap();
            buffers.push(buffer);
        }
        chain.commit(self.next).unwrap();
        self.hidden.push_back((self.next, buffers));
        self.next += 1;
    }

    fn publish(&mut self) {
        let fresh = !self.hidden.is_empty();
        self.shown.append(&mut self.hidden);
        let doorbell = self.ring.publish();
        if fresh && self.asleep {
            assert!(doorbell.is_some(), "the device sleeps on");
            self.asleep = false;
        }
        if let Some(value) = doorbell {
            assert!(fresh, "a doorbell for nothing");
            assert_eq!(value, self.next as u16);
        }
    }

    fn pop(&mut self) {
        let popped = self.queue.pop_descriptor_chain(&self.shared.memory);
        let Some(chain) = popped else {
            assert!(self.shown.is_empty(), "published but not seen");
            return;
        };
        let head = chain.head_index();
        let seen: Vec<_> = chain.collect();
        let (cookie, buffers) = self.shown.pop_front().expect("seen but not published");
        let got: Buffers = seen.iter().map(|d| (d.addr().0, d.len())).collect();
        assert_eq!(got, buffers);
        assert!(seen.iter().all(|d| d.flags() & !DESC_F_NEXT == 0));
        self.popped.push((head, cookie));
        self.asleep = false;
    }

    fn complete(&mut self, pick: usize) {
        if self.popped.is_empty() {
            return;
        }
        let (head, cookie) = self.popped.remove(pick % self.popped.len());
        let memory = &self.shared.memory;
        self.queue.add_used(memory, head, 0).unwrap();
        self.done.push_back(cookie);
        let interrupt = self.queue.needs_notification(memory).unwrap();
        match self.armed {
            Some(0) => {
                assert!(interrupt, "the interrupt that was asked for is lost");
                self.armed = None;
            }
            Some(n) => {
                assert!(!interrupt, "too early");
                self.armed = Some(n - 1);
            }
            None => assert!(!(interrupt && self.disarmed), "not asked for"),
        }
    }

    fn sleep(&mut self) {
        let more = self.queue.enable_notification(&self.shared.memory).unwrap();
        assert_eq!(more, !self.shown.is_empty());
        self.asleep = !more;
    }

    fn reclaim(&mut self) {
        assert_eq!(self.ring.has_used(), !self.done.is_empty());
        assert_eq!(self.ring.reclaim(), Ok(self.done.pop_front()));
    }

    fn arm(&mut self, delayed: bool) {
        let after = if delayed {
            let out = self.shown.len() + self.popped.len() + self.done.len();
            (out * 3 / 4) as u16
        } else {
            0
        };
        let armed = if delayed {
            self.ring.enable_interrupts_delayed()
        } else {
            self.ring.enable_interrupts()
        };
        let done = self.done.len() as u16;
        assert_eq!(armed, done <= after);
        self.armed = armed.then(|| after - done);
        self.disarmed = false;
    }

    fn disarm(&mut self) {
        self.ring.disable_interrupts();
        self.armed = None;
        self.disarmed = true;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u32>),
    Publish,
    Pop,
    Complete(usize),
    Sleep,
    Reclaim,
    Arm(bool),
    Disarm,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(1u32..2000, 1..12).prop_map(Step::Send),
        3 => Just(Step::Publish),
        3 => Just(Step::Pop),
        3 => any::<usize>().prop_map(Step::Complete),
        1 => Just(Step::Sleep),
        3 => Just(Step::Reclaim),
        1 => any::<bool>().prop_map(Step::Arm),
        1 => Just(Step::Disarm),
    ];
    prop::collection::vec(step, 1..200)
}

fn play(size: u16, tables: u16, start: u32, list: &[Step]) {
    let mut world = World::new(size, tables, start);
    for step in list {
        match step {
            Step::Send(lens) => world.send(lens),
            Step::Publish => world.publish(),
            Step::Pop => world.pop(),
            Step::Complete(pick) => world.complete(*pick),
            Step::Sleep => world.sleep(),
            Step::Reclaim => world.reclaim(),
            Step::Arm(delayed) => world.arm(*delayed),
            Step::Disarm => world.disarm(),
        }
    }
    // Let everything run out: nothing may be stuck.
    world.publish();
    while !world.shown.is_empty() {
        world.pop();
    }
    while !world.popped.is_empty() {
        world.complete(0);
    }
    while !world.done.is_empty() {
        world.reclaim();
    }
    assert_eq!((world.ring.free(), world.ring.in_flight()), (size, 0));
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: common::rounds(cases),
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn transmit_from_index_zero(bits in 0u32..6, tables in 0u16..5, list in steps()) {
        play(1 << bits, tables, 0, &list);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn transmit_across_the_sign_of_the_index(bits in 0u32..4, tables in 0u16..3, before in 1u32..20, list in steps()) {
        play(1 << bits, tables, 0x8000 - before, &list);
    }

    #[test]
    fn transmit_across_the_wrap_of_the_index(bits in 0u32..4, tables in 0u16..3, before in 1u32..20, list in steps()) {
        play(1 << bits, tables, 0x1_0000 - before, &list);
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// Receive: the device fills posted buffers in any order and to any extent.
    #[test]
    fn receive(bits in 0u32..6, list in prop::collection::vec((1u32..4096, 0usize..8, any::<u32>(), 0u8..4), 1..300)) {
        let size = 1u16 << bits;
        let shared = GuestRing::new(size, Tables::NONE);
        let mut ring = Rx::new(shared.clone(), slots(size)).unwrap();
        let mut queue = shared.queue();
        let mut popped = Vec::new();
        let mut done = VecDeque::new();
        let mut posted = VecDeque::new();
        for (n, (len, pick, fill, what)) in list.into_iter().enumerate() {
            match what {
                0 | 1 => {
                    let buffer = (BUFFERS + n as u64, len);
                    match ring.post(buffer) {
                        Ok(()) => posted.push_back(buffer),
                        Err(back) => {
                            prop_assert_eq!(back, buffer);
                            prop_assert_eq!(ring.free(), 0);
                        }
                    }
                    let _ = ring.publish();
                }
                2 => while let Some(mut chain) = queue.pop_descriptor_chain(&shared.memory) {
                    let head = chain.head_index();
                    let desc = chain.next().unwrap();
                    prop_assert_eq!(desc.flags(), DESC_F_WRITE);
                    let buffer = (desc.addr().0, desc.len());
                    prop_assert_eq!(Some(buffer), posted.pop_front());
                    prop_assert!(chain.next().is_none());
                    popped.push((head, buffer));
                },
                _ => {
                    if !popped.is_empty() {
                        let (head, buffer) = popped.remove(pick % popped.len());
                        let len = fill % (buffer.1 + 1);
                        queue.add_used(&shared.memory, head, len).unwrap();
                        done.push_back((buffer, len));
                    }
                    if fill % 4 == 0 {
                        prop_assert_eq!(ring.take().unwrap(), done.pop_front());
                    }
                    if fill % 4 == 1 {
                        let shown = ring.peek().unwrap().map(|(buffer, len)| (*buffer, len));
                        prop_assert_eq!(shown, done.front().copied());
                        if let Some((buffer, _)) = done.pop_front() {
                            prop_assert!(ring.repost());
                            posted.push_back(buffer);
                            let _ = ring.publish();
                        }
                    }
                }
            }
        }
        while let Some(expected) = done.pop_front() {
            prop_assert_eq!(ring.take().unwrap(), Some(expected));
        }
        prop_assert_eq!(ring.take().unwrap(), None);
    }
}
