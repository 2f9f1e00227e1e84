// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ending a session from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::event::{eventfd, EventfdFlags};

/// Ends what a [`Session`](crate::Session) does. Clones end the same one.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Readable when there is something to look at. The message thread sleeps on it, after it has
    /// looked.
    event: OwnedFd,
    stop: AtomicBool,
    hang_up: AtomicBool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// End everything.
    Stop,
    /// End the session of the client that is there.
    HangUp,
}

impl Control {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared {
            event,
            stop: AtomicBool::new(false),
            hang_up: AtomicBool::new(false),
        })))
    }

    /// Makes [`Session::run`](crate::Session::run) return, soon and for good. Its client, if it
    /// has one, is hung up on.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.notify();
    }

    /// Hangs up on the client that is connected, if one is. The next one is served.
    pub fn hang_up(&self) {
        self.0.hang_up.store(true, Ordering::Release);
        self.notify();
    }

    /// True once [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.request() == Some(Request::Stop)
    }

    fn notify(&self) {
        // Fails only if the counter is full, and then it is readable as it should be.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// What was asked for, if anything was. Cheap, for it is asked all the time.
    pub(crate) fn request(&self) -> Option<Request> {
        if self.0.stop.load(Ordering::Acquire) {
            return Some(Request::Stop);
        }
        self.0
            .hang_up
            .load(Ordering::Acquire)
            .then_some(Request::HangUp)
    }

    /// The event has ended a sleep. What was asked for is looked at after this; the event itself
    /// may be late, and about a client that is gone.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
    }

    /// The client is gone: what was asked for about it is done.
    pub(crate) fn client_gone(&self) {
        self.0.hang_up.store(false, Ordering::Release);
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
