// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A session that outlives the process that serves it.
//!
//! The next process must neither miss a message nor answer one twice: QEMU waits five seconds for an
//! answer and then gives up for good, and it takes one that it does not expect for a broken stream.
//! So a message stays in the socket while it is handled, and an answer is put into a pipe before
//! the message is taken out, and goes from there to the client:
//!
//! 1. look at the message (`MSG_PEEK`), say in a cell that it is begun, handle it, and write down
//!    what has changed;
//! 2. write the answer into the pipe;
//! 3. take the message out of the socket;
//! 4. have the kernel move the answer from the pipe to the client (`splice`).
//!
//! A process that is killed before 2 leaves the message in the socket and nothing in the pipe: the
//! next one handles the message again, which does no harm ([`vnet_card`]), and knows by the cell that
//! it does. From then on there is something in the pipe. If the message is still in the socket, too,
//! it is taken out; then the answer goes on its way. Each of these steps is a system call, which a
//! signal does not interrupt half-way.
//!
//! But 3 may be several, since Linux ends a read behind a write that had descriptors. How many of
//! them were done, the socket knows: it counts the bytes that were looked at and are still there
//! (`SO_PEEK_OFF`, which also has each look begin where the last one ended), and a cell says what is
//! left of them when the message is out. A message that is too long to be kept is taken out as it
//! comes; then the same count says how much of it is missing, and a cell how to answer it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{ioctl_fionread, retry_on_intr, Errno};
use rustix::net::{recv, RecvFlags};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, splice, PipeFlags, SpliceFlags};
use vnet_protocol::{Header, Negotiated, CAPACITY, HEADER_SIZE};
use vnet_state::{Block, Cell, Held, Keeper, Memory, Token, SESSION};

use crate::closer::Closer;
use crate::sys::{peek_offset, set_peek_offset};

/// Room in the pipe: an answer of any length, however the kernel divides it into pages.
const PIPE_SIZE: usize = 4 * CAPACITY;

/// Messages of this size, which are nearly all, are taken without an allocation.
const SHORT: usize = 512;

/// Number of the command with which a session begins.
const VERSION: u16 = 1;

/// Beside what was agreed on: a cell says whether a message is begun. A version that does not know of
/// it writes down what was agreed on without this, once it has handled a message. That it died in
/// its very first one is not seen.
const TELLS: u64 = 1 << 2;

/// What outlives the process of a session.
pub struct Lifeline {
    keeper: Arc<dyn Keeper>,
    closer: Closer,
    read: OwnedFd,
    write: OwnedFd,
    /// What was agreed on; see [`pack`].
    negotiated: Cell,
    /// The message whose answer is in the pipe; see [`mark`].
    answered: Cell,
    /// What is being taken out of the socket; see [`Taking`].
    taking: Cell,
    /// How a message that is too long to be kept begins; see [`brief`].
    long: Cell,
    /// One from before a message is handled until it is being taken out, and otherwise zero.
    begun: Cell,
}

/// What is being taken out of the socket. Other versions take what they do not know for
/// [`Self::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    /// Nothing.
    Nothing,
    /// A message that was handled. When it is out, so many bytes are left that were looked at.
    Message { rest: usize },
    /// One that is too long to be kept.
    Long,
    /// What was left by a version that did not know how much of it.
    Lost,
}

impl Taking {
    fn pack(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Lost => 1,
            Self::Message { rest } => (rest as u64) << 8 | 2,
            Self::Long => 3,
        }
    }

    fn unpack(packed: u64) -> Self {
        match packed & 0xff {
            0 => Self::Nothing,
            2 => Self::Message {
                rest: (packed >> 8) as usize,
            },
            3 => Self::Long,
            _ => Self::Lost,
        }
    }
}

/// Where another process stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// What was agreed on with the client.
    pub(crate) negotiated: Option<Negotiated>,
    /// The message that was being read over, and how much of it is still to come.
    pub(crate) long: Option<(Header, usize)>,
    /// The next message may have been handled, wholly or in part.
    pub(crate) again: bool,
}

impl Lifeline {
    /// Of the cells and the pipe that another process left, if it did.
    pub fn new(memory: &Arc<Memory>, keeper: Arc<dyn Keeper>, held: &mut Held) -> io::Result<Self> {
        let [reader, writer] = [false, true].map(|write| Token::Replies { write });
        let (read, write) = match (held.remove(&reader), held.remove(&writer)) {
            (Some(read), Some(write)) => (read, write),
            _ => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                fcntl_setpipe_size(&write, PIPE_SIZE)?;
                keeper.keep(reader, read.as_fd());
                keeper.keep(writer, write.as_fd());
                (read, write)
            }
        };
        let Some(block) = Block::new(memory, SESSION) else {
            unreachable!("the block of the session is one of those that there are");
        };
        Ok(Self {
            keeper,
            closer: Closer::default(),
            read,
            write,
            negotiated: block.cell(0),
            answered: block.cell(1),
            taking: block.cell(2),
            long: block.cell(3),
            begun: block.cell(4),
        })
    }

    /// Has closed what its clients leave.
    pub(crate) fn closer(&self) -> &Closer {
        &self.closer
    }

    /// Does what is left to do for the last message that another process handled. `None`: the
    /// stream is lost. What is in the pipe is still to be sent.
    pub(crate) fn recover(&self, socket: &OwnedFd) -> Result<Option<Recovered>, Errno> {
        let answered = ioctl_fionread(&self.read)? != 0;
        match Taking::unpack(self.taking.get()) {
            Taking::Lost => return Ok(None),
            Taking::Message { rest } => {
                let there = peek_offset(socket)?.unwrap_or(0);
                self.discard(socket, there.saturating_sub(rest))?;
                self.taken();
            }
            Taking::Long if answered => self.taken(),
            Taking::Long => {
                let left = peek_offset(socket)?.unwrap_or(0);
                return Ok(Some(Recovered {
                    long: Some((unbrief(self.long.get()), left)),
                    ..self.recovered()
                }));
            }
            Taking::Nothing => {
                let first = peek(socket)?;
                // A client does not use an id again before it has the answer.
                let known = |h: &Header| !h.no_reply() && mark(h) == self.answered.get();
                if let (true, Some(header)) = (answered, first.filter(known)) {
                    let size = header.size as usize;
                    set_peek_offset(socket, Some(size))?;
                    self.take(socket, size, 0)?;
                }
                // What the answer to this one was to say may be written down already.
                if !answered && first.is_some_and(|header| header.command == VERSION) {
                    self.agree(None);
                }
            }
        }
        set_peek_offset(socket, Some(0))?;
        Ok(Some(self.recovered()))
    }

    /// What the cells say once nothing is being taken out.
    fn recovered(&self) -> Recovered {
        let agreed = self.negotiated.get();
        // Before something is agreed on, no message reaches the card.
        let untold = agreed != 0 && agreed & TELLS == 0;
        Recovered {
            negotiated: unpack(agreed),
            long: None,
            again: untold || self.begun.get() != 0,
        }
    }

    /// Lets the socket be as it was, for a process of another version. Not called in the middle of
    /// a message that is being taken out.
    pub(crate) fn leave(&self, socket: &OwnedFd) -> Result<(), Errno> {
        match Taking::unpack(self.taking.get()) {
            Taking::Nothing => set_peek_offset(socket, None),
            _ => Ok(()),
        }
    }

    /// Begins to look at the socket from its first byte.
    pub(crate) fn look_again(&self, socket: &OwnedFd) -> Result<(), Errno> {
        set_peek_offset(socket, Some(0))
    }

    /// Before a message is handled.
    pub(crate) fn begin(&self) {
        self.begun.set_first(1);
    }

    /// Step 2.
    pub(crate) fn put(&self, header: &Header, answer: &[u8]) -> Result<(), Errno> {
        if answer.is_empty() {
            return Ok(());
        }
        self.answered.set(mark(header));
        // There is room for all of it.
        match retry_on_intr(|| rustix::io::write(&self.write, answer))? {
            n if n == answer.len() => Ok(()),
            _ => Err(Errno::MSGSIZE),
        }
    }

    /// Step 3: takes a message of this size, behind which `rest` bytes were looked at. One that was
    /// too long has gone already.
    pub(crate) fn take(&self, socket: &OwnedFd, size: usize, rest: usize) -> Result<(), Errno> {
        if !self.is_skipping() {
            self.taking.set(Taking::Message { rest }.pack());
            self.discard(socket, size)?;
        }
        self.taken();
        Ok(())
    }

    /// The message is out of the socket. Not in the other order, which for a moment would have the next
    /// one begun. As long as this one is being taken out, the cell is not looked at.
    fn taken(&self) {
        self.begun.set(0);
        self.taking.set(Taking::Nothing.pack());
    }

    /// Takes bytes out of the socket that were seen there, and closes the descriptors with them.
    fn discard(&self, socket: &OwnedFd, mut count: usize) -> Result<(), Errno> {
        let mut short = [0; SHORT];
        let mut long = Vec::new();
        let bytes = match count {
            0..=SHORT => &mut short[..],
            _ => {
                long.resize(count.min(CAPACITY), 0);
                &mut long[..]
            }
        };
        while count > 0 {
            let most = count.min(bytes.len());
            let flags = RecvFlags::empty();
            match self.closer.read(socket, &mut bytes[..most], flags) {
                Ok(read) if read.bytes == 0 => return Ok(()),
                Err(Errno::CONNRESET) => return Ok(()),
                Ok(read) => count -= read.bytes,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Step 4, as far as the client takes it. True if nothing is left.
    pub(crate) fn push(&self, socket: &OwnedFd) -> Result<bool, Errno> {
        loop {
            let left = ioctl_fionread(&self.read)? as usize;
            if left == 0 {
                return Ok(true);
            }
            let flags = SpliceFlags::NONBLOCK;
            match retry_on_intr(|| splice(&self.read, None, socket, None, left, flags)) {
                Err(Errno::AGAIN) => return Ok(false),
                result => result?,
            };
        }
    }

    /// In place of steps 1 to 3: the message that begins in the socket is too long to be kept, and
    /// what comes of it is taken. So many bytes of it were looked at.
    pub(crate) fn skip(
        &self,
        socket: &OwnedFd,
        header: &Header,
        looked_at: usize,
    ) -> Result<(), Errno> {
        set_peek_offset(socket, Some(header.size as usize))?;
        self.long.set(brief(header));
        self.taking.set(Taking::Long.pack());
        self.discard(socket, looked_at)
    }

    /// True from there on until the end of that message.
    pub(crate) fn is_skipping(&self) -> bool {
        Taking::unpack(self.taking.get()) == Taking::Long
    }

    /// Writes down what was agreed on.
    pub(crate) fn agree(&self, negotiated: Option<Negotiated>) {
        let packed = negotiated.map_or(0, pack);
        if self.negotiated.get() != packed {
            self.negotiated.set(packed);
        }
    }

    /// The client is gone, and all that it gave was given back.
    pub(crate) fn end(&self) {
        self.agree(None);
        self.taken();
        let mut bytes = [0; 4096];
        while let Ok(1..) = rustix::io::read(&self.read, &mut bytes) {}
        // Last: from now on there may be another one.
        self.keeper.forget(Token::Client);
    }
}

/// The header of the next message, if it has come.
fn peek(socket: &OwnedFd) -> Result<Option<Header>, Errno> {
    set_peek_offset(socket, Some(0))?;
    let mut bytes = [0; HEADER_SIZE];
    let mut come = 0;
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    while come < HEADER_SIZE {
        match retry_on_intr(|| recv(socket, &mut bytes[come..], flags)) {
            Ok((_, 0)) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
            Ok((_, n)) => come += n,
            Err(e) => return Err(e),
        }
    }
    Ok(Some(Header::parse(&bytes)))
}

/// What of a header is needed to answer the message.
fn brief(header: &Header) -> u64 {
    u64::from(header.flags) << 32 | mark(header)
}

fn unbrief(packed: u64) -> Header {
    Header {
        id: (packed >> 16) as u16,
        command: packed as u16,
        size: 0,
        flags: (packed >> 32) as u32,
        errno: 0,
    }
}

/// Tells a message from others that the client waits for.
fn mark(header: &Header) -> u64 {
    u64::from(header.id) << 16 | u64::from(header.command)
}

fn pack(negotiated: Negotiated) -> u64 {
    u64::from(negotiated.max_data) << 32 | u64::from(negotiated.write_multiple) << 1 | TELLS | 1
}

fn unpack(packed: u64) -> Option<Negotiated> {
    (packed & 1 != 0).then_some(Negotiated {
        max_data: (packed >> 32) as u32,
        write_multiple: packed & 2 != 0,
    })
}

#[cfg(test)]
pub(crate) mod tests;
