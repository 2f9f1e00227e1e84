// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One client after another.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use tracing::{error, info, warn};
use vfio_user::Server;
use vnet_card::Card;

use crate::device::Device;
use crate::error::Error;
use crate::layout;
use crate::socket::Socket;

/// A card that the message thread shares with whoever ends the program. Outside of that nobody
/// else takes the lock, so that the message thread never waits for it.
pub type SharedCard = Arc<Mutex<Card>>;

/// How long to wait when the system is out of descriptors or memory.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Serves a card on a socket.
pub struct Session {
    server: Server,
    device: Device,
}

impl Session {
    /// Prepares to serve. `on_fatal` is called, from the thread that [`Self::run`] is called on,
    /// when a client shows that it can never work; the client stays connected until it is told
    /// otherwise.
    pub fn new(
        socket: &Socket,
        card: SharedCard,
        on_fatal: impl FnMut(Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let vectors = card
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .vectors()
            .count();
        let listener = socket.listener().map_err(Error::Accept)?;
        let server =
            Server::from_owned_fd(listener, true, layout::irqs(vectors), layout::regions());
        Ok(Self {
            server,
            device: Device::new(card, Box::new(on_fatal)),
        })
    }

    /// Serves one client after another, and returns when the listener fails or was shut down
    /// ([`Socket::shutdown`]).
    pub fn run(&mut self) -> Error {
        loop {
            // The crate's loop panics on some malformed messages. Nothing of its state outlives
            // the client, and the card is reset below.
            let end = catch_unwind(AssertUnwindSafe(|| self.server.run(&mut self.device)));
            self.device.disconnect();
            match end {
                Ok(Ok(())) => info!("client disconnected"),
                Ok(Err(vfio_user::Error::SocketAccept(e))) => {
                    if !is_transient(&e) {
                        return Error::Accept(e);
                    }
                    warn!("accepting a client: {e}");
                    sleep(OUT_OF_RESOURCES);
                }
                Ok(Err(e)) => warn!("client: {e}"),
                Err(_) => error!("client: disconnected after a malformed message"),
            }
        }
    }
}

/// True if accepting may work later.
fn is_transient(e: &io::Error) -> bool {
    let transient = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::CONNABORTED,
        Errno::INTR,
    ];
    e.raw_os_error()
        .is_some_and(|code| transient.iter().any(|t| t.raw_os_error() == code))
}
