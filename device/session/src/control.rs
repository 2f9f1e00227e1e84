// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ending a session from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use rustix::event::{eventfd, EventfdFlags};
use rustix::net::sockopt::socket_peercred;

/// Ends what a [`Session`](crate::Session) does. Clones end the same one.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Readable when there is something to look at. The message thread sleeps on it, after it has
    /// looked.
    event: OwnedFd,
    stop: AtomicBool,
    /// Number of the client that is there, or was there last. None has the first one.
    client: AtomicU64,
    /// Number of the client to hang up on.
    hang_up: AtomicU64,
    /// The client that is there: process id in the lower half, user id in the upper one. Zero: none.
    peer: AtomicU64,
}

/// A client, of those that one session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(u64);

/// The process of a client, when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// End everything.
    Stop,
    /// End the session of the client.
    HangUp,
}

impl Control {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared {
            event,
            stop: AtomicBool::new(false),
            client: AtomicU64::new(1),
            hang_up: AtomicU64::new(0),
            peer: AtomicU64::new(0),
        })))
    }

    /// Makes [`Session::run`](crate::Session::run) return, soon and for good. Its client, if it
    /// has one, is hung up on.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.notify();
    }

    /// Hangs up on this client, if it is still connected. The next one is served.
    pub fn hang_up(&self, client: ClientId) {
        // Who is late does not undo what was asked for about one that came after.
        self.0.hang_up.fetch_max(client.0, Ordering::AcqRel);
        self.notify();
    }

    /// The client that is connected, or was last.
    pub fn client(&self) -> ClientId {
        ClientId(self.0.client.load(Ordering::Acquire))
    }

    /// True once [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.request() == Some(Request::Stop)
    }

    /// The process of the client that is connected.
    pub fn peer(&self) -> Option<Peer> {
        let peer = self.0.peer.load(Ordering::Acquire);
        (peer != 0).then_some(Peer {
            pid: peer as i32,
            uid: (peer >> 32) as u32,
        })
    }

    /// A client has come.
    pub(crate) fn client_here(&self, socket: &OwnedFd) {
        self.0.client.fetch_add(1, Ordering::AcqRel);
        if let Ok(peer) = socket_peercred(socket) {
            let (pid, uid) = (peer.pid.as_raw_nonzero().get(), peer.uid.as_raw());
            let packed = u64::from(uid) << 32 | u64::from(pid as u32);
            self.0.peer.store(packed, Ordering::Release);
        }
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
        let asked = self.0.hang_up.load(Ordering::Acquire);
        (asked == self.client().0).then_some(Request::HangUp)
    }

    /// The event has ended a sleep. What was asked for is looked at after this; the event itself
    /// may be late, and about a client that is gone.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
    }

    /// The client is gone.
    pub(crate) fn client_gone(&self) {
        self.0.peer.store(0, Ordering::Release);
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
