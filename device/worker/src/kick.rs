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
