// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Waking the worker thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{eventfd, EventfdFlags};

/// An eventfd that is written once, however often it is kicked before the worker looks.
#[derive(Debug)]
pub(crate) struct Kick {
    fd: OwnedFd,
    pending: AtomicBool,
}

impl Kick {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            pending: AtomicBool::new(false),
        })
    }

    /// Makes the worker run a round that begins after this call.
    pub(crate) fn kick(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // Fails only if the counter is full, and then the eventfd is readable as it should be.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Called by the worker when the eventfd is readable, before it looks for work.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
        // After the read: the other way round, a kick between the two would write an eventfd
        // that is then read empty, and leave `pending` set for ever. A kick that comes before
        // this swap writes nothing, and its cause is visible to the round that follows.
        self.pending.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
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
