// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What may take its time to close.
//!
//! close(2) can wait for as long as somebody else likes: for the other end of a TCP connection that
//! lingers, for a terminal, for what lies in a unix socket that nobody has read. It cannot be told not
//! to, and neither can a read that brings descriptors which nobody takes. A client may send any. Those
//! that a card has a use for are files and eventfds, which close at once; all others, and a client's
//! socket with what it has not read, are closed by a thread that nobody waits for.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::{forget, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, SendError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::fs::{fstat, FileType};
use rustix::io::{ioctl_fionread, retry_on_intr, Errno};
use rustix::net::{
    recv, recvmsg, shutdown, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    Shutdown,
};
use vnet_irq::EventFd;
use vnet_protocol::Lost;

/// With so many that are not closed yet, no more is read from clients of the card.
const MOST: usize = 64;

/// Most descriptors that Linux lets come with one message (`SCM_MAX_FD`). It closes what there is no
/// room for, and whoever reads waits for that.
const MOST_SENT: usize = 253;

/// Has closed what clients of one card leave. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What is not closed yet.
    waiting: Arc<AtomicUsize>,
    /// To the thread, from the first time that there is something to do. It ends when this is gone and
    /// all is closed.
    thread: OnceLock<Sender<Waste>>,
}

/// What is to be closed.
enum Waste {
    /// Something of a client's.
    Foreign(OwnedFd),
    /// The socket of a client, which was shut down.
    Client(OwnedFd),
}

/// What one read has brought.
pub(crate) struct Read {
    pub(crate) bytes: usize,
    /// Files and eventfds.
    pub(crate) fds: Vec<File>,
    /// There were other descriptors.
    pub(crate) lost: Option<Lost>,
}

impl Closer {
    /// True if a client has left more than can be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) >= MOST
    }

    /// Reads from the socket of a client what is there.
    pub(crate) fn read(
        &self,
        socket: &OwnedFd,
        space: &mut [u8],
        flags: RecvFlags,
    ) -> Result<Read, Errno> {
        let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SENT))];
        let mut control = RecvAncillaryBuffer::new(&mut control);
        let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut space = [IoSliceMut::new(space)];
        let message = retry_on_intr(|| recvmsg(socket, &mut space, &mut control, flags))?;
        // If there are no more numbers for them.
        let cut = message.flags.contains(ReturnFlags::CTRUNC);
        let mut read = Read {
            bytes: message.bytes,
            fds: Vec::new(),
            lost: cut.then_some(Lost::TooMany),
        };
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        for fd in rights.flatten() {
            match is_of_use(&fd) {
                true => read.fds.push(fd.into()),
                false => {
                    read.lost = Some(Lost::Foreign);
                    self.give(Waste::Foreign(fd));
                }
            }
        }
        Ok(read)
    }

    /// Hangs up. What the client has sent and nobody has read is let go with its socket by
    /// whoever closes that last; which may be another process, and so is not left to it.
    pub(crate) fn hang_up(&self, socket: OwnedFd) {
        let _ = shutdown(&socket, Shutdown::Both);
        // Nothing more comes.
        if ioctl_fionread(&socket) != Ok(0) {
            self.give(Waste::Client(socket));
        }
    }

    fn give(&self, waste: Waste) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let thread = self.0.thread.get_or_init(|| start(&self.0.waiting));
        if let Err(SendError(waste)) = thread.send(waste) {
            // There is no thread. It stays open, and counts.
            forget(waste);
        }
    }
}

/// Lets go of a client that nobody serves any more, without waiting for what it has sent to be closed.
pub fn hang_up(client: OwnedFd) {
    Closer::default().hang_up(client);
}

/// A file or an eventfd.
fn is_of_use(fd: &OwnedFd) -> bool {
    let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
    fstat(fd).is_ok_and(|stat| is_file(stat.st_mode)) || EventFd::is_one(fd.as_fd())
}

fn start(waiting: &Arc<AtomicUsize>) -> Sender<Waste> {
    let (sender, waste) = channel::<Waste>();
    let waiting = Arc::clone(waiting);
    let close = move || {
        for waste in waste {
            waste.close();
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    };
    // Without one, nothing can be sent.
    let _ = thread::Builder::new()
        .name("vnet-close".into())
        .spawn(close);
    sender
}

impl Waste {
    fn close(self) {
        match self {
            Self::Foreign(fd) => drop(fd),
            // Linux closes the descriptors as they come.
            Self::Client(socket) => {
                while let Ok((_, 1..)) = recv(&socket, &mut [0; 4096], RecvFlags::DONTWAIT) {}
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
