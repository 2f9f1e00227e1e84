// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What holder and worker say to each other, over a pair of sockets that keeps messages apart.
//!
//! A message that was sent arrives, even if its sender is killed at once: it is in the kernel's hands
//! then, and so is its descriptor.
//!
//! The two may be of different versions. So the holder keeps descriptors by the numbers of their
//! tokens, whatever these are, and messages that one side does not know are passed over.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{retry_on_intr, Errno};
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tracing::error;
use vnet_state::{Keeper, Token};

/// One message.
#[derive(Debug)]
pub(crate) enum Message {
    /// A descriptor and the number of its token. To the holder: to be kept; to the worker: kept, or
    /// newly come.
    Descriptor(u64, OwnedFd),
    /// To the holder: to be closed.
    Forget(u64),
    /// To the worker: that is all there is. To the holder: clients may come.
    Ready,
    /// To the worker: another one is to take over.
    HandOver,
    /// To the holder: the program runs, and waits to be told what there is.
    Present,
}

const DESCRIPTOR: u64 = 1;
const FORGET: u64 = 2;
const READY: u64 = 3;
const HAND_OVER: u64 = 4;
const PRESENT: u64 = 5;

/// Two numbers of 64 bits: what it is, and a token.
const SIZE: usize = 16;

/// One end.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

impl Line {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), Errno> {
        let (here, there) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(here), there))
    }

    /// This end.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// From now on, to send takes no longer than this if the other side does not receive.
    pub(crate) fn limit(&self, time: Duration) -> Result<(), Errno> {
        set_socket_timeout(&self.0, Timeout::Send, Some(time))
    }

    /// Sends a descriptor.
    pub(crate) fn pass(&self, token: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.send(DESCRIPTOR, token, &[fd])
    }

    /// Sends [`Message::Ready`].
    pub(crate) fn ready(&self) -> Result<(), Errno> {
        self.send(READY, 0, &[])
    }

    /// Sends [`Message::HandOver`].
    pub(crate) fn hand_over(&self) -> Result<(), Errno> {
        self.send(HAND_OVER, 0, &[])
    }

    /// Sends [`Message::Present`].
    pub(crate) fn present(&self) -> Result<(), Errno> {
        self.send(PRESENT, 0, &[])
    }

    fn send(&self, what: u64, token: u64, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let [mut bytes, rest] = [what, token].map(u64::to_le_bytes).map(Vec::from);
        bytes.extend(rest);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            rights.push(SendAncillaryMessage::ScmRights(fds));
        }
        let data = [IoSlice::new(&bytes)];
        retry_on_intr(|| sendmsg(&self.0, &data, &mut rights, SendFlags::NOSIGNAL)).map(drop)
    }

    /// Waits for a message. `None`: the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Errno> {
        self.receive_with(RecvFlags::empty())
    }

    /// A message that is there already. `None`: there is none, or there will never be one.
    pub(crate) fn receive_now(&self) -> Result<Option<Message>, Errno> {
        match self.receive_with(RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(None),
            result => result,
        }
    }

    fn receive_with(&self, flags: RecvFlags) -> Result<Option<Message>, Errno> {
        loop {
            match self.receive_any(flags)? {
                Some(None) => {}
                Some(message) => return Ok(message),
                None => return Ok(None),
            }
        }
    }

    /// One message: `Some(None)` if it is none that is known.
    fn receive_any(&self, flags: RecvFlags) -> Result<Option<Option<Message>>, Errno> {
        let mut bytes = [0; SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let count = retry_on_intr(|| {
            let mut data = [IoSliceMut::new(&mut bytes)];
            recvmsg(&self.0, &mut data, &mut rights, flags)
        });
        let count = match count {
            Ok(message) => message.bytes,
            Err(Errno::CONNRESET) => return Ok(None),
            Err(e) => return Err(e),
        };
        if count == 0 {
            return Ok(None);
        }
        let fd = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let (what, token) = bytes.split_at(SIZE / 2);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let message = match (number(what), number(token), fd) {
            _ if count != SIZE => None,
            (DESCRIPTOR, token, Some(fd)) => Some(Message::Descriptor(token, fd)),
            (FORGET, token, None) => Some(Message::Forget(token)),
            (READY, _, None) => Some(Message::Ready),
            (HAND_OVER, _, None) => Some(Message::HandOver),
            (PRESENT, _, None) => Some(Message::Present),
            _ => None,
        };
        Ok(Some(message))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Keeper for Line {
    fn keep(&self, token: Token, fd: BorrowedFd<'_>) {
        if let Err(e) = self.pass(token.to_bits(), fd) {
            lost(e);
        }
    }

    fn forget(&self, token: Token) {
        if let Err(e) = self.send(FORGET, token.to_bits(), &[]) {
            lost(e);
        }
    }
}

/// Without a holder, the worker ends. All else would be a mistake.
fn lost(e: Errno) {
    if e != Errno::PIPE {
        error!("holder: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_arrives_although_the_sender_is_gone() {
        let (holder, worker) = Line::pair().unwrap();
        let worker = Line::new(worker);
        let (reader, writer) = std::io::pipe().unwrap();
        worker.keep(Token::Client, writer.as_fd());
        worker.forget(Token::Vector(3));
        worker.ready().unwrap();
        drop((worker, writer));
        let Ok(Some(Message::Descriptor(token, fd))) = holder.receive() else {
            panic!("no descriptor");
        };
        assert_eq!(token, Token::Client.to_bits());
        rustix::io::write(&fd, b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 2]), Ok(1));
        let vector = Token::Vector(3).to_bits();
        let next = holder.receive_now().unwrap();
        assert!(matches!(next, Some(Message::Forget(token)) if token == vector));
        assert!(matches!(holder.receive(), Ok(Some(Message::Ready))));
        assert!(matches!(holder.receive(), Ok(None)));
        assert_eq!(holder.ready(), Err(Errno::PIPE));
    }

    #[test]
    fn nothing_is_not_the_end() {
        let (holder, worker) = Line::pair().unwrap();
        assert!(matches!(holder.receive_now(), Ok(None)));
        Line::new(worker).hand_over().unwrap();
        let now = holder.receive_now();
        assert!(matches!(now, Ok(Some(Message::HandOver))));
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let (holder, worker) = Line::pair().unwrap();
        let worker = Line::new(worker);
        worker
            .send(DESCRIPTOR, Token::Client.to_bits(), &[])
            .unwrap();
        worker.send(99, 7, &[worker.as_fd()]).unwrap();
        worker.present().unwrap();
        assert!(matches!(holder.receive(), Ok(Some(Message::Present))));
        worker.send(99, 0, &[]).unwrap();
        assert!(matches!(holder.receive_now(), Ok(None)));
        // Of a version that keeps what this one does not know.
        worker.pass(u64::MAX, worker.as_fd()).unwrap();
        let kept = holder.receive();
        assert!(matches!(kept, Ok(Some(Message::Descriptor(u64::MAX, _)))));
    }
}
