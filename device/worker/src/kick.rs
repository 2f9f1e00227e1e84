// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Waking the worker thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{eventfd, EventfdFlags};

use crate::sync::{AtomicBool, Ordering};

/// What a worker sleeps on: an eventfd, but for the model of it.
pub(crate) trait Event {
    /// Wakes the worker, now or when it is about to sleep.
    fn set(&self);
    /// Lets it sleep again.
    fn reset(&self);
}

impl Event for OwnedFd {
    fn set(&self) {
        // Fails only if the counter is full, and then the eventfd is readable as it should be.
        let _ = rustix::io::write(self, &1u64.to_ne_bytes());
    }

    fn reset(&self) {
        let _ = rustix::io::read(self, &mut [0; 8]);
    }
}

/// An event that is set once, however often it is kicked before the worker looks.
#[derive(Debug)]
pub(crate) struct Kick<E = OwnedFd> {
    event: E,
    pending: AtomicBool,
}

impl Kick {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(Self::on).map_err(Into::into)
    }
}

impl<E: Event> Kick<E> {
    pub(crate) fn on(event: E) -> Self {
        Self {
            event,
            pending: AtomicBool::new(false),
        }
    }

    /// Makes the worker run a round that begins after this call.
    pub(crate) fn kick(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.event.set();
        }
    }

    /// Called by the worker when the event is set, before it looks for work.
    pub(crate) fn clear(&self) {
        self.event.reset();
        // After the reset: the other way round, a kick between the two would set an event that is
        // then reset, and leave `pending` set for ever. A kick that comes before this swap sets
        // nothing, and its cause is visible to the round that follows.
        self.pending.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    use std::sync::atomic::AtomicU32;
    use std::time::{Duration, Instant};

    #[test]
    fn a_kick_while_the_last_one_is_cleared_is_not_lost() {
        const ROUNDS: u32 = 40_000;
        let kick = Kick::new().unwrap();
        let (work, seen) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|s| {
            s.spawn(|| {
                let patience = Timespec {
                    tv_sec: 10,
                    tv_nsec: 0,
                };
                while seen.load(Ordering::Acquire) < 2 * ROUNDS {
                    let mut fds = [PollFd::new(&kick, PollFlags::IN)];
                    let woken = poll(&mut fds, Some(&patience)).unwrap();
                    if woken == 0 {
                        seen.store(u32::MAX, Ordering::Release);
                        return;
                    }
                    kick.clear();
                    seen.store(work.load(Ordering::Relaxed), Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                // The second kick finds the worker somewhere on its way from the first.
                work.store(2 * round - 1, Ordering::Relaxed);
                kick.kick();
                let pause = Instant::now() + Duration::from_nanos(u64::from(round % 256) * 250);
                while Instant::now() < pause {}
                work.store(2 * round, Ordering::Relaxed);
                kick.kick();
                while seen.load(Ordering::Acquire) < 2 * round {
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(seen.load(Ordering::Acquire), 2 * ROUNDS, "a kick was lost");
    }
}
