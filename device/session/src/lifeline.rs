// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A session that outlives the process that serves it.
//!
//! The next process must neither miss a message nor answer one twice: QEMU waits five seconds for an
//! answer and then gives up for good, and it takes one that it does not expect for a broken stream.
//! So a message stays in the socket while it is handled, and an answer is put into a pipe before
//! the message is taken out, and goes from there to the client:
//!
//! 1. look at the message (`MSG_PEEK`), handle it, and write down what has changed;
//! 2. write the answer into the pipe;
//! 3. take the message out of the socket;
//! 4. have the kernel move the answer from the pipe to the client (`splice`).
//!
//! A process that is killed before 2 leaves the message in the socket and nothing in the pipe: the
//! next one handles the message again, which does no harm ([`vnet_card`]). From then on there is
//! something in the pipe. If the message is still in the socket, too, it is taken out; then the
//! answer goes on its way. Each of these steps is one system call, which a signal does not interrupt
//! half-way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{ioctl_fionread, retry_on_intr, Errno};
use rustix::net::{recv, RecvFlags};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, splice, PipeFlags, SpliceFlags};
use vnet_protocol::{Header, Negotiated, CAPACITY, HEADER_SIZE};
use vnet_state::{Block, Cell, Held, Keeper, Memory, Token, SESSION};

/// Room in the pipe: an answer of any length, however the kernel divides it into pages.
const PIPE_SIZE: usize = 4 * CAPACITY;

/// Messages of this size, which are nearly all, are taken without an allocation.
const SHORT: usize = 512;

/// Number of the command with which a session begins.
const VERSION: u16 = 1;

/// What outlives the process of a session.
pub struct Lifeline {
    keeper: Arc<dyn Keeper>,
    read: OwnedFd,
    write: OwnedFd,
    /// What was agreed on; see [`pack`].
    negotiated: Cell,
    /// The message whose answer is in the pipe; see [`mark`].
    answered: Cell,
    /// Part of a message was taken out of the socket without being kept.
    skipping: Cell,
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
            read,
            write,
            negotiated: block.cell(0),
            answered: block.cell(1),
            skipping: block.cell(2),
        })
    }

    /// Does what is left to do for the last message that another process handled. `None`: the
    /// stream is lost. Else returns what was agreed on with the client.
    pub(crate) fn recover(&self, socket: &OwnedFd) -> Result<Option<Option<Negotiated>>, Errno> {
        if self.skipping.get() != 0 {
            return Ok(None);
        }
        let first = peek(socket)?;
        if ioctl_fionread(&self.read)? != 0 {
            // A client does not use an id again before it has the answer.
            let first = first.filter(|h| !h.no_reply() && mark(h) == self.answered.get());
            if let Some(header) = first {
                take(socket, header.size as usize)?;
            }
            return Ok(Some(unpack(self.negotiated.get())));
        }
        // What the answer to this one was to say may be written down already.
        let begins = first.is_some_and(|header| header.command == VERSION);
        Ok(Some(unpack(self.negotiated.get()).filter(|_| !begins)))
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

    /// Step 3: takes a message of this size, or the end of one of which the start was skipped.
    pub(crate) fn take(&self, socket: &OwnedFd, size: u64) -> Result<(), Errno> {
        take(socket, size as usize)?;
        if self.skipping.get() != 0 {
            self.skipping.set(0);
        }
        Ok(())
    }

    /// Takes so much of a message that is too long to be kept.
    pub(crate) fn skip(&self, socket: &OwnedFd, size: u64) -> Result<(), Errno> {
        if size > 0 {
            self.skipping.set(1);
            take(socket, size as usize)?;
        }
        Ok(())
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
        self.skipping.set(0);
        let mut bytes = [0; 4096];
        while let Ok(1..) = rustix::io::read(&self.read, &mut bytes) {}
        // Last: from now on there may be another one.
        self.keeper.forget(Token::Client);
    }
}

/// The header of the next message, if it has come.
fn peek(socket: &OwnedFd) -> Result<Option<Header>, Errno> {
    let mut bytes = [0; HEADER_SIZE];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match retry_on_intr(|| recv(socket, &mut bytes, flags)) {
        Ok((_, HEADER_SIZE)) => Ok(Some(Header::parse(&bytes))),
        Ok(_) | Err(Errno::AGAIN | Errno::CONNRESET) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes bytes out of the socket that were seen there, and closes the descriptors with them.
///
/// In one call, so that a process which is killed has taken the whole message or nothing of it. Only
/// descriptors with a message that the sender's kernel had to divide make it more calls.
fn take(socket: &OwnedFd, mut count: usize) -> Result<(), Errno> {
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
        match retry_on_intr(|| recv(socket, &mut bytes[..most], RecvFlags::DONTWAIT)) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(()),
            Ok((_, n)) => count -= n,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Tells a message from others that the client waits for.
fn mark(header: &Header) -> u64 {
    u64::from(header.id) << 16 | u64::from(header.command)
}

fn pack(negotiated: Negotiated) -> u64 {
    u64::from(negotiated.max_data) << 32 | u64::from(negotiated.write_multiple) << 1 | 1
}

fn unpack(packed: u64) -> Option<Negotiated> {
    (packed & 1 != 0).then_some(Negotiated {
        max_data: (packed >> 32) as u32,
        write_multiple: packed & 2 != 0,
    })
}
