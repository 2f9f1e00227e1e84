// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames into a stream of bytes.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{send, SendFlags};
use vnet_backend::Frame;

use crate::{MAX_RECORD, PREFIX};

/// Bytes that are written at once, at most.
const CAPACITY: usize = 256 * 1024;
const _: () = assert!(CAPACITY >= MAX_RECORD);

/// Collects frames, and keeps the rest of one that was sent in part.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// What is before this is sent. Behind it is nothing, or the rest of a single frame.
    sent: usize,
    /// The queue that sent this.
    queue: u16,
    /// Since when the peer has taken nothing, though there was something for it.
    stuck: Option<Instant>,
}

impl Outgoing {
    /// Sends frames of a queue from the front as far as the peer has room; says how many were sent
    /// or begun, also if the next one failed. What was begun before comes first.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        queue: u16,
        batch: &[Frame<'_>],
    ) -> (usize, io::Result<()>) {
        let mut done = 0;
        loop {
            match self.flush(socket) {
                Ok(true) if done < batch.len() => {}
                end => return (done, end.map(drop)),
            }
            let count = self.collect(&batch[done..]);
            self.queue = queue;
            let written = self.write(socket);
            let begun = self.keep(*written.as_ref().unwrap_or(&0));
            done += begun;
            if begun < count {
                return (done, written.map(drop));
            }
        }
    }

    /// Sends the rest of what was begun; true if nothing is left of it.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.has_rest() {
            let written = self.write(socket)?;
            if written == 0 {
                return Ok(false);
            }
            self.sent += written;
        }
        Ok(true)
    }

    /// True if a frame was sent in part.
    pub(crate) fn has_rest(&self) -> bool {
        self.sent < self.bytes.len()
    }

    /// Forgets the rest of a frame that was sent in part, if it was one of this queue; true if there
    /// was.
    pub(crate) fn abandon(&mut self, queue: u16) -> bool {
        let rest = self.has_rest() && self.queue == queue;
        if rest {
            self.keep(0);
        }
        rest
    }

    /// Since when the peer has taken nothing, though there was something for it.
    pub(crate) fn stuck(&self) -> Option<Instant> {
        self.stuck
    }

    /// Collects as many frames as fit, at least one, and returns how many.
    fn collect(&mut self, batch: &[Frame<'_>]) -> usize {
        self.bytes.clear();
        self.ends.clear();
        self.sent = 0;
        for frame in batch {
            let at = self.bytes.len();
            if at + PREFIX + frame.len > CAPACITY {
                break;
            }
            // Frames are not longer than 64 KiB and a bit.
            self.bytes
                .extend_from_slice(&(frame.len as u32).to_be_bytes());
            self.bytes.resize(at + PREFIX + frame.len, 0);
            frame.read(&mut self.bytes[at + PREFIX..]);
            self.ends.push(self.bytes.len());
        }
        self.ends.len()
    }

    /// Of what was collected this much is sent: keeps the rest of the frame that it ends in, and
    /// forgets those behind it. Returns how many were begun.
    fn keep(&mut self, written: usize) -> usize {
        let begun = match written {
            0 => 0,
            _ => self.ends.partition_point(|&end| end < written) + 1,
        };
        let end = begun.checked_sub(1).and_then(|last| self.ends.get(last));
        self.bytes.truncate(end.copied().unwrap_or(0));
        self.sent = written;
        begun
    }

    /// Writes what there is room for, which may be nothing.
    fn write(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let bytes = &self.bytes[self.sent..];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let count = match send(socket, bytes, flags) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == bytes.len() {
            self.stuck = None;
        } else if count > 0 || self.stuck.is_none() {
            self.stuck = Some(Instant::now());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::VolatileSlice;
    use vnet_backend::Meta;

    use super::*;

    proptest! {
        /// Whatever part of it is written each time, the bytes are those of the frames in order.
        #[test]
        fn nothing_is_torn(
            lens in prop::collection::vec(14usize..3000, 1..30),
            writes in prop::collection::vec(0usize..5000, 1..30),
        ) {
            let mut buffers: Vec<_> = lens.iter().zip(0u8..).map(|(&l, n)| vec![n; l]).collect();
            let expected: Vec<u8> = buffers
                .iter()
                .flat_map(|f| (f.len() as u32).to_be_bytes().into_iter().chain(f.clone()))
                .collect();
            let parts: Vec<_> = buffers
                .iter_mut()
                .map(|b| [VolatileSlice::from(&mut b[..])])
                .collect();
            let batch: Vec<_> = parts
                .iter()
                .map(|parts| Frame { meta: Meta::default(), len: parts[0].len(), parts })
                .collect();
            let mut out = Outgoing::default();
            let (mut done, mut stream) = (0, Vec::new());
            // A socket that never takes anything would go on for ever.
            let writes = writes.into_iter().chain([1]).collect::<Vec<_>>();
            for limit in writes.into_iter().cycle() {
                if out.has_rest() {
                    let n = limit.min(out.bytes.len() - out.sent);
                    stream.extend_from_slice(&out.bytes[out.sent..out.sent + n]);
                    out.sent += n;
                    continue;
                }
                if done == batch.len() {
                    break;
                }
                let count = out.collect(&batch[done..]);
                prop_assert!(count >= 1);
                let n = limit.min(out.bytes.len());
                stream.extend_from_slice(&out.bytes[..n]);
                let begun = out.keep(n);
                prop_assert!(begun <= count);
                done += begun;
            }
            prop_assert_eq!(stream, expected);
        }
    }
}
