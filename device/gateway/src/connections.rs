// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The TCP connections to the gateway's services.
//!
//! The stack turns a listening socket into the connection that arrives. So a socket is made when
//! the guest asks for a connection, just before the stack sees the request, and is taken away when
//! the connection is over, or at once if the stack finds fault with the request: there are as many
//! sockets as connections, and no connection waits for a listener.

use std::sync::LazyLock;
use std::time;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpEndpoint, TcpPacket};

use crate::host::Watch;
use crate::service::Service;
use crate::share;
use crate::status::Status;
use crate::window::Window;

/// Most connections at a time. With the largest buffers these are 64 MiB.
pub(crate) const MAX_CONNECTIONS: usize = 128;

/// A silent client is asked so often whether it is still there, and given up when it has not
/// answered for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const TIMEOUT: Duration = Duration::from_secs(240);

/// A connection that was idle for so long makes room for a new one, if there is no other room.
const IDLE: Duration = Duration::from_secs(2);

/// Bytes that the services move, make or digest per call, all together: about a batch of the
/// card's, so that a call takes as long as a batch at most, however many connections there are.
const BUDGET: usize = 256 * 1024;

/// All connections, the oldest first.
#[derive(Default)]
pub(crate) struct Connections {
    list: Vec<Connection>,
    /// Where the next call of [`Self::serve`] begins, so that each gets its turn.
    next: usize,
    /// True if a service has more to do without waiting for the guest.
    busy: bool,
}

struct Connection {
    station: EthernetAddress,
    client: IpEndpoint,
    port: u16,
    window: Window,
    handle: SocketHandle,
    service: Service,
    /// What the socket looked like when it was left.
    left: Look,
    /// When something happened last.
    active: Instant,
    /// The client has sent something since the card was reset: until then, it may have lost its memory.
    heard_of: bool,
}

/// State of a socket, and bytes in its two buffers.
type Look = (State, usize, usize);

fn look(socket: &Socket<'_>) -> Look {
    (socket.state(), socket.recv_queue(), socket.send_queue())
}

/// The clock of timestamps (RFC 7323). With those, a client learns how long the way is also from what it had to
/// send again. Without, its retransmission timer goes on doubling through all that it makes up for after a few
/// losses in a row, to half a minute and more between one segment and the next.
fn milliseconds() -> u32 {
    // Not that of the system: how long the host is up is no business of the guest's.
    static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);
    // Wraps, as timestamps may.
    START.elapsed().as_millis() as u32
}

impl Connection {
    fn is_of(&self, sockets: &SocketSet<'static>, client: IpEndpoint, port: u16) -> bool {
        let socket = sockets.get::<Socket<'_>>(self.handle);
        let local = socket.local_endpoint();
        socket.remote_endpoint() == Some(client) && local.is_some_and(|local| local.port == port)
    }

    fn state(&self, sockets: &SocketSet<'static>) -> State {
        sockets.get::<Socket<'_>>(self.handle).state()
    }
}

impl Connections {
    /// Number of connections.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// True if [`Self::serve`] should be called again soon.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// State of the connection from `client` to `port`. One that has ended but for its last wait is none: a
    /// client may use its port again at once (RFC 9293, 3.6.1).
    pub(crate) fn state(
        &self,
        sockets: &SocketSet<'static>,
        client: IpEndpoint,
        port: u16,
    ) -> Option<State> {
        let same = self.list.iter().filter(|c| c.is_of(sockets, client, port));
        let mut states = same.map(|c| c.state(sockets));
        states.find(|state| *state != State::TimeWait)
    }

    /// True if there is room for one more connection of a station, or can be.
    pub(crate) fn has_room(
        &self,
        sockets: &SocketSet<'static>,
        station: EthernetAddress,
        now: Instant,
    ) -> bool {
        self.list.len() < MAX_CONNECTIONS || self.victim(sockets, station, now).is_some()
    }

    /// A station asks by `request` for a connection from `client` to `port`, of which there is none yet: makes
    /// a socket that will take it, if there is room for one more. If there is not, the stack refuses. When the
    /// stack has seen the request, [`Self::settle`] is due.
    pub(crate) fn admit(
        &mut self,
        sockets: &mut SocketSet<'static>,
        station: EthernetAddress,
        (client, port): (IpEndpoint, u16),
        service: Service,
        request: &TcpPacket<&[u8]>,
        now: Instant,
    ) {
        let mut list = self.list.iter();
        if let Some(ended) = list.position(|c| c.is_of(sockets, client, port)) {
            self.remove(sockets, ended);
        }
        if self.list.len() >= MAX_CONNECTIONS {
            match self.victim(sockets, station, now) {
                Some(index) => self.remove(sockets, index),
                None => return,
            }
        }
        let (receive, transmit) = service.buffers();
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; receive]),
            SocketBuffer::new(vec![0; transmit]),
        );
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        socket.set_nagle_enabled(false);
        socket.set_tsval_generator(Some(milliseconds));
        // Fails only for port 0 or an open socket; then there is just no listener.
        if socket.listen(port).is_ok() {
            let left = look(&socket);
            let handle = sockets.add(socket);
            self.list.push(Connection {
                station,
                client,
                port,
                window: Window::new(request),
                handle,
                service,
                left,
                active: now,
                heard_of: true,
            });
        }
    }

    /// The stack has seen the request: a socket that did not take it will not be needed.
    pub(crate) fn settle(&mut self, sockets: &mut SocketSet<'static>) {
        if let Some(last) = self.list.last() {
            if sockets.get::<Socket<'_>>(last.handle).state() == State::Listen {
                self.remove(sockets, self.list.len() - 1);
            }
        }
    }

    /// There is news of the host's side of a connection.
    pub(crate) fn wake(&mut self, id: u64) {
        let mut hosts = self.list.iter_mut().filter_map(|c| match &mut c.service {
            Service::Host(host) => Some(host),
            _ => None,
        });
        if let Some(host) = hosts.find(|host| host.id() == id) {
            host.wake();
        }
    }

    /// A segment of a connection goes to the stack. It came on a queue whose worker has this watch.
    pub(crate) fn pass(
        &mut self,
        (client, port): (IpEndpoint, u16),
        at: Option<(u16, &Watch)>,
        segment: &mut TcpPacket<&mut [u8]>,
    ) {
        // The newest, should there be one that is over and not yet taken away.
        let mut newest_first = self.list.iter_mut().rev();
        if let Some(connection) = newest_first.find(|c| c.client == client && c.port == port) {
            connection.window.keep_open(segment);
            connection.heard_of = true;
            if let (Service::Host(host), Some((queue, watch))) = (&mut connection.service, at) {
                host.follow(queue, watch);
            }
        }
    }

    /// The card was reset: this is a queue that its driver will use, and the watch of its worker.
    pub(crate) fn reset(&mut self, at: Option<(u16, &Watch)>) {
        for connection in &mut self.list {
            connection.heard_of = false;
            if let (Service::Host(host), Some((queue, watch))) = (&mut connection.service, at) {
                host.follow(queue, watch);
            }
        }
    }

    /// Lets the services go on in turn, within the budget, and takes away what is over.
    pub(crate) fn serve(
        &mut self,
        sockets: &mut SocketSet<'static>,
        status: &Status,
        now: Instant,
    ) {
        let mut budget = BUDGET;
        let first = self.next.min(self.list.len());
        let (before, after) = self.list.split_at_mut(first);
        for (connection, turn) in after.iter_mut().chain(before).zip(1..) {
            let socket = sockets.get_mut::<Socket<'_>>(connection.handle);
            let had = budget;
            let arrived = look(socket) != connection.left;
            // Before the handshake is complete there is nobody to serve.
            if socket.state() != State::SynReceived && budget > 0 {
                connection.service.serve(socket, status, &mut budget);
                self.next = first + turn;
            }
            connection.left = look(socket);
            if arrived || budget != had {
                connection.active = now;
            }
        }
        self.next %= self.list.len().max(1);
        self.busy = budget == 0;
        self.list.retain(|connection| {
            let socket = sockets.get::<Socket<'_>>(connection.handle);
            // An aborted socket keeps its peer until it has told it.
            let over = socket.state() == State::Closed && socket.remote_endpoint().is_none();
            if over {
                sockets.remove(connection.handle);
            }
            !over
        });
    }

    /// The connection that makes room for another one of a station's: one that is over but for its last wait,
    /// else one whose client did not complete the handshake or has not been heard of since the card was reset,
    /// else the one that has been idle longest. Those whose clients may be there are of the station that has too
    /// many; if none has, they are its own, and then none that was busy just now, or is the host's, which may have
    /// a reason. Its client learns it when it sends something.
    fn victim(
        &self,
        sockets: &SocketSet<'static>,
        station: EthernetAddress,
        now: Instant,
    ) -> Option<usize> {
        let crowd = share::crowd(self.list.iter().map(|c| c.station), station);
        let of = crowd.unwrap_or(station);
        let half_open = |c: &Connection| c.state(sockets) == State::SynReceived;
        let may_end = |c: &Connection| {
            crowd.is_some() || !matches!(c.service, Service::Host(_)) && c.active + IDLE <= now
        };
        let first = |wanted: &dyn Fn(&Connection) -> bool| self.list.iter().position(wanted);
        let longest = || {
            let all = self.list.iter().enumerate();
            let idle = all.filter(|(_, c)| c.station == of && may_end(c));
            idle.min_by_key(|(_, c)| c.active).map(|(index, _)| index)
        };
        first(&|c| c.state(sockets) == State::TimeWait)
            .or_else(|| first(&|c| c.station == of && half_open(c)))
            .or_else(|| first(&|c| !c.heard_of))
            .or_else(longest)
    }

    fn remove(&mut self, sockets: &mut SocketSet<'static>, index: usize) {
        let connection = self.list.remove(index);
        sockets.remove(connection.handle);
    }
}
