// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The thread that connects to the host, for those that serve: they may not.
//!
//! All that it hears is which of the targets is wanted. It never waits for one of them, so it has an
//! answer at once: a socket that is connected, or will be, or the reason why there is none.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{channel, sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::forward::Target;

/// Somebody wants to be connected.
pub(crate) struct Request {
    /// Comes back with the answer.
    pub(crate) id: u64,
    /// Which of the targets.
    pub(crate) target: usize,
    /// Which of the bells is rung when there is an answer.
    pub(crate) bell: usize,
}

/// What became of it.
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) result: Result<Dialled, Errno>,
}

/// A socket that does not block.
pub(crate) enum Dialled {
    Connected(OwnedFd),
    /// It is writable when it is connected, or has failed.
    Connecting(OwnedFd),
}

/// Starts the thread, which does `first` first. It ends when the requests do. No more than `most` of them
/// wait.
pub(crate) fn start(
    targets: Vec<Target>,
    bells: Vec<Arc<OwnedFd>>,
    most: usize,
    first: impl FnOnce() + Send + 'static,
) -> io::Result<(SyncSender<Request>, Receiver<Answer>)> {
    let (requests, queue) = sync_channel::<Request>(most);
    let (sender, answers) = channel();
    thread::Builder::new()
        .name("vnet-forward".into())
        .spawn(move || {
            first();
            for Request { id, target, bell } in queue {
                let result = targets
                    .get(target)
                    .ok_or(Errno::ADDRNOTAVAIL)
                    .and_then(dial);
                if sender.send(Answer { id, result }).is_err() {
                    return;
                }
                if let Some(bell) = bells.get(bell) {
                    // Fails only if the counter would overflow, which it is far from.
                    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
                }
            }
        })?;
    Ok((requests, answers))
}

fn dial(target: &Target) -> Result<Dialled, Errno> {
    let socket = |family| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socket_with(family, SocketType::STREAM, flags, None)
    };
    match target {
        Target::Unix(path) => {
            let socket = socket(AddressFamily::UNIX)?;
            // `AGAIN` if more wait there than the service has room for.
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(Dialled::Connected(socket))
        }
        Target::Loopback(address) => {
            let socket = socket(match address.is_ipv4() {
                true => AddressFamily::INET,
                false => AddressFamily::INET6,
            })?;
            // As on the guest's side.
            set_tcp_nodelay(&socket, true)?;
            match connect(&socket, address) {
                Ok(()) => Ok(Dialled::Connected(socket)),
                Err(Errno::INPROGRESS) => Ok(Dialled::Connecting(socket)),
                Err(e) => Err(e),
            }
        }
    }
}
