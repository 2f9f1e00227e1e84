// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Every sequence of what a driver and its card can do, up to a length, on rings that are so small
//! that all is soon full, empty or wrapped; compared with a model.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod common;

use std::collections::VecDeque;

use common::{slots, HeapRing};
use vnet_ring::{tx, Slot};

type Tx = tx::Ring<HeapRing, Vec<Slot<(u64, u32), u16>>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The driver fills a chain of so many descriptors.
    Send(u16),
    Publish,
    Reclaim,
    EnableInterrupts,
    DisableInterrupts,
    /// The card gives back the chain that it has had for the longest, or the shortest time.
    CompleteOldest,
    CompleteNewest,
    /// The card wants to be rung for the next chain.
    Sleep,
}

const STEPS: [Step; 9] = [
    Step::Send(1),
    Step::Send(2),
    Step::Publish,
    Step::Reclaim,
    Step::EnableInterrupts,
    Step::DisableInterrupts,
    Step::CompleteOldest,
    Step::CompleteNewest,
    Step::Sleep,
];

/// A ring, and what must be true of it. A chain is known by its cookie and its length.
struct World {
    ring: Tx,
    memory: HeapRing,
    size: u16,
    free: u16,
    /// Chains by where they are: hidden from the card, with it, and given back; the head with them.
    hidden: VecDeque<(u16, u16)>,
    shown: VecDeque<(u16, u16, u16)>,
    given_back: VecDeque<(u16, u16)>,
    /// Indices of the chain that is shown next, that the card takes next, and that comes back next.
    avail: u16,
    used: u16,
    reclaimed: u16,
    avail_event: u16,
    cookie: u16,
}

impl World {
    fn new(size: u16) -> Self {
        let memory = HeapRing::new(size);
        Self {
            ring: Tx::new(memory.clone(), slots(size)).unwrap(),
            memory,
            size,
            free: size,
            hidden: VecDeque::new(),
            shown: VecDeque::new(),
            given_back: VecDeque::new(),
            avail: 0,
            used: 0,
            reclaimed: 0,
            avail_event: 0,
            cookie: 0,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Send(count) => self.send(count),
            Step::Publish => self.publish(),
            Step::Reclaim => self.reclaim(),
            Step::EnableInterrupts => {
                let idle = self.given_back.is_empty();
                assert_eq!(self.ring.enable_interrupts(), idle);
                assert_eq!(self.memory.0.used_event(), self.reclaimed);
            }
            Step::DisableInterrupts => {
                self.ring.disable_interrupts();
                // All that may come back soon passes no event.
                let ahead = self.memory.0.used_event().wrapping_sub(self.reclaimed);
                assert!(ahead >= self.size);
            }
            Step::CompleteOldest => {
                let chain = self.shown.pop_front();
                self.complete(chain);
            }
            Step::CompleteNewest => {
                let chain = self.shown.pop_back();
                self.complete(chain);
            }
            Step::Sleep => {
                self.avail_event = self.avail;
                self.memory.0.set_avail_event(self.avail);
            }
        }
        assert_eq!(self.ring.free(), self.free);
        assert_eq!(self.ring.broken(), None);
        let out = self.hidden.len() + self.shown.len() + self.given_back.len();
        assert_eq!(usize::from(self.ring.in_flight()), out);
        assert_eq!(self.ring.has_used(), !self.given_back.is_empty());
    }

    fn send(&mut self, count: u16) {
        let Some(mut chain) = self.ring.begin(count) else {
            assert!(count > self.free);
            return;
        };
        assert!(count <= self.free);
        for part in 0..count {
            let buffer = (u64::from(self.cookie), u32::from(part) + 1);
            chain.push(buffer).unwrap();
        }
        chain.commit(self.cookie).unwrap();
        self.hidden.push_back((self.cookie, count));
        self.free -= count;
        self.cookie = self.cookie.wrapping_add(1);
    }

    fn publish(&mut self) {
        let before = self.avail;
        for (cookie, count) in self.hidden.drain(..) {
            let (head, descs) = self.memory.0.chain(self.avail);
            let seen = descs.iter().map(|d| (d.addr, d.len));
            assert!(seen.eq((1..=u32::from(count)).map(|len| (cookie.into(), len))));
            self.shown.push_back((head, cookie, count));
            self.avail = self.avail.wrapping_add(1);
        }
        let passed = self.avail.wrapping_sub(before);
        let rings = (0..passed).any(|n| before.wrapping_add(n) == self.avail_event);
        assert_eq!(self.ring.publish(), rings.then_some(self.avail));
        assert_eq!(self.memory.0.avail_index(), self.avail);
    }

    fn complete(&mut self, chain: Option<(u16, u16, u16)>) {
        if let Some((head, cookie, count)) = chain {
            self.memory.0.write_used(self.used, head.into(), 0);
            self.used = self.used.wrapping_add(1);
            self.memory.0.set_used_index(self.used);
            self.given_back.push_back((cookie, count));
        }
    }

    fn reclaim(&mut self) {
        let expected = self.given_back.pop_front();
        if let Some((_, count)) = expected {
            self.free += count;
            self.reclaimed = self.reclaimed.wrapping_add(1);
        }
        let cookie = expected.map(|(cookie, _)| cookie);
        assert_eq!(self.ring.reclaim(), Ok(cookie));
    }

    /// Brings all chains home.
    fn settle(&mut self) {
        self.publish();
        while let Some(chain) = self.shown.pop_front() {
            self.complete(Some(chain));
        }
        while !self.given_back.is_empty() {
            self.reclaim();
        }
        assert_eq!(self.ring.free(), self.size);
    }

    /// Moves the indices on until the next chain has this one.
    fn advance(&mut self, index: u16) {
        while self.avail != index {
            self.send(1);
            self.settle();
        }
    }
}

/// Calls `f` with every sequence of `depth` steps.
fn sequences(depth: u32, mut f: impl FnMut(&[Step])) {
    let count = STEPS.len().pow(depth);
    let mut sequence = vec![STEPS[0]; depth as usize];
    for mut number in 0..count {
        for step in &mut sequence {
            *step = STEPS[number % STEPS.len()];
            number /= STEPS.len();
        }
        f(&sequence);
    }
}

/// One more step in a long run.
fn depth(usual: u32) -> u32 {
    usual + u32::from(std::env::var_os("VNET_LONG").is_some())
}

/// One after the other, so that the indices wrap now and then.
#[test]
fn every_sequence_does_what_the_model_does() {
    for size in [1, 2, 4] {
        let mut world = World::new(size);
        sequences(depth(5), |sequence| {
            sequence.iter().for_each(|&step| world.run(step));
            world.settle();
        });
    }
}

/// All from right before the indices wrap.
#[test]
fn every_sequence_does_so_across_the_end_of_the_indices() {
    let mut world = World::new(2);
    for before in 1..=2u16 {
        sequences(depth(2), |sequence| {
            world.advance(0u16.wrapping_sub(before));
            for step in [Step::Send(1), Step::Publish] {
                world.run(step);
            }
            sequence.iter().for_each(|&step| world.run(step));
            world.settle();
        });
    }
}
