// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The socket of one client.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{epoll, poll, PollFd, PollFlags, Timespec};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::sockopt::set_socket_oobinline;
use rustix::net::{send, RecvFlags, SendFlags};
use vnet_dma::Relay;
use vnet_protocol::{Header, Inbox, Negotiated};

use crate::closer::Closer;
use crate::control::Control;
use crate::lifeline::{Lifeline, Recovered};

/// How long the rest of a message may take that stays in the socket until then. It may be waiting
/// for room there. QEMU has given up on a request by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a client. No call waits, but those that are told what may end the wait; the
/// descriptor may be in blocking mode all the same.
pub(crate) struct Connection<'a> {
    socket: OwnedFd,
    lifeline: Option<&'a Lifeline>,
    closer: Closer,
    /// Tells when something comes behind what was looked at; see [`Self::wait_for_more`].
    arrivals: OnceLock<OwnedFd>,
    #[cfg(test)]
    pub(crate) reads: std::sync::atomic::AtomicUsize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Something.
    Data {
        /// There may be more.
        more: bool,
    },
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
}

/// What a sleep has ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The client has sent something or is gone, or `control` asks for something.
    Event,
    /// The client is to be asked for something.
    Asks,
    /// The rest of a message does not come.
    Late,
}

impl<'a> Connection<'a> {
    /// A client at the other end of a stream socket.
    pub(crate) fn new(socket: OwnedFd, closer: &Closer) -> Self {
        Self::with(socket, closer, None)
    }

    /// The same in a session that may outlive the process.
    pub(crate) fn kept(socket: OwnedFd, lifeline: &'a Lifeline) -> Self {
        Self::with(socket, lifeline.closer(), Some(lifeline))
    }

    fn with(socket: OwnedFd, closer: &Closer, lifeline: Option<&'a Lifeline>) -> Self {
        // An urgent byte is one like others. Else a look would pass over one, for which poll(2) says
        // that there is something to look at, and a read would drop it.
        let _ = set_socket_oobinline(&socket, true);
        Self {
            socket,
            lifeline,
            closer: closer.clone(),
            arrivals: OnceLock::new(),
            #[cfg(test)]
            reads: Default::default(),
        }
    }

    /// Where another process stopped, once all is done that was left to do. `Ok(None)`: the client
    /// is lost.
    pub(crate) fn recover(&self, control: &Control) -> Result<Option<Recovered>, Errno> {
        let Some(lifeline) = self.lifeline else {
            return Ok(Some(Recovered::default()));
        };
        let recovered = lifeline.recover(&self.socket)?;
        match self.push(lifeline, control)? {
            true => Ok(recovered),
            false => Ok(None),
        }
    }

    /// Reads what there is, as far as there is space for it. If the session may outlive the process,
    /// it stays in the socket until it was handled, and is looked at once.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> Result<Received, Errno> {
        let mut flags = RecvFlags::empty();
        let most = match (self.lifeline, inbox.skipping()) {
            (None, _) => usize::MAX,
            // It is not kept, and nothing behind it is to be taken.
            (Some(_), Some((_, left))) => left,
            (Some(_), None) => {
                flags |= RecvFlags::PEEK;
                usize::MAX
            }
        };
        let space = inbox.space();
        let most = most.min(space.len());
        #[cfg(test)]
        self.reads
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let read = match self.closer.read(&self.socket, &mut space[..most], flags) {
            Ok(read) if read.bytes == 0 => return Ok(Received::End),
            Ok(read) => read,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // It left without reading all that it was sent.
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(e) => return Err(e),
        };
        // Linux ends a read behind a write that had descriptors, whatever there is.
        let more = read.bytes == most || !read.fds.is_empty() || read.lost.is_some();
        inbox.received(read.bytes, read.fds, read.lost);
        Ok(Received::Data { more })
    }

    /// True if clients have left more than can be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.closer.is_full()
    }

    /// Hangs up on a client that is gone, or is to go.
    pub(crate) fn hang_up(self) {
        self.closer.hang_up(self.socket);
    }

    /// A message is going to be handled.
    pub(crate) fn begin(&self) {
        if let Some(lifeline) = self.lifeline {
            lifeline.begin();
        }
    }

    /// Sends the answer, if there is one, to the message of this size that was handled, behind which
    /// so many bytes were read. False: the client is gone, or `control` asks for something.
    pub(crate) fn answer(
        &self,
        header: &Header,
        (size, rest): (usize, usize),
        answer: &[u8],
        control: &Control,
    ) -> Result<bool, Errno> {
        let Some(lifeline) = self.lifeline else {
            return self.send(answer, control);
        };
        lifeline.put(header, answer)?;
        lifeline.take(&self.socket, size, rest)?;
        match answer.is_empty() {
            true => Ok(true),
            false => self.push(lifeline, control),
        }
    }

    /// All messages that have come in full were handled.
    pub(crate) fn handled(&self, inbox: &mut Inbox) -> Result<(), Errno> {
        let Some(lifeline) = self.lifeline else {
            return Ok(());
        };
        match inbox.skipping() {
            Some((header, left)) if !lifeline.is_skipping() => {
                lifeline.skip(&self.socket, &header, header.size as usize - left)
            }
            // The look may have ended within a write with descriptors, and the next one would bring
            // them a second time.
            None if inbox.is_cut() => {
                inbox.forget();
                lifeline.look_again(&self.socket)
            }
            _ => Ok(()),
        }
    }

    /// Leaves the client to another process.
    pub(crate) fn leave(&self) -> Result<(), Errno> {
        self.lifeline
            .map_or(Ok(()), |lifeline| lifeline.leave(&self.socket))
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
    /// until the client is to be asked for something. In `inbox` is what was read and not handled.
    pub(crate) fn wait_for_data(
        &self,
        inbox: &Inbox,
        control: &Control,
        relay: Option<&Relay>,
    ) -> Result<Woken, Errno> {
        if self.lifeline.is_some() && inbox.unread() > 0 {
            return self.wait_for_more(control);
        }
        let Some(relay) = relay else {
            self.wait(PollFlags::IN, control)?;
            return Ok(Woken::Event);
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
        if fds[2].revents().is_empty() {
            return Ok(Woken::Event);
        }
        relay.clear();
        Ok(Woken::Asks)
    }

    /// The same while the start of a message is in the socket, which would end every wait for
    /// something to be there.
    fn wait_for_more(&self, control: &Control) -> Result<Woken, Errno> {
        let arrivals = match self.arrivals.get() {
            Some(arrivals) => arrivals,
            None => {
                let new = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                let flags =
                    epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
                epoll::add(&new, &self.socket, epoll::EventData::new_u64(0), flags)?;
                self.arrivals.get_or_init(|| new)
            }
        };
        let mut fds = [
            PollFd::new(arrivals, PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
        ];
        let patience = Timespec::try_from(PATIENCE).ok();
        if retry_on_intr(|| poll(&mut fds, patience.as_ref()))? == 0 {
            return Ok(Woken::Late);
        }
        if !fds[1].revents().is_empty() {
            control.clear();
        }
        let mut events = [MaybeUninit::uninit(); 1];
        epoll::wait(arrivals, &mut events, Some(&Timespec::default()))?;
        Ok(Woken::Event)
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
