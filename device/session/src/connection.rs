// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The socket of one client.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{
    recvmsg, send, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
};
use vnet_dma::Relay;
use vnet_protocol::{Header, Inbox, Negotiated, MAX_FDS};

use crate::control::Control;
use crate::lifeline::Lifeline;

/// How often a message is looked at of which the end has not come.
const PART: Duration = Duration::from_micros(200);

/// A connection to a client. No call waits, but those that are told what may end the wait; the
/// descriptor may be in blocking mode all the same.
pub(crate) struct Connection<'a> {
    socket: OwnedFd,
    lifeline: Option<&'a Lifeline>,
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

impl<'a> Connection<'a> {
    /// A client at the other end of a stream socket, in a session that may outlive the process.
    pub(crate) fn new(socket: OwnedFd, lifeline: Option<&'a Lifeline>) -> Self {
        Self { socket, lifeline }
    }

    /// What was agreed on with the client in another process, for which all is done that was left
    /// to do. `Ok(None)`: the client is lost.
    pub(crate) fn recover(&self, control: &Control) -> Result<Option<Option<Negotiated>>, Errno> {
        let Some(lifeline) = self.lifeline else {
            return Ok(Some(None));
        };
        let negotiated = lifeline.recover(&self.socket)?;
        match self.push(lifeline, control)? {
            true => Ok(negotiated),
            false => Ok(None),
        }
    }

    /// Reads what there is, as far as there is space for it. If the session may outlive the process,
    /// it stays in the socket until it was handled.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> Result<Received, Errno> {
        let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut control);
        let mut space = [IoSliceMut::new(inbox.space())];
        let mut flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::PEEK, self.lifeline.is_some());
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

    /// Sends the answer, if there is one, to a message that was handled, or to the end of it; that
    /// has `size` bytes. False: the client is gone, or `control` asks for something.
    pub(crate) fn answer(
        &self,
        header: &Header,
        size: u64,
        answer: &[u8],
        control: &Control,
    ) -> Result<bool, Errno> {
        let Some(lifeline) = self.lifeline else {
            return self.send(answer, control);
        };
        lifeline.put(header, answer)?;
        lifeline.take(&self.socket, size)?;
        match answer.is_empty() {
            true => Ok(true),
            false => self.push(lifeline, control),
        }
    }

    /// All messages that have come in full were handled, and `skipped` bytes of one that is too
    /// long to be kept were looked at.
    pub(crate) fn handled(&self, inbox: &mut Inbox, skipped: u64) -> Result<(), Errno> {
        let Some(lifeline) = self.lifeline else {
            return Ok(());
        };
        lifeline.skip(&self.socket, skipped)?;
        if inbox.forget() {
            // The rest of a message is to come, and there is no way to wait for that. Clients
            // send messages in one piece.
            sleep(PART);
        }
        Ok(())
    }

    /// Takes note of what was agreed on with the client.
    pub(crate) fn agree(&self, negotiated: Option<Negotiated>) {
        if let Some(lifeline) = self.lifeline {
            lifeline.agree(negotiated);
        }
    }

    /// Sends what the pipe has for the client.
    fn push(&self, lifeline: &Lifeline, control: &Control) -> Result<bool, Errno> {
        loop {
            match lifeline.push(&self.socket) {
                Ok(true) => return Ok(true),
                Ok(false) => self.wait(PollFlags::OUT, control)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
                Err(e) => return Err(e),
            }
            if control.request().is_some() {
                return Ok(false);
            }
        }
    }

    /// Sends a reply. False: the client is gone, or `control` asks for something.
    ///
    /// A client that sends requests without reading the replies has to read before it is served
    /// again. A reply goes out in one piece if it can, for QEMU wants the header in one.
    fn send(&self, mut reply: &[u8], control: &Control) -> Result<bool, Errno> {
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

    /// Sends a message that is no answer. False: the client is gone, or `control` asks for
    /// something.
    pub(crate) fn ask(&self, message: &[u8], control: &Control) -> Result<bool, Errno> {
        self.send(message, control)
    }

    /// Sleeps until the client has sent something or is gone, or `control` asks for something; or
    /// until the client is to be asked for something: then returns true.
    pub(crate) fn wait_for_data(
        &self,
        control: &Control,
        relay: Option<&Relay>,
    ) -> Result<bool, Errno> {
        let Some(relay) = relay else {
            self.wait(PollFlags::IN, control)?;
            return Ok(false);
        };
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
            PollFd::new(relay, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[1].revents().is_empty() {
            control.clear();
        }
        let asks = !fds[2].revents().is_empty();
        if asks {
            relay.clear();
        }
        Ok(asks)
    }

    fn wait(&self, events: PollFlags, control: &Control) -> Result<(), Errno> {
        let mut fds = [
            PollFd::new(&self.socket, events),
            PollFd::new(control, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[1].revents().is_empty() {
            control.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
