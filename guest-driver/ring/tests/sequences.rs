// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Every sequence of what a driver and its card can do, up to a length, on rings that are so small
//! that all is soon full, empty or wrapped; compared with a model.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod common;

use std::collections::VecDeque;

use common::{slots, HeapRing, Shared};
use vnet_contract::ring::DESC_F_WRITE;
use vnet_ring::{rx, tx, Slot, Tables, Violation};

/// Memory that is copied with its ring.
type Memory = HeapRing<Box<Shared>>;
type Buffer = (u64, u32);
type Tx = tx::Ring<Memory, Vec<Slot<Buffer, u16>>>;
type Rx = rx::Ring<Memory, Vec<Slot<Buffer, ()>>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The driver enters a chain of so many descriptors.
    Enter(u16),
    Publish,
    Take,
    /// It looks at what it would take, and gives that to the card again.
    Peek,
    Repost,
    EnableInterrupts,
    DisableInterrupts,
    /// The card gives back the chain that it has had for the longest, or the shortest time.
    CompleteOldest,
    CompleteNewest,
    /// The card wants to be rung for the next chain.
    Sleep,
}

/// A ring of one direction. All buffers of a chain have its cookie for their address, and their place in
/// it for their length.
trait Ring: Clone {
    const STEPS: &'static [Step];
    /// The flag of its descriptors, and what the card says it wrote into each.
    const WRITE: u16;
    const WRITTEN: u32;

    fn with(memory: Memory, size: u16) -> Self;
    /// False if there is no room.
    fn enter(&mut self, cookie: u16, count: u16) -> bool;
    /// Takes the next chain, which is of so many descriptors if there is one.
    fn take(&mut self, count: u16) -> Result<Option<u16>, Violation>;
    fn peek(&mut self) -> Option<u16>;
    fn repost(&mut self) -> bool;

    fn memory(&self) -> &Shared;
    fn free(&self) -> u16;
    fn in_flight(&self) -> u16;
    fn broken(&self) -> Option<Violation>;
    fn has_used(&self) -> bool;
    fn publish(&mut self) -> Option<u16>;
    fn enable_interrupts(&mut self) -> bool;
    fn disable_interrupts(&mut self);
}

/// What both directions have.
macro_rules! inherent {
    () => {
        fn with(memory: Memory, size: u16) -> Self {
            Self::new(memory, slots(size)).unwrap()
        }
        fn memory(&self) -> &Shared {
            &Self::memory(self).0
        }
        fn free(&self) -> u16 {
            Self::free(self)
        }
        fn in_flight(&self) -> u16 {
            Self::in_flight(self)
        }
        fn broken(&self) -> Option<Violation> {
            Self::broken(self)
        }
        fn has_used(&self) -> bool {
            Self::has_used(self)
        }
        fn publish(&mut self) -> Option<u16> {
            Self::publish(self)
        }
        fn enable_interrupts(&mut self) -> bool {
            Self::enable_interrupts(self)
        }
        fn disable_interrupts(&mut self) {
            Self::disable_interrupts(self)
        }
    };
}

impl Ring for Tx {
    const STEPS: &'static [Step] = &[
        Step::Enter(1),
        Step::Enter(2),
        Step::Publish,
        Step::Take,
        Step::EnableInterrupts,
        Step::DisableInterrupts,
        Step::CompleteOldest,
        Step::CompleteNewest,
        Step::Sleep,
    ];
    const WRITE: u16 = 0;
    const WRITTEN: u32 = 0;
    inherent!();

    fn enter(&mut self, cookie: u16, count: u16) -> bool {
        let Some(mut chain) = self.begin(count) else {
            return false;
        };
        for place in 1..=count {
            chain.push((cookie.into(), place.into())).unwrap();
        }
        chain.commit(cookie).is_ok()
    }

    fn take(&mut self, _: u16) -> Result<Option<u16>, Violation> {
        self.reclaim()
    }

    fn peek(&mut self) -> Option<u16> {
        unreachable!("no step of this direction")
    }

    fn repost(&mut self) -> bool {
        unreachable!("no step of this direction")
    }
}

impl Ring for Rx {
    const STEPS: &'static [Step] = &[
        Step::Enter(1),
        Step::Enter(2),
        Step::Publish,
        Step::Take,
        Step::Peek,
        Step::Repost,
        Step::EnableInterrupts,
        Step::DisableInterrupts,
        Step::CompleteOldest,
        Step::CompleteNewest,
        Step::Sleep,
    ];
    const WRITE: u16 = DESC_F_WRITE;
    const WRITTEN: u32 = 1;
    inherent!();

    fn enter(&mut self, cookie: u16, count: u16) -> bool {
        let addr = cookie.into();
        match count {
            1 => self.post((addr, 1)).is_ok(),
            _ => self.post_split((addr, 1), (addr, 2)).is_ok(),
        }
    }

    fn take(&mut self, count: u16) -> Result<Option<u16>, Violation> {
        let (addr, len) = if count == 2 {
            let Some((headers, payload, len)) = self.take_split()? else {
                return Ok(None);
            };
            assert_eq!((headers.1, payload.1), (1, 2));
            assert_eq!(headers.0, payload.0);
            (headers.0, len)
        } else {
            let Some((buffer, len)) = Self::take(self)? else {
                return Ok(None);
            };
            (buffer.0, len)
        };
        assert_eq!(len, Self::WRITTEN * u32::from(count));
        Ok(Some(addr as u16))
    }

    fn peek(&mut self) -> Option<u16> {
        let shown = Self::peek(self).unwrap();
        shown.map(|(buffer, _)| buffer.0 as u16)
    }

    fn repost(&mut self) -> bool {
        Self::repost(self)
    }
}

/// A ring, and what must be true of it. A chain is known by its cookie and its length.
#[derive(Clone)]
struct World<R> {
    ring: R,
    size: u16,
    free: u16,
    /// Chains by where they are: hidden from the card, with it, and given back; the head with them.
    hidden: VecDeque<(u16, u16)>,
    shown: VecDeque<(u16, u16, u16)>,
    given_back: VecDeque<(u16, u16)>,
    /// The driver had a look at the first of these.
    peeked: bool,
    /// Indices of the chain that is shown next, that the card takes next, and that comes back next.
    avail: u16,
    used: u16,
    taken: u16,
    avail_event: u16,
    cookie: u16,
}

impl<R: Ring> World<R> {
    fn new(size: u16) -> Self {
        let memory = HeapRing(Box::new(Shared::new(size, Tables::NONE)));
        Self {
            ring: R::with(memory, size),
            size,
            free: size,
            hidden: VecDeque::new(),
            shown: VecDeque::new(),
            given_back: VecDeque::new(),
            peeked: false,
            avail: 0,
            used: 0,
            taken: 0,
            avail_event: 0,
            cookie: 0,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Enter(count) => self.enter(count),
            Step::Publish => self.publish(),
            Step::Take => self.take(),
            Step::Peek => self.peek(),
            Step::Repost => self.repost(),
            Step::EnableInterrupts => {
                let idle = self.given_back.is_empty();
                assert_eq!(self.ring.enable_interrupts(), idle);
                if !self.peeked {
                    assert_eq!(self.ring.memory().used_event(), self.taken);
                }
            }
            Step::DisableInterrupts => {
                self.ring.disable_interrupts();
                // All that may come back soon passes no event.
                let ahead = self.ring.memory().used_event().wrapping_sub(self.taken);
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
                self.ring.memory().set_avail_event(self.avail);
            }
        }
        assert_eq!(self.ring.free(), self.free);
        assert_eq!(self.ring.broken(), None);
        let out = self.hidden.len() + self.shown.len() + self.given_back.len();
        let in_flight = out - usize::from(self.peeked);
        assert_eq!(usize::from(self.ring.in_flight()), in_flight);
        assert_eq!(self.ring.has_used(), !self.given_back.is_empty());
    }

    fn enter(&mut self, count: u16) {
        let room = count <= self.free;
        assert_eq!(self.ring.enter(self.cookie, count), room);
        if room {
            self.hidden.push_back((self.cookie, count));
            self.free -= count;
            self.cookie = self.cookie.wrapping_add(1);
        }
    }

    fn publish(&mut self) {
        let before = self.avail;
        for (cookie, count) in self.hidden.drain(..) {
            let (head, descs) = self.ring.memory().chain(self.avail);
            let seen = descs.iter().map(|d| (d.addr, d.len));
            assert!(seen.eq((1..=u32::from(count)).map(|len| (cookie.into(), len))));
            assert!(descs.iter().all(|d| d.flags & DESC_F_WRITE == R::WRITE));
            self.shown.push_back((head, cookie, count));
            self.avail = self.avail.wrapping_add(1);
        }
        let passed = self.avail.wrapping_sub(before);
        let rings = (0..passed).any(|n| before.wrapping_add(n) == self.avail_event);
        assert_eq!(self.ring.publish(), rings.then_some(self.avail));
        assert_eq!(self.ring.memory().avail_index(), self.avail);
    }

    fn complete(&mut self, chain: Option<(u16, u16, u16)>) {
        if let Some((head, cookie, count)) = chain {
            let memory = self.ring.memory();
            memory.write_used(self.used, head.into(), R::WRITTEN * u32::from(count));
            self.used = self.used.wrapping_add(1);
            memory.set_used_index(self.used);
            self.given_back.push_back((cookie, count));
        }
    }

    /// The driver notices the chain that comes back next, if it has not yet.
    fn notice(&mut self) {
        if !self.peeked && !self.given_back.is_empty() {
            self.taken = self.taken.wrapping_add(1);
        }
    }

    fn take(&mut self) {
        self.notice();
        self.peeked = false;
        let (cookie, count) = self.given_back.pop_front().unzip();
        let count = count.unwrap_or(0);
        self.free += count;
        assert_eq!(self.ring.take(count), Ok(cookie));
    }

    fn peek(&mut self) {
        self.notice();
        let first = self.given_back.front().map(|&(cookie, _)| cookie);
        self.peeked = first.is_some();
        assert_eq!(self.ring.peek(), first);
    }

    fn repost(&mut self) {
        assert_eq!(self.ring.repost(), self.peeked);
        if std::mem::take(&mut self.peeked) {
            self.hidden.extend(self.given_back.pop_front());
        }
    }

    /// Brings all chains home.
    fn settle(&mut self) {
        self.publish();
        while let Some(chain) = self.shown.pop_front() {
            self.complete(Some(chain));
        }
        while !self.given_back.is_empty() {
            self.take();
        }
        assert_eq!(self.ring.free(), self.size);
    }

    /// Moves the indices on until the next chain has this one.
    fn advance(&mut self, index: u16) {
        while self.avail != index {
            self.enter(1);
            self.settle();
        }
    }

    /// Calls `f` with every sequence of `depth` steps.
    fn sequences(depth: u32, mut f: impl FnMut(&[Step])) {
        let count = R::STEPS.len().pow(depth);
        let mut sequence = vec![R::STEPS[0]; depth as usize];
        for mut number in 0..count {
            for step in &mut sequence {
                *step = R::STEPS[number % R::STEPS.len()];
                number /= R::STEPS.len();
            }
            f(&sequence);
        }
    }

    /// One after the other, so that the indices wrap now and then.
    fn one_after_the_other() {
        for size in [1, 2, 4] {
            let mut world = Self::new(size);
            Self::sequences(depth(5), |sequence| {
                sequence.iter().for_each(|&step| world.run(step));
                world.settle();
            });
        }
    }

    /// All from right before the indices wrap, with one chain out.
    fn across_the_end() {
        for size in [1, 2, 4] {
            let mut start = Self::new(size);
            for before in [3, 2, 1u16] {
                start.advance(before.wrapping_neg());
                let mut start = start.clone();
                start.run(Step::Enter(1));
                start.run(Step::Publish);
                Self::sequences(depth(5), |sequence| {
                    let mut world = start.clone();
                    sequence.iter().for_each(|&step| world.run(step));
                    world.settle();
                });
            }
        }
    }
}

/// One more step in a long run.
fn depth(usual: u32) -> u32 {
    usual + u32::from(std::env::var_os("VNET_LONG").is_some())
}

#[test]
fn every_sequence_to_transmit_does_what_the_model_does() {
    World::<Tx>::one_after_the_other();
}

#[test]
fn every_sequence_to_receive_does_what_the_model_does() {
    World::<Rx>::one_after_the_other();
}

#[test]
fn every_sequence_to_transmit_does_so_across_the_end_of_the_indices() {
    World::<Tx>::across_the_end();
}

#[test]
fn every_sequence_to_receive_does_so_across_the_end_of_the_indices() {
    World::<Rx>::across_the_end();
}
