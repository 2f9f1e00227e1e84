// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The socket of one client.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{
    recvmsg, send, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
};
use vnet_protocol::{Inbox, MAX_FDS};

use crate::control::Control;

/// A connection to a client. No call waits, but those that are told what may end the wait; the
/// descriptor may be in blocking mode all the same.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Something.
    Data,
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
}

impl Connection {
    /// A client at the other end of a stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Reads what there is, as far as there is space for it.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> Result<Received, Errno> {
        let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut control);
        let mut space = [IoSliceMut::new(inbox.space())];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = match retry_on_intr(|| recvmsg(&self.socket, &mut space, &mut control, flags))
        {
            Ok(message) if message.bytes == 0 => return Ok(Received::End),
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // It left without reading all that it was sent.
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(e) => return Err(e),
        };
        let lost = message.flags.contains(ReturnFlags::CTRUNC);
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        inbox.received(message.bytes, rights.flatten().map(File::from), lost);
        Ok(Received::Data)
    }

    /// Sends a reply. False: the client is gone, or `control` asks for something.
    ///
    /// A client that sends requests without reading the replies has to read before it is served
    /// again. A reply goes out in one piece if it can, for QEMU wants the header in one.
    pub(crate) fn send(&self, mut reply: &[u8], control: &Control) -> Result<bool, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !reply.is_empty() {
            match retry_on_intr(|| send(&self.socket, reply, flags)) {
                Ok(sent) => reply = &reply[sent..],
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::OUT, control)?;
                    if control.request().is_some() {
                        return Ok(false);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Sleeps until the client has sent something or is gone, or `control` asks for something.
    pub(crate) fn wait_for_data(&self, control: &Control) -> Result<(), Errno> {
        self.wait(PollFlags::IN, control)
    }

    fn wait(&self, events: PollFlags, control: &Control) -> Result<(), Errno> {
        let mut fds = [
            PollFd::new(&self.socket, events),
            PollFd::new(control, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None)).map(drop)
    }
}

#[cfg(test)]
mod tests;
