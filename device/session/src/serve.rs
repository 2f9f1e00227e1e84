// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One client after another.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::{error, info, warn};
use vfio_user::Server;
use vnet_card::{Card, Limit};

use crate::device::Device;
use crate::error::Error;
use crate::socket::Socket;
use crate::{hang_up, layout};

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
        let mut limit = Limit::new(Instant::now());
        loop {
            // The crate's loop panics on some malformed messages. Nothing of its state outlives
            // the client, and the card is reset below.
            let end = catch_unwind(AssertUnwindSafe(|| self.server.run(&mut self.device)));
            self.device.disconnect();
            if let Ok(Err(vfio_user::Error::SocketAccept(e))) = end {
                if !is_transient(&e) {
                    return Error::Accept(e);
                }
                warn!("accepting a client: {e}");
                sleep(OUT_OF_RESOURCES);
                continue;
            }
            // How a session ends is up to the client, and so is how often.
            let Some(suppressed) = limit.permit(Instant::now()) else {
                continue;
            };
            match end {
                Ok(Ok(())) => info!("client disconnected"),
                Ok(Err(e)) => warn!("client: {e}"),
                Err(panic) => error!("client: disconnected: {}", hang_up::reason(panic)),
            }
            if suppressed != 0 {
                info!("{suppressed} more ends of sessions were not logged");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::thread;
    use vfio_user::Client;
    use vnet_card::{Config, Options};
    use vnet_contract::regs::ID_VALUE;
    use vnet_loopback::Null;

    /// Runs a session while `test` talks to it, and returns how it ended.
    fn with_session(test: impl FnOnce(&Path)) -> Error {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        let config = Config {
            mac: [2, 0, 0, 0, 0, 1],
            queue_pairs: 1,
            max_mtu: 1500,
            service: Options::default(),
        };
        let card = Card::new(config, Box::new(Null::new())).unwrap();
        let on_fatal = |e| panic!("{e}");
        let mut session = Session::new(&socket, Arc::new(Mutex::new(card)), on_fatal).unwrap();
        let thread = thread::spawn(move || session.run());
        test(&path);
        socket.shutdown();
        thread.join().unwrap()
    }

    fn use_card(path: &Path) {
        let mut client = Client::new(path).unwrap();
        let mut id = [0; 4];
        client.region_read(layout::REGISTERS, 0, &mut id).unwrap();
        assert_eq!(id, [0xff; 4], "the former client left memory space enabled");
        client.region_write(layout::CONFIG, 4, &[2, 0]).unwrap();
        client.region_read(layout::REGISTERS, 0, &mut id).unwrap();
        assert_eq!(u32::from_le_bytes(id), ID_VALUE);
        client.shutdown().unwrap();
    }

    #[test]
    fn one_client_after_another_finds_a_fresh_card() {
        let end = with_session(|path| (0..3).for_each(|_| use_card(path)));
        assert!(matches!(end, Error::Accept(_)), "{end}");
    }

    #[test]
    fn a_client_that_makes_the_loop_panic_harms_nobody_else() {
        with_session(|path| {
            // VERSION with a size that leaves no room for the version.
            let header = [0u8, 0, 1, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(&header).unwrap();
            stream.write_all(&[0; 4]).unwrap();
            // The server hangs up without an answer.
            assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
            use_card(path);
        });
    }
}
