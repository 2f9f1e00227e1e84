// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Memory by message: workers that want some of the client's memory pulled into its mirror, or
//! pushed from there, and the message thread, which asks the client for it.
//!
//! One worker at a time has its [`Turn`], and in it one [`Turn::exchange`] after the other. Each is
//! a list of accesses, which the message thread puts into messages ([`Relay::next`]) and ends when
//! the client has answered ([`Relay::answered`]). Only the worker waits, and not without end: a
//! client that owes answers and gives none for [`PATIENCE`] has failed it. It holds no lock meanwhile
//! that the message thread wants. While bus mastering is off the client is asked for nothing, and
//! owes nothing: that takes as long as the driver likes.
//!
//! What was asked cannot be taken back. When the card is reset, what is left of an exchange is given
//! up ([`Relay::cancel`]), but a write that is on its way may still arrive: until it is answered,
//! [`Relay::is_writing`] says so. The turn is over then, too: what its worker still has in mind to
//! push is of a driver, or even a client, that is gone.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

use crate::mirror::Mirrors;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{AddressSpace, DmaMap};

/// How long a client may take for one answer. As long as QEMU gives a server.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes in one message.
const CHUNK: usize = 32 << 10;
/// Most bytes on their way at a time. Socket buffers hold more, so that a client which is about to
/// send something itself never finds its own full because ours is.
const WINDOW: usize = 64 << 10;

/// A stretch of bus addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First one.
    pub address: u64,
    /// Number of bytes.
    pub len: usize,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client's memory into the mirror.
    Pull,
    /// From the mirror into the client's memory.
    Push,
}

/// Why an exchange came to nothing. Parts of it may have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client refused the access at this address, or does not let the card do it.
    Refused(u64),
    /// The client does not answer.
    Silent,
    /// The card was reset meanwhile.
    Cancelled,
    /// There is no client to ask.
    Closed,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which way.
    pub way: Way,
    /// First bus address.
    pub address: u64,
    /// Number of bytes.
    pub len: usize,
    map: Arc<DmaMap>,
    exchange: u64,
}

/// Where workers and the message thread meet.
#[derive(Debug)]
pub struct Relay {
    inner: Mutex<Inner>,
    /// Something happened that the worker waits for.
    news: Condvar,
    /// Wakes the message thread.
    event: OwnedFd,
    /// Who waits for the turn has the turnstile, so that nobody who had it gets it again before.
    turnstile: Mutex<()>,
    turn: Mutex<()>,
    mirrors: Mirrors,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    /// How often a reset or the client's end has ended what there was.
    era: u64,
    /// Number of the last exchange that was begun.
    number: u64,
    current: Option<Exchange>,
    /// Bytes and pushes that are on their way, also of exchanges that were given up.
    window: usize,
    pushes: usize,
}

#[derive(Debug)]
struct Exchange {
    map: Arc<DmaMap>,
    way: Way,
    left: VecDeque<Stretch>,
    unanswered: usize,
    failed: Option<Failure>,
    /// When the client was last heard of, or began to owe an answer.
    heard: Instant,
}

impl Relay {
    pub(crate) fn new(mirrors: Mirrors) -> io::Result<Self> {
        Self::with_patience(mirrors, PATIENCE)
    }

    fn with_patience(mirrors: Mirrors, patience: Duration) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            inner: Mutex::default(),
            news: Condvar::new(),
            event,
            turnstile: Mutex::default(),
            turn: Mutex::default(),
            mirrors,
            patience,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves `Inner` whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while there is a client to ask.
    pub fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Has the worker wait for its turn, for an exchange or several.
    pub fn turn(&self) -> Turn<'_> {
        let turnstile = self.turnstile.lock();
        let _next = turnstile.unwrap_or_else(PoisonError::into_inner);
        let guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Turn {
            relay: self,
            era: self.lock().era,
            _guard: guard,
        }
    }

    /// For the message thread: from now on there is a client to ask, or no longer. What waits has
    /// failed then, and what the last client did not answer it never will.
    pub(crate) fn set_open(&self, open: bool) {
        let mut inner = self.lock();
        inner.open = open;
        inner.fail(Failure::Closed);
        (inner.window, inner.pushes) = (0, 0);
        self.news.notify_all();
    }

    /// For the message thread: gives up the exchange that is under way.
    pub fn cancel(&self) {
        self.lock().fail(Failure::Cancelled);
        self.news.notify_all();
    }

    /// True as long as a push is on its way.
    pub fn is_writing(&self) -> bool {
        self.lock().pushes > 0
    }

    /// For the message thread: the event has ended a sleep.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// For the message thread: the next message to send, of at most so many bytes; `None`: none
    /// now. What the card may not reach any more is not asked for.
    pub fn next(&self, space: &AddressSpace, most: usize) -> Option<Ask> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let exchange = inner.current.as_mut()?;
        if exchange.failed.is_some() {
            return None;
        }
        let most = most.min(CHUNK);
        let stretch = exchange.left.front_mut()?;
        let len = stretch.len.min(most);
        if inner.window > 0 && inner.window + len > WINDOW {
            return None;
        }
        // With bus mastering off, it waits until that is on again.
        let reach = space.mirrored()?;
        let access = match exchange.way {
            Way::Pull => Permissions::Read,
            Way::Push => Permissions::Write,
        };
        let address = stretch.address;
        // A client whose messages hold nothing cannot be asked at all.
        if len == 0 || !reach.check_range(GuestAddress(address), len, access) {
            exchange.failed = Some(Failure::Refused(address));
            self.news.notify_all();
            return None;
        }
        stretch.address = address.wrapping_add(len as u64);
        stretch.len -= len;
        if stretch.len == 0 {
            exchange.left.pop_front();
        }
        if inner.window == 0 {
            exchange.heard = Instant::now();
        }
        exchange.unanswered += 1;
        inner.window += len;
        inner.pushes += usize::from(exchange.way == Way::Push);
        Some(Ask {
            way: exchange.way,
            address,
            len,
            map: Arc::clone(&exchange.map),
            exchange: inner.number,
        })
    }

    /// For the message thread: the client has answered, with this data if it was asked for some,
    /// or refused.
    pub fn answered(&self, ask: &Ask, result: Result<&[u8], ()>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.window = inner.window.saturating_sub(ask.len);
        if ask.way == Way::Push {
            inner.pushes = inner.pushes.saturating_sub(1);
        }
        if inner.number != ask.exchange {
            // It was given up.
            return;
        }
        let Some(exchange) = inner.current.as_mut() else {
            return;
        };
        exchange.heard = Instant::now();
        exchange.unanswered -= 1;
        let done = match (result, ask.way) {
            (Ok(data), Way::Pull) => ask.fill(data),
            (Ok(_), Way::Push) => true,
            (Err(()), _) => false,
        };
        if !done {
            exchange.failed.get_or_insert(Failure::Refused(ask.address));
        }
        if exchange.is_over() {
            self.news.notify_all();
        }
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Inner {
    /// Ends what waits, also what only waits for the rest after a refusal: that may never come.
    fn fail(&mut self, failure: Failure) {
        self.era += 1;
        if let Some(exchange) = &mut self.current {
            exchange.failed = Some(failure);
        }
    }
}

impl Exchange {
    fn is_over(&self) -> bool {
        match (self.failed, self.way) {
            // Until the rest of what was pushed has arrived, the queue is not at rest.
            (Some(Failure::Refused(_)), Way::Push) => self.unanswered == 0,
            (Some(_), _) => true,
            (None, _) => self.unanswered == 0 && self.left.is_empty(),
        }
    }
}

impl Ask {
    /// Copies from the mirror what is to be written.
    pub fn copy_to(&self, mut to: &mut [u8]) {
        let slices = self
            .map
            .get_slices(GuestAddress(self.address), self.len, Permissions::Write);
        // The mirror is there for as long as the map is.
        for slice in slices.into_iter().flatten().flatten() {
            let count = slice.copy_to(to);
            to = to.get_mut(count..).unwrap_or_default();
        }
    }

    /// Copies into the mirror what was read.
    fn fill(&self, mut data: &[u8]) -> bool {
        if data.len() != self.len {
            return false;
        }
        let slices = self
            .map
            .mirrors_of(self.address, self.len, Permissions::Read);
        for slice in slices {
            let count = slice.len().min(data.len());
            slice.copy_from(&data[..count]);
            data = &data[count..];
        }
        data.is_empty()
    }
}

/// A worker's turn.
#[derive(Debug)]
pub struct Turn<'r> {
    relay: &'r Relay,
    /// What began in another one goes no further: the map is not that of the client that is there.
    era: u64,
    _guard: MutexGuard<'r, ()>,
}

impl Turn<'_> {
    /// Before a batch: bounds what mirrors take. If the number that is returned is another than
    /// the last time, all that was pulled before is gone.
    pub fn trim(&self) -> u64 {
        self.relay.mirrors.trim()
    }

    /// Has the parts of these stretches that are not shared pulled or pushed, in any order. What
    /// is shared, or out of reach, is left out. Waits.
    pub fn exchange(
        &self,
        map: &Arc<DmaMap>,
        way: Way,
        stretches: impl IntoIterator<Item = Stretch>,
    ) -> Result<(), Failure> {
        let mut left = VecDeque::new();
        for stretch in stretches {
            map.unshared(stretch, |part| match left.back_mut() {
                Some(Stretch { address, len })
                    if address.checked_add(*len as u64) == Some(part.address) =>
                {
                    *len += part.len;
                }
                _ => left.push_back(part),
            });
        }
        if left.is_empty() {
            return Ok(());
        }
        let relay = self.relay;
        let mut inner = relay.lock();
        if !inner.open {
            return Err(Failure::Closed);
        }
        if inner.era != self.era {
            return Err(Failure::Cancelled);
        }
        inner.number += 1;
        inner.current = Some(Exchange {
            map: Arc::clone(map),
            way,
            left,
            unanswered: 0,
            failed: None,
            heard: Instant::now(),
        });
        // Fails only if the counter is full, and then it is readable as it should be.
        let _ = rustix::io::write(&relay.event, &1u64.to_ne_bytes());
        loop {
            let owes = inner.window > 0;
            let Some(exchange) = &mut inner.current else {
                return Err(Failure::Closed);
            };
            if exchange.is_over() {
                let failed = exchange.failed;
                inner.current = None;
                return failed.map_or(Ok(()), Err);
            }
            // Also if what it owes is for an exchange before: it may be why nothing can be asked now.
            let waited = match owes {
                true => exchange.heard.elapsed(),
                false => Duration::ZERO,
            };
            let rest = relay.patience.saturating_sub(waited);
            if rest.is_zero() {
                exchange.failed = Some(Failure::Silent);
                continue;
            }
            let woken = relay.news.wait_timeout(inner, rest);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(all(loom, test))]
mod model;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Mapping;
    use std::thread::{scope, sleep};

    #[test]
    fn a_client_that_was_asked_for_nothing_owes_no_answer() {
        const PATIENCE: Duration = Duration::from_millis(300);
        let space = AddressSpace::new();
        space.set_bus_master(true);
        assert!(space.set_relayed(true));
        let mapping = Mapping {
            address: 0,
            size: 0x1000,
            file: None,
            offset: 0,
            read: true,
            write: true,
        };
        space.map(mapping).unwrap();
        let map = space.mirrored().unwrap();
        let relay = Relay::with_patience(Mirrors::default(), PATIENCE).unwrap();
        relay.set_open(true);
        let exchange = || {
            let stretch = Stretch { address: 0, len: 8 };
            relay.turn().exchange(&map, Way::Pull, [stretch])
        };
        scope(|s| {
            space.set_bus_master(false);
            let worker = s.spawn(exchange);
            let end = Instant::now() + PATIENCE * 3;
            while Instant::now() < end {
                assert!(relay.next(&space, 8).is_none() && !worker.is_finished());
                sleep(PATIENCE / 10);
            }
            space.set_bus_master(true);
            let ask = relay.next(&space, 8).unwrap();
            relay.answered(&ask, Ok(&[1; 8]));
            assert_eq!(worker.join().unwrap(), Ok(()));

            // One that was asked late does, from then on.
            space.set_bus_master(false);
            let worker = s.spawn(exchange);
            sleep(PATIENCE * 2);
            space.set_bus_master(true);
            let asked = Instant::now();
            relay.next(&space, 8).unwrap();
            assert_eq!(worker.join().unwrap(), Err(Failure::Silent));
            assert!(asked.elapsed() >= PATIENCE);
        });
    }
}
