// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The TCP connections to the gateway's services.
//!
//! The stack turns a listening socket into the connection that arrives. So a socket is made when
//! the guest asks for a connection, just before the stack sees the request, and is taken away when
//! the connection is over: there are as many sockets as connections, and no connection waits for
//! a listener.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;
use smoltcp::wire::IpEndpoint;

use crate::service::Service;
use crate::status::Status;

/// Most connections at a time. With the largest buffers these are 64 MiB.
pub(crate) const MAX_CONNECTIONS: usize = 128;

/// A silent client is asked so often whether it is still there, and given up when it has not
/// answered for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const TIMEOUT: Duration = Duration::from_secs(240);

/// All connections, the oldest first.
#[derive(Default)]
pub(crate) struct Connections {
    list: Vec<Connection>,
    /// True if a service has more to do without waiting for the guest.
    busy: bool,
}

struct Connection {
    handle: SocketHandle,
    service: Service,
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

    /// The guest asks for a connection from `client` to `port`: makes a socket that will take it,
    /// if there is a service and room for one more. If there is not, the stack refuses.
    pub(crate) fn admit(
        &mut self,
        sockets: &mut SocketSet<'static>,
        client: IpEndpoint,
        port: u16,
    ) {
        let Some(service) = Service::of(port) else {
            return;
        };
        let mut reopened = None;
        for (index, connection) in self.list.iter().enumerate() {
            let socket = sockets.get::<Socket<'_>>(connection.handle);
            let same = socket.remote_endpoint() == Some(client)
                && socket
                    .local_endpoint()
                    .is_some_and(|local| local.port == port);
            match socket.state() {
                // A client may use its port again at once (RFC 9293, 3.6.1).
                State::TimeWait if same => reopened = Some(index),
                // The request was repeated, or comes from a client that lost its memory. The
                // connection that exists answers it.
                _ if same => return,
                State::Listen if socket.listen_endpoint().port == port => return,
                _ => {}
            }
        }
        if let Some(index) = reopened {
            self.remove(sockets, index);
        }
        if self.list.len() == MAX_CONNECTIONS && !self.evict(sockets) {
            return;
        }
        let (receive, transmit) = service.buffers();
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; receive]),
            SocketBuffer::new(vec![0; transmit]),
        );
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        socket.set_nagle_enabled(false);
        // Fails only for port 0 or an open socket; then there is just no listener.
        if socket.listen(port).is_ok() {
            let handle = sockets.add(socket);
            self.list.push(Connection { handle, service });
        }
    }

    /// Lets every service go on, and takes away what is over.
    pub(crate) fn serve(&mut self, sockets: &mut SocketSet<'static>, status: &Status) {
        self.busy = false;
        for connection in &mut self.list {
            let socket = sockets.get_mut::<Socket<'_>>(connection.handle);
            // Before the handshake is complete there is nobody to serve.
            if !matches!(socket.state(), State::Listen | State::SynReceived) {
                self.busy |= connection.service.serve(socket, status);
            }
        }
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

    /// Makes room at the cost of a connection that carries nothing: one that is over but for its
    /// last wait, else one whose client did not complete the handshake. False if there is none.
    fn evict(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let in_state = |wanted: State| {
            self.list.iter().position(|connection| {
                sockets.get::<Socket<'_>>(connection.handle).state() == wanted
            })
        };
        let victim = in_state(State::TimeWait)
            .or_else(|| in_state(State::Listen))
            .or_else(|| in_state(State::SynReceived));
        if let Some(index) = victim {
            self.remove(sockets, index);
        }
        victim.is_some()
    }

    fn remove(&mut self, sockets: &mut SocketSet<'static>, index: usize) {
        let connection = self.list.remove(index);
        sockets.remove(connection.handle);
    }
}
