// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The host's side of one connection that is carried to it.
//!
//! Bytes go from the buffers of one socket to those of the other, and only as many as there is room for:
//! who is slow slows down the other one, and nothing else. Each direction ends by itself. A guest that
//! breaks the connection off breaks it off for the host, too, where the host's side is TCP; and what the
//! host breaks off is broken off for the guest, when it has got all that the host said before.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{recv, send, shutdown, RecvFlags, SendFlags, Shutdown};
use smoltcp::socket::tcp::{Socket, State};

use crate::service::{drain, has_ended};

/// What came of the connections to one port.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were carried to the host, and that it refused.
    pub(crate) taken: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Bytes to the host, and from it.
    pub(crate) to_host: AtomicU64,
    pub(crate) to_guest: AtomicU64,
}

/// Adds to a counter, of which whoever reads it wants nothing but the number.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Descriptors of the host that one queue's worker waits for: it is readable when one of them has become
/// readable or writable since it was asked last.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<OwnedFd>);

impl Watch {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Arc::new(epoll)))
    }

    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// Watches a socket until it is closed. What it is ready for already counts as news.
    pub(crate) fn add(&self, socket: &OwnedFd, id: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.0, socket, EventData::new_u64(id), flags)
    }

    /// Watches a counter, of which each change counts, or that counts while it is not zero.
    pub(crate) fn add_counter(&self, fd: &OwnedFd, id: u64, changes: bool) -> Result<(), Errno> {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::ET, changes);
        epoll::add(&self.0, fd, EventData::new_u64(id), flags)
    }

    /// Whose descriptors have news, at most as many as there is room for.
    pub(crate) fn news<'b>(&self, room: &'b mut [epoll::Event]) -> &'b [epoll::Event] {
        let now = rustix::event::Timespec::default();
        // Fails only for what is no epoll instance.
        let count = epoll::wait(&self.0, &mut *room, Some(&now)).unwrap_or(0);
        &room[..count]
    }
}

/// A connection to the host.
pub(crate) struct Host {
    id: u64,
    /// `None`: the host is gone.
    socket: Option<OwnedFd>,
    /// Where the socket is watched: it is the affair of the queue that the guest last sent on.
    queue: u16,
    watch: Watch,
    /// May be; no longer when a call says so.
    readable: bool,
    writable: bool,
    guest_ended: bool,
    host_ended: bool,
    /// The host takes nothing any more, though it may have said something before.
    deaf: bool,
    tally: Arc<Tally>,
}

impl Host {
    /// A connection whose socket is watched as `id` already.
    pub(crate) fn new(id: u64, socket: OwnedFd, at: (u16, Watch), tally: Arc<Tally>) -> Self {
        let (queue, watch) = at;
        Self {
            id,
            socket: Some(socket),
            queue,
            watch,
            readable: true,
            writable: true,
            guest_ended: false,
            host_ended: false,
            deaf: false,
            tally,
        }
    }

    /// As whose socket it is watched.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// There is news of the socket.
    pub(crate) fn wake(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// The guest sends on this queue, whose worker is to hear of the socket from now on.
    pub(crate) fn follow(&mut self, queue: u16, watch: &Watch) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.queue != queue) else {
            return;
        };
        // Short of memory, it stays where it is.
        if watch.add(socket, self.id).is_ok() {
            let _ = epoll::delete(self.watch.descriptor(), socket);
            (self.queue, self.watch) = (queue, watch.clone());
        }
    }

    /// Carries bytes both ways, and takes them off the budget. True when both sides have said all.
    pub(crate) fn serve(&mut self, guest: &mut Socket<'_>, budget: &mut usize) -> bool {
        if guest.state() == State::Closed {
            self.cut();
            return false;
        }
        let over = self.carry(guest, budget).is_err() || self.deaf && self.host_ended;
        if over || self.deaf {
            // What the guest says has no taker.
            drain(guest, budget, |_| ());
        }
        if over {
            self.cut();
            // What the host said before is still on its way.
            if guest.send_queue() == 0 {
                guest.abort();
            }
            return false;
        }
        self.guest_ended && self.host_ended
    }

    /// An error: the host is gone. Where only what the guest says finds nobody, the host may have said something
    /// before it went, which is still there to be read.
    fn carry(&mut self, guest: &mut Socket<'_>, budget: &mut usize) -> Result<(), Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::PIPE)?;
        while self.writable && !self.deaf && guest.can_recv() && *budget > 0 {
            let sent = guest.recv(|data| {
                let data = &data[..data.len().min(*budget)];
                let sent = send(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                (sent.unwrap_or(0), sent)
            });
            match sent {
                Ok(Ok(count)) => {
                    *budget -= count;
                    add(&self.tally.to_host, count);
                }
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(_)) => self.deaf = true,
                Err(_) => break,
            }
        }
        if !self.guest_ended && has_ended(guest) {
            self.guest_ended = true;
            self.deaf |= shutdown(socket, Shutdown::Write).is_err();
        }
        while self.readable && guest.can_send() && *budget > 0 {
            let got = guest.send(|room| {
                let most = room.len().min(*budget);
                let got = recv(socket, &mut room[..most], RecvFlags::DONTWAIT);
                let got = got.map(|(count, _)| count);
                (got.unwrap_or(0), got)
            });
            match got {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    guest.close();
                }
                Ok(Ok(count)) => {
                    *budget -= count;
                    add(&self.tally.to_guest, count);
                }
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(e)) => return Err(e),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Lets go of the host. One that does not know that the guest has ended has to learn that it was not
    /// meant to: that is a reset, if it is TCP.
    fn cut(&mut self) {
        if let Some(socket) = self.socket.take() {
            if !self.guest_ended {
                // Refused by what is no TCP, or over.
                let _ = set_socket_linger(&socket, Some(Duration::ZERO));
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.cut();
    }
}
