// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One client after another.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{accept_with, SocketFlags};
use tracing::{debug, info, warn};
use vnet_card::{Card, Limit};
use vnet_dma::Relay;
use vnet_protocol::{Command, Inbox, Layout, Protocol, Refusal};

use crate::asking::Asking;
use crate::closer::Closer;
use crate::connection::{Connection, Received, Woken};
use crate::control::{ClientId, Control, Request};
use crate::device::Device;
use crate::error::Error;
use crate::layout;
use crate::lifeline::{Lifeline, Recovered};
use crate::socket::Socket;

/// A card that the message thread shares with whoever ends the program. Outside of that nobody
/// else takes the lock, so that the message thread never waits for it.
pub type SharedCard = Arc<Mutex<Card>>;

/// How long to wait when the system is out of descriptors or memory.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Serves a card on a socket.
pub struct Session {
    /// `None`: clients are brought.
    listener: Option<OwnedFd>,
    device: Device,
    layout: Layout,
    control: Control,
    /// Of clients that do not outlive the process; a lifeline has its own.
    closer: Closer,
    /// On what clients can have written to the log.
    limit: Limit,
}

/// How the session of a client ended.
#[derive(Debug)]
enum End {
    /// The client left.
    Left,
    /// It was hung up on by [`Control`].
    HungUp,
    /// It sent what it cannot go on after.
    Refused(Refusal),
    /// It sent the start of a message, and no more.
    Late,
    /// It left more than can be closed.
    Unclosed,
    /// Its socket failed.
    Failed(io::Error),
}

impl End {
    fn failed(e: Errno) -> Self {
        Self::Failed(e.into())
    }
}

impl Session {
    /// Prepares to serve. `on_fatal` is called, from the thread that [`Self::run`] is called on,
    /// when this client shows that it can never work; it stays connected until it is told otherwise
    /// ([`Control::hang_up`]).
    pub fn new(
        socket: &Socket,
        card: SharedCard,
        on_fatal: impl FnMut(ClientId, Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let listener = socket.listener().map_err(Error::Accept)?;
        Self::with(Some(listener), card, on_fatal)
    }

    /// The same for clients that somebody else accepts; see [`Self::serve_kept`].
    pub fn without_listener(
        card: SharedCard,
        on_fatal: impl FnMut(ClientId, Error) + Send + 'static,
    ) -> Result<Self, Error> {
        Self::with(None, card, on_fatal)
    }

    fn with(
        listener: Option<OwnedFd>,
        card: SharedCard,
        mut on_fatal: impl FnMut(ClientId, Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let vectors = card
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .vectors()
            .count();
        let control = Control::new().map_err(Error::Control)?;
        let clients = control.clone();
        let on_fatal = Box::new(move |e| on_fatal(clients.client(), e));
        Ok(Self {
            listener,
            device: Device::new(card, on_fatal),
            layout: layout::layout(vectors),
            control,
            closer: Closer::default(),
            limit: Limit::new(Instant::now()),
        })
    }

    /// What ends this session from another thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves one client after another, until it is told to stop or the listener fails. What
    /// clients gave is given back.
    pub fn run(&mut self) -> Result<(), Error> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        while self.control.request() != Some(Request::Stop) {
            self.wait_for(&self.closer.clone());
            match self.accept(&listener) {
                Ok(Some(socket)) => {
                    self.control.client_here(&socket);
                    let relay = self.device.connect(true);
                    let asking = relay.map(|relay| Asking::new(relay, self.device.address_space()));
                    let client = Connection::new(socket, &self.closer);
                    let end = self.serve(&client, Recovered::default(), asking);
                    self.device.disconnect();
                    client.hang_up();
                    self.control.client_gone();
                    self.report(&end);
                }
                Ok(None) => {}
                Err(e) if is_transient(e) => {
                    warn!("accepting a client: {e}");
                    sleep(OUT_OF_RESOURCES);
                }
                Err(e) => return Err(Error::Accept(e.into())),
            }
        }
        Ok(())
    }

    /// Serves a client that outlives the process, which another process may have served before,
    /// until it is gone. If the session is told to stop, the client stays for the next process.
    pub fn serve_kept(&mut self, socket: OwnedFd, lifeline: &Lifeline) {
        self.wait_for(lifeline.closer());
        self.control.client_here(&socket);
        let client = Connection::kept(socket, lifeline);
        let end = match client.recover(&self.control) {
            Ok(Some(recovered)) => {
                self.device.recovered();
                if !recovered.again {
                    self.device.caught_up();
                }
                self.device.connect(false);
                self.serve(&client, recovered, None)
            }
            Ok(None) if self.control.request().is_some() => End::HungUp,
            Ok(None) => End::Left,
            Err(e) => End::Failed(e.into()),
        };
        if self.control.request() == Some(Request::Stop) {
            if let Err(e) = client.leave() {
                warn!("client: {e}");
            }
            return;
        }
        self.device.disconnect();
        client.hang_up();
        self.control.client_gone();
        lifeline.end();
        self.report(&end);
    }

    /// Waits while former clients have left more than can be closed, of which the next one might leave
    /// yet more.
    fn wait_for(&mut self, closer: &Closer) {
        if !closer.is_full() {
            return;
        }
        self.log(|| {
            warn!("descriptors of clients do not close: no other is served before some do")
        });
        while closer.is_full() && self.control.request() != Some(Request::Stop) {
            sleep(OUT_OF_RESOURCES);
        }
    }

    /// Waits for a client. `None`: there is none, or there was something else to look at.
    fn accept(&self, listener: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[1].revents().is_empty() {
            self.control.clear();
        }
        // From then on there may be nobody to accept any more.
        let stopped = self.control.request() == Some(Request::Stop);
        if stopped || fds[0].revents().is_empty() {
            return Ok(None);
        }
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Err(Errno::AGAIN) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Serves one client until it is gone, from where another server stopped if that has `recovered`
    /// anything. What the client gave is not given back.
    fn serve(
        &mut self,
        client: &Connection<'_>,
        recovered: Recovered,
        mut asking: Option<Asking>,
    ) -> End {
        let mut protocol = Protocol::new(self.layout.clone(), recovered.negotiated);
        let mut inbox = match recovered.long {
            None => Inbox::default(),
            Some((header, left)) => Inbox::resume(header, left),
        };
        let mut reply = Vec::new();
        let mut more = true;
        loop {
            if let Err(end) =
                self.handle(client, &mut inbox, &mut protocol, &mut reply, &mut asking)
            {
                return end;
            }
            let received = match &mut asking {
                Some(asking) => asking.ask(client, protocol.negotiated(), &self.control),
                None => Ok(true),
            };
            let relay = asking.as_ref().map(Asking::relay);
            // A look ends before an urgent byte, too, and what tells of more tells of both at once.
            more |= inbox.unread() > 0;
            let received = self
                .ended(received)
                .and_then(|()| self.receive(client, &mut inbox, relay, more));
            match received {
                Ok(there) => more = there,
                Err(end) => return end,
            }
        }
    }

    /// Handles all messages that have come in full.
    fn handle(
        &mut self,
        client: &Connection<'_>,
        inbox: &mut Inbox,
        protocol: &mut Protocol,
        reply: &mut Vec<u8>,
        asking: &mut Option<Asking>,
    ) -> Result<(), End> {
        loop {
            let before = inbox.position();
            let (header, done) = match inbox.next() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let header = message.header;
                    if Command::from(header.command) == Command::RegionWriteMulti {
                        debug!("client: several writes in {} bytes", header.size);
                    }
                    client.begin();
                    let done = match asking {
                        Some(asking) if header.is_reply() => {
                            reply.clear();
                            asking.answer(&message)
                        }
                        _ => protocol.handle(message, &mut self.device, reply),
                    };
                    (header, done)
                }
                Err((header, refusal)) => {
                    Protocol::refuse(header, &refusal, reply);
                    (header, Err(refusal))
                }
            };
            let size = (inbox.position() - before) as usize;
            client.agree(protocol.negotiated());
            self.device.caught_up();
            let place = (size, inbox.unread());
            self.ended(client.answer(&header, place, reply, &self.control))?;
            match done {
                Err(refusal) if refusal.is_fatal() => return Err(End::Refused(refusal)),
                Err(refusal) => self.refused(&refusal),
                Ok(()) => {}
            }
        }
        self.ended(client.handled(inbox).map(|()| true))
    }

    /// Waits for something to arrive, or to ask for. With `more`, something may be there. Returns
    /// whether there may be more.
    fn receive(
        &self,
        client: &Connection<'_>,
        inbox: &mut Inbox,
        relay: Option<&Relay>,
        mut more: bool,
    ) -> Result<bool, End> {
        // Looked at each time: a client that never stops sending is never waited for.
        while self.control.request().is_none() {
            if client.is_full() {
                return Err(End::Unclosed);
            }
            if more {
                match client.receive(inbox).map_err(End::failed)? {
                    Received::Data { more } => return Ok(more),
                    Received::End => return Err(End::Left),
                    Received::Nothing => {}
                }
            }
            more = true;
            match client.wait_for_data(inbox, &self.control, relay) {
                Ok(Woken::Event) => {}
                Ok(Woken::Asks) => return Ok(true),
                Ok(Woken::Late) => return Err(End::Late),
                Err(e) => return Err(End::failed(e)),
            }
        }
        Err(End::HungUp)
    }

    /// What a step means that is done if it is true, and otherwise was in vain.
    fn ended(&self, step: Result<bool, Errno>) -> Result<(), End> {
        match step {
            Ok(true) => Ok(()),
            Ok(false) if self.control.request().is_some() => Err(End::HungUp),
            Ok(false) => Err(End::Left),
            Err(e) => Err(End::failed(e)),
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        match refusal {
            // The device says more, and whether that is worth it.
            Refusal::Device(e) => debug!("client: refused: {e}"),
            _ => self.log(|| warn!("client: refused: {refusal}")),
        }
    }

    fn report(&mut self, end: &End) {
        self.log(|| match end {
            End::Left => info!("client disconnected"),
            End::HungUp => info!("client: hung up on"),
            End::Refused(refusal) => warn!("client: hung up on: {refusal}"),
            End::Late => warn!("client: hung up on: the rest of a message did not come"),
            End::Unclosed => warn!("client: hung up on: its descriptors do not close"),
            End::Failed(e) => warn!("client: {e}"),
        });
    }

    /// Writes to the log, but not all that a client can make it write.
    fn log(&mut self, line: impl FnOnce()) {
        let Some(suppressed) = self.limit.permit(Instant::now()) else {
            return;
        };
        line();
        if suppressed != 0 {
            info!("{suppressed} more lines about clients were not logged");
        }
    }
}

/// True if accepting may work later.
fn is_transient(e: Errno) -> bool {
    let transient = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::CONNABORTED,
        Errno::INTR,
    ];
    transient.contains(&e)
}

#[cfg(test)]
mod tests;
