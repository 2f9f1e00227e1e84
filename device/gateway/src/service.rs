// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the gateway's TCP services do with a connection.
//!
//! A service is called whenever something may have changed. It moves what it can and returns; all
//! that it keeps between calls has a fixed size, except in the socket's own buffers.

use sha2::{Digest, Sha256};
use smoltcp::socket::tcp::Socket;

use crate::host::Host;
use crate::http;
use crate::ports;
use crate::status::Status;
use crate::stream;

/// Longest line or request head that a client can send.
const MAX_LINE: usize = 2048;

/// The state of one connection.
pub(crate) enum Service {
    Echo,
    Discard,
    Chargen {
        sent: u64,
    },
    Http {
        head: Vec<u8>,
    },
    Sink {
        digest: Sha256,
        count: u64,
    },
    Source(Source),
    /// Not of the gateway's: the host's.
    Host(Box<Host>),
    /// Everything was said; what still comes is swallowed.
    Done,
}

/// The steps of the source service.
pub(crate) enum Source {
    Line(Vec<u8>),
    Stream {
        seed: u64,
        sent: u64,
        size: u64,
    },
    Sum {
        seed: u64,
        done: u64,
        size: u64,
        digest: Sha256,
    },
}

impl Service {
    /// The service behind a port.
    pub(crate) fn of(port: u16) -> Option<Self> {
        Some(match port {
            ports::ECHO => Self::Echo,
            ports::DISCARD => Self::Discard,
            ports::CHARGEN => Self::Chargen { sent: 0 },
            ports::HTTP => Self::Http { head: Vec::new() },
            ports::SINK => Self::Sink {
                digest: Sha256::new(),
                count: 0,
            },
            ports::SOURCE => Self::Source(Source::Line(Vec::new())),
            _ => return None,
        })
    }

    /// Sizes of the socket's receive and transmit buffers. The receive buffer is the window that
    /// the guest sees; 512 KiB carry a gigabyte a second at half a millisecond.
    pub(crate) fn buffers(&self) -> (usize, usize) {
        const BULK: usize = 512 * 1024;
        const SMALL: usize = 4 * 1024;
        match self {
            Self::Echo | Self::Host(_) => (BULK / 2, BULK / 2),
            Self::Discard | Self::Sink { .. } => (BULK, SMALL),
            Self::Chargen { .. } | Self::Source(_) => (SMALL, BULK),
            Self::Http { .. } | Self::Done => (SMALL, 4 * SMALL),
        }
    }

    /// Goes on with the connection, and takes the bytes that were moved, made or digested off the
    /// budget. If it is spent then, there may be more to do right now; else something has to
    /// happen first.
    pub(crate) fn serve(&mut self, socket: &mut Socket<'_>, status: &Status, budget: &mut usize) {
        let done = match self {
            Self::Echo => echo(socket, budget),
            Self::Discard => {
                drain(socket, budget, |_| ());
                has_ended(socket)
            }
            Self::Chargen { sent } => {
                drain(socket, budget, |_| ());
                fill(socket, sent, u64::MAX, budget, stream::characters);
                false
            }
            Self::Http { head } => {
                read_until(socket, head, b"\r\n\r\n")
                    && send_all(socket, &http::respond(head, status))
            }
            Self::Sink { digest, count } => {
                drain(socket, budget, |data| {
                    digest.update(data);
                    *count += data.len() as u64;
                });
                has_ended(socket) && {
                    let line = format!("{count} {}\n", hex(&digest.clone().finalize()));
                    send_all(socket, line.as_bytes())
                }
            }
            Self::Source(source) => source.serve(socket, budget),
            Self::Host(host) => host.serve(socket, budget),
            Self::Done => {
                drain(socket, budget, |_| ());
                false
            }
        };
        if done {
            socket.close();
            *self = Self::Done;
        }
    }
}

impl Source {
    fn serve(&mut self, socket: &mut Socket<'_>, budget: &mut usize) -> bool {
        if let Self::Line(line) = self {
            if !read_until(socket, line, b"\n") {
                return false;
            }
            match Self::parse(line) {
                Some(next) => *self = next,
                None => return send_all(socket, b"usage: SIZE SEED [sum]\n"),
            }
        }
        match self {
            Self::Line(_) => false,
            Self::Stream { seed, sent, size } => {
                drain(socket, budget, |_| ());
                let seed = *seed;
                fill(socket, sent, *size, budget, |at, out| {
                    stream::random(seed, at, out);
                });
                sent == size
            }
            Self::Sum {
                seed,
                done,
                size,
                digest,
            } => {
                let mut chunk = [0; 4096];
                // Without a client there is nobody to answer.
                while done < size && *budget > 0 && socket.may_send() {
                    let left = usize::try_from(*size - *done).unwrap_or(usize::MAX);
                    let n = chunk.len().min(left).min(*budget);
                    stream::random(*seed, *done, &mut chunk[..n]);
                    digest.update(&chunk[..n]);
                    *done += n as u64;
                    *budget -= n;
                }
                done == size && {
                    let line = format!("{size} {}\n", hex(&digest.clone().finalize()));
                    send_all(socket, line.as_bytes())
                }
            }
        }
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
        let size = words.next()?.parse().ok()?;
        let seed = words.next()?.parse().ok()?;
        let mode = words.next();
        if words.next().is_some() {
            return None;
        }
        match mode {
            None => Some(Self::Stream {
                seed,
                sent: 0,
                size,
            }),
            Some("sum") => Some(Self::Sum {
                seed,
                done: 0,
                size,
                digest: Sha256::new(),
            }),
            Some(_) => None,
        }
    }
}

/// Moves received bytes to the transmit buffer. True when the client has sent its last and all of
/// it is on the way back.
fn echo(socket: &mut Socket<'_>, budget: &mut usize) -> bool {
    let mut chunk = [0; 4096];
    loop {
        let room = socket.send_capacity() - socket.send_queue();
        let n = room.min(chunk.len()).min(*budget);
        if n == 0 || !socket.may_send() {
            return false;
        }
        match socket.recv_slice(&mut chunk[..n]) {
            Ok(n) if n > 0 => {
                // There is room, as was seen, so all of it is taken.
                let _ = socket.send_slice(&chunk[..n]);
                *budget -= n;
            }
            _ => return has_ended(socket),
        }
    }
}

/// Takes what was received.
pub(crate) fn drain(socket: &mut Socket<'_>, budget: &mut usize, mut take: impl FnMut(&[u8])) {
    while socket.can_recv() && *budget > 0 {
        let taken = socket.recv(|data| {
            let n = data.len().min(*budget);
            take(&data[..n]);
            (n, n)
        });
        match taken {
            Ok(n) => *budget -= n,
            Err(_) => return,
        }
    }
}

/// Fills the transmit buffer with what `write` gives from position `sent` on, up to `size`.
fn fill(
    socket: &mut Socket<'_>,
    sent: &mut u64,
    size: u64,
    budget: &mut usize,
    write: impl Fn(u64, &mut [u8]),
) {
    while socket.can_send() && *sent < size && *budget > 0 {
        let position = *sent;
        let written = socket.send(|buffer| {
            let left = usize::try_from(size - position).unwrap_or(usize::MAX);
            let n = buffer.len().min(left).min(*budget);
            write(position, &mut buffer[..n]);
            (n, n)
        });
        match written {
            Ok(n) if n > 0 => {
                *sent += n as u64;
                *budget -= n;
            }
            _ => return,
        }
    }
}

/// True if the client has closed its direction and all that it sent was taken. Also true for a
/// connection that broke, of which there is nothing more to expect.
pub(crate) fn has_ended(socket: &Socket<'_>) -> bool {
    !socket.may_recv() && socket.recv_queue() == 0
}

/// Collects bytes in `line` until it ends with `end`, is too long, or nothing more comes; then
/// true.
fn read_until(socket: &mut Socket<'_>, line: &mut Vec<u8>, end: &[u8]) -> bool {
    while socket.can_recv() {
        let ended = socket.recv(|data| {
            for (n, byte) in data.iter().enumerate() {
                line.push(*byte);
                if line.ends_with(end) || line.len() == MAX_LINE {
                    return (n + 1, true);
                }
            }
            (data.len(), false)
        });
        if ended == Ok(true) {
            return true;
        }
    }
    has_ended(socket)
}

/// Sends a short answer; true when it was taken. False while the transmit buffer has no room for
/// it, which it has at the start of every connection.
fn send_all(socket: &mut Socket<'_>, answer: &[u8]) -> bool {
    let room = socket.send_capacity() - socket.send_queue();
    room >= answer.len() && socket.send_slice(answer).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
