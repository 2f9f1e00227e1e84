// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Messages in a stream of bytes and descriptors.

use std::collections::VecDeque;
use std::fs::File;

use crate::header::{Header, HEADER_SIZE};
use crate::refusal::Refusal;
use crate::version::MAX_DATA;

/// Longest message that is kept: data and what is in front of it.
pub const CAPACITY: usize = MAX_DATA as usize + 64;

/// Longest message that is read over. A client that was told no limit for data may send a MiB.
pub const MAX_MESSAGE: u32 = (1 << 20) + 64;

/// Most descriptors with one message.
pub const MAX_FDS: usize = 16;

/// A message, as it came.
#[derive(Debug)]
pub struct Message<'a> {
    /// What it begins with.
    pub header: Header,
    /// What follows; `None`: more than [`CAPACITY`], and gone.
    pub payload: Option<&'a [u8]>,
    /// The descriptors that came with it.
    pub fds: Vec<File>,
    /// There were others.
    pub lost: Option<Lost>,
}

/// Why descriptors are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There were too many, for a message or for this process.
    TooMany,
    /// They were neither files nor eventfds, which no command takes.
    Foreign,
}

/// What came from a client and was not looked at yet.
///
/// Many messages may come with one read. Which of them the descriptors belong to, Linux tells by
/// where the read ends: it goes past the end of a write that had descriptors only if that one's were
/// not taken by the same read. So they belong to the last message of which the read brought a
/// byte, provided that a client does not write a message along with the descriptors of the one
/// before it.
#[derive(Debug)]
pub struct Inbox {
    buffer: Box<[u8]>,
    /// The bytes that were not looked at.
    start: usize,
    end: usize,
    /// Where in the stream `start` is.
    position: u64,
    /// Descriptors, each with the place in the stream of a byte of its message.
    fds: VecDeque<(u64, File)>,
    /// The same for descriptors that were lost.
    lost: Option<(u64, Lost)>,
    /// A message that is read over, and what is still to come of it.
    skipping: Option<(Header, usize)>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            position: 0,
            fds: VecDeque::with_capacity(2 * MAX_FDS),
            lost: None,
            skipping: None,
        }
    }
}

impl Inbox {
    /// Where to put what comes next. Never empty once [`Self::next`] has returned `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            // What is left of the last message, which most of the time is nothing.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Takes note of `count` bytes that were put into [`Self::space`] by one read, and of the
    /// descriptors that came with them. `lost`: there were others.
    pub fn received(
        &mut self,
        count: usize,
        fds: impl IntoIterator<Item = File>,
        lost: Option<Lost>,
    ) {
        self.end = self.buffer.len().min(self.end + count);
        let last = self.position + (self.end - self.start).saturating_sub(1) as u64;
        let mut lost = lost;
        for fd in fds {
            // Those of a message that has not come in full, and those of the next one.
            if self.fds.len() < 2 * MAX_FDS {
                self.fds.push_back((last, fd));
            } else {
                lost = Some(Lost::TooMany);
            }
        }
        if let Some(lost) = lost {
            self.lost = Some((last, lost));
        }
    }

    /// The next message, if all of it has come.
    ///
    /// After an error there is no next message.
    #[allow(clippy::should_implement_trait)] // The message borrows from the inbox.
    pub fn next(&mut self) -> Result<Option<Message<'_>>, (Header, Refusal)> {
        let (header, kept) = match self.skipping {
            Some(skipping) => (skipping.0, None),
            None => {
                let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else {
                    return Ok(None);
                };
                let header = Header::parse(bytes);
                if header.size < HEADER_SIZE as u32 || header.size > MAX_MESSAGE {
                    return Err((header, Refusal::Size(header.size)));
                }
                let size = header.size as usize;
                if size > CAPACITY {
                    self.skipping = Some((header, size));
                    (header, None)
                } else if size > self.end - self.start {
                    return Ok(None);
                } else {
                    (header, Some(self.start + HEADER_SIZE..self.start + size))
                }
            }
        };
        if let Some((_, left)) = &mut self.skipping {
            let there = (self.end - self.start).min(*left);
            *left -= there;
            let done = *left == 0;
            self.advance(there);
            if !done {
                return Ok(None);
            }
            self.skipping = None;
        } else {
            self.advance(header.size as usize);
        }
        let (fds, lost) = self.take_fds();
        Ok(Some(Message {
            header,
            payload: kept.map(|range| &self.buffer[range]),
            fds,
            lost,
        }))
    }

    /// Bytes that were looked at, since the inbox was made.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that have come and were not looked at: once [`Self::next`] has returned `None`, the
    /// start of a message.
    pub fn unread(&self) -> usize {
        self.end - self.start
    }

    /// True if there is the start of a message behind which there was no space.
    pub fn is_cut(&self) -> bool {
        self.unread() > 0 && self.end == self.buffer.len()
    }

    /// Forgets what has come and was not looked at, because it will come again.
    pub fn forget(&mut self) {
        (self.start, self.end) = (0, 0);
        self.fds.clear();
        self.lost = None;
    }

    /// The message that is read over, and how much of it is still to come.
    pub fn skipping(&self) -> Option<(Header, usize)> {
        self.skipping
    }

    /// Begins in the middle of a message that another inbox has read over so far.
    pub fn resume(header: Header, left: usize) -> Self {
        Self {
            skipping: Some((header, left)),
            ..Self::default()
        }
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Takes the descriptors of what lies behind.
    fn take_fds(&mut self) -> (Vec<File>, Option<Lost>) {
        let position = self.position;
        let count = self.fds.iter().take_while(|(at, _)| *at < position).count();
        // Without any, as usual, nothing is allocated.
        let fds = self.fds.drain(..count).map(|(_, fd)| fd).collect();
        let lost = self.lost.take_if(|(at, _)| *at < position);
        let too_many = (count > MAX_FDS).then_some(Lost::TooMany);
        (fds, lost.map(|(_, lost)| lost).or(too_many))
    }
}

#[cfg(test)]
mod tests;
