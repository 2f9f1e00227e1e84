// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::event::epoll::{create, CreateFlags};
use tracing::{debug, info, warn};
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};

use crate::connection::{Connection, End};
use crate::dialer::{Backoff, Dialer};
use crate::port::{watch, Port};

/// Most queues.
const MAX_QUEUES: u16 = 64;
/// How long the driver has to take what a peer has sent that is gone.
const LINGER: Duration = Duration::from_secs(1);

/// The endpoint.
pub struct Stream {
    name: String,
    calls: RefCell<Calls>,
    current: Arc<ArcSwapOption<Connection>>,
    /// The first queue's.
    epoll: Arc<OwnedFd>,
}

/// How the peer is come by, and when.
struct Calls {
    dialer: Dialer,
    backoff: Backoff,
    /// When the peer was found to be gone.
    gone: Option<Instant>,
}

impl Stream {
    /// Connects to the socket at this path, now and whenever the connection is lost. That nobody
    /// listens there yet is not an error.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let dialer = Dialer::connect(path).map_err(|source| Error::Io {
            what: format!("{name} cannot be the path of a socket"),
            source,
        })?;
        Self::new(name, dialer)
    }

    /// Accepts a peer from this listener, and another one when that is gone. The listener's path
    /// is for messages; `guard` is dropped with it.
    pub fn accept(
        listener: UnixListener,
        path: &Path,
        guard: impl Send + 'static,
    ) -> Result<Self, Error> {
        let name = path.display().to_string();
        let dialer = Dialer::accept(listener, Box::new(guard)).map_err(|source| Error::Io {
            what: format!("cannot wait for a peer at {name}"),
            source,
        })?;
        Self::new(name, dialer)
    }

    fn new(name: String, dialer: Dialer) -> Result<Self, Error> {
        Ok(Self {
            epoll: Arc::new(epoll(&name)?),
            name,
            calls: RefCell::new(Calls {
                dialer,
                backoff: Backoff::default(),
                gone: None,
            }),
            current: Arc::default(),
        })
    }

    /// Sees to it that there is a peer, if there can be one; true if there is.
    fn look(&self) -> bool {
        let current = self.current.load_full();
        let mut calls = self.calls.borrow_mut();
        let now = Instant::now();
        if let Some(connection) = current {
            if connection.is_alive() {
                return true;
            }
            let gone = *calls.gone.get_or_insert(now);
            if connection.is_over() || now >= gone + LINGER {
                connection.end(End::Closed);
                calls.gone = None;
                self.current.store(None);
            }
            // Without a carrier for a while, also if the peer comes back at once: it may have
            // forgotten the guest.
            return false;
        }
        if !calls.backoff.is_due(now) {
            return false;
        }
        let connected = calls.dialer.dial().and_then(|socket| {
            let Some(socket) = socket else {
                return Ok(false);
            };
            let connection = Connection::new(&self.name, socket);
            watch(&self.epoll, &connection).map_err(io::Error::from)?;
            self.current.store(Some(Arc::new(connection)));
            Ok(true)
        });
        let name = &self.name;
        match connected {
            Ok(connected) => {
                calls.backoff.succeeded();
                if connected {
                    info!("stream {name}: connected");
                }
                connected
            }
            Err(error) => {
                if calls.backoff.failed(now) {
                    warn!("stream {name}: no peer: {error}; will try again");
                } else {
                    debug!("stream {name}: no peer: {error}");
                }
                false
            }
        }
    }
}

fn epoll(name: &str) -> Result<OwnedFd, Error> {
    create(CreateFlags::CLOEXEC).map_err(|error| Error::Io {
        what: format!("cannot watch stream {name}"),
        source: error.into(),
    })
}

impl Endpoint for Stream {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn link(&self) -> Link {
        Link {
            up: self.look(),
            speed: None,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let port = |n| -> Result<Box<dyn Queue>, Error> {
            let epoll = match n {
                0 => Arc::clone(&self.epoll),
                _ => Arc::new(epoll(&self.name)?),
            };
            let current = Arc::clone(&self.current);
            Ok(Box::new(Port::new(current, epoll, n, queues > 1)))
        };
        (0..queues).map(port).collect()
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}
