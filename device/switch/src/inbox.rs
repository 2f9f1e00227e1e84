// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames on their way to one queue of a port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{eventfd, EventfdFlags};
use vnet_backend::{Fifo, Meta, MAX_FRAME};

/// Most frames that wait, twice: half of them with the receiver.
pub(crate) const MAX_FRAMES: usize = 512;
/// The same in bytes: a few frames of the largest size.
const MAX_BYTES: usize = 1 << 20;
const _: () = assert!(MAX_BYTES / 2 > MAX_FRAME);

/// An empty place for the receiver to exchange with [`Inbox::take`].
pub(crate) fn tray() -> Fifo {
    Fifo::new(MAX_FRAMES, MAX_BYTES)
}

/// Others put frames in, and the receiver takes them all at once. The lock is held by who puts a
/// frame in, for as long as that is copied, and never by the receiver for longer than an exchange:
/// so one that is slow holds up nobody.
#[derive(Debug)]
pub(crate) struct Inbox {
    filling: Mutex<Filling>,
    /// There is something. To be looked at without the lock.
    waiting: AtomicBool,
    wake: OwnedFd,
}

#[derive(Debug)]
struct Filling {
    frames: Fifo,
    /// Those that go to everybody may have half of the place, so that a storm leaves the other half
    /// to what is meant for this port.
    flooded: usize,
    flooded_bytes: usize,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            filling: Mutex::new(Filling {
                frames: tray(),
                flooded: 0,
                flooded_bytes: 0,
            }),
            waiting: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Puts a frame in that `fill` writes. False: there is no place.
    pub(crate) fn push(
        &self,
        len: usize,
        meta: Meta,
        flooded: bool,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let many = filling.flooded >= MAX_FRAMES / 2;
        if flooded && (many || filling.flooded_bytes + len > MAX_BYTES / 2) {
            return false;
        }
        if !filling.frames.push(len, meta, fill) {
            return false;
        }
        if flooded {
            filling.flooded += 1;
            filling.flooded_bytes += len;
        }
        // The one that takes clears it under the lock, so this sees whether there is a wake-up.
        if !self.waiting.swap(true, Ordering::Relaxed) {
            // Cannot be full: it is 1 at most.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
        true
    }

    /// Takes all frames, in exchange for an empty place. False if there are none.
    pub(crate) fn take(&self, tray: &mut Fifo) -> bool {
        if !self.has_frames() {
            return false;
        }
        tray.clear();
        self.empty(|frames| std::mem::swap(frames, tray));
        true
    }

    /// Throws all frames away.
    pub(crate) fn discard(&self) {
        self.empty(Fifo::clear);
    }

    /// Has the frames taken out, one way or the other.
    fn empty(&self, take: impl FnOnce(&mut Fifo)) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut filling.frames);
        (filling.flooded, filling.flooded_bytes) = (0, 0);
        // Fails if there was no wake-up.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// True if a frame waits. One that another thread is about to put in wakes the receiver.
    pub(crate) fn has_frames(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Readable while frames wait.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(inbox: &Inbox, len: usize, flooded: bool) -> bool {
        inbox.push(len, Meta::default(), flooded, |bytes| bytes.fill(len as u8))
    }

    #[test]
    fn is_bounded_and_leaves_half_to_what_is_not_flooded() {
        let inbox = Inbox::new().unwrap();
        let mut tray = tray();
        for round in 0..3 {
            assert_eq!((0..1000).filter(|_| push(&inbox, 60, true)).count(), 256);
            assert_eq!((0..1000).filter(|_| push(&inbox, 60, false)).count(), 256);
            assert!(inbox.take(&mut tray), "{round}");
            assert_eq!(tray.len(), 512);
            assert!(!inbox.take(&mut tray));
        }
        tray.clear();
        let flooded = (0..1000).filter(|_| push(&inbox, 60_000, true)).count();
        let others = (0..1000).filter(|_| push(&inbox, 60_000, false)).count();
        assert!(
            flooded == 8 && (8..=9).contains(&others),
            "{flooded} {others}"
        );
    }
}
