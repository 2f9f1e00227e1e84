// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A peer that is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{recv, RecvFlags};
use tracing::warn;

use crate::decoder::TooLong;
use crate::outgoing::Outgoing;

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum End {
    Closed,
    Failed(io::Error),
    Length(TooLong),
}

/// A connected socket, which never waits.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What the user calls the peer.
    name: String,
    socket: OwnedFd,
    /// Nothing more can be sent, but what the peer has sent may be there to be read.
    closing: AtomicBool,
    over: AtomicBool,
    /// All queues send on it, each whole frames.
    outgoing: Mutex<Outgoing>,
}

impl Connection {
    pub(crate) fn new(name: &str, socket: OwnedFd) -> Self {
        Self {
            name: name.to_owned(),
            socket,
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            outgoing: Mutex::default(),
        }
    }

    /// Nothing can be sent or received on it any more.
    pub(crate) fn end(&self, why: End) {
        self.close(why);
        self.over.store(true, Ordering::Relaxed);
    }

    /// Nothing can be sent on it any more; says so once. It ends where there is nothing more to read.
    pub(crate) fn close(&self, why: End) {
        // Relaxed: who sees it late finds out by himself.
        if self.closing.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = &self.name;
        match why {
            End::Closed => warn!("stream {name}: the peer has closed the connection"),
            End::Failed(error) => warn!("stream {name}: connection lost: {error}"),
            End::Length(TooLong(len)) => {
                warn!("stream {name}: disconnected, as the peer announced a frame of {len} bytes");
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// False if it is closing, for who looks from time to time: also if nobody has noticed yet.
    pub(crate) fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let _ = poll(&mut fds, Some(&Timespec::default()));
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            self.close(End::Closed);
        }
        !self.is_closing()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is. `None`: nothing now, or never again.
    pub(crate) fn read(&self, space: &mut [u8]) -> Option<usize> {
        match recv(&self.socket, space, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.end(End::Closed),
            Ok((count, _)) => return Some(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.end(End::Failed(error.into())),
        }
        None
    }
}
