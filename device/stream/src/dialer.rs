// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a peer is come by.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The pause after the first attempt that failed. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Connects, or accepts. Never waits.
pub(crate) enum Dialer {
    /// To a peer that listens at this address.
    Connect(SocketAddrUnix),
    /// The peer connects to us. The second is what has to live as long as the listener.
    Accept(UnixListener, #[allow(dead_code)] Box<dyn Send>),
}

impl Dialer {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::Connect(SocketAddrUnix::new(path)?))
    }

    pub(crate) fn accept(listener: UnixListener, guard: Box<dyn Send>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Accept(listener, guard))
    }

    /// Tries once. `None`: nobody has connected yet.
    pub(crate) fn dial(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Connect(address) => {
                let socket = socket_with(
                    AddressFamily::UNIX,
                    SocketType::STREAM,
                    SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
                    None,
                )?;
                connect(&socket, address)?;
                Ok(Some(socket))
            }
            Self::Accept(listener, _) => match listener.accept() {
                Ok((peer, _)) => {
                    peer.set_nonblocking(true)?;
                    Ok(Some(peer.into()))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

/// When to try again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pause: Duration,
    next: Option<Instant>,
}

impl Backoff {
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// An attempt has failed. True if it is the first after one that had not.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        let first = self.next.is_none();
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.next = Some(now + self.pause);
        first
    }

    /// An attempt has succeeded.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        for expected in [500, 1000, 2000, 4000, 8000, 8000] {
            assert!(backoff.is_due(now));
            assert_eq!(backoff.failed(now), expected == 500);
            let pause = Duration::from_millis(expected);
            assert!(!backoff.is_due(now + pause - Duration::from_millis(1)));
            now += pause;
        }
        assert!(backoff.is_due(now));
        backoff.succeeded();
        assert!(backoff.failed(now));
        assert!(backoff.is_due(now + FIRST_PAUSE));
    }
}
