// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What systemd, or a program like it, is told, and the sockets that it listens on for this process.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{absolute, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::{notify, watchdog_enabled, NotifyState};
use tracing::warn;
use vnet_session::{Error, Socket};

/// The sockets that this process was started with: those with a path as long as it lives, as a card may go
/// and another come in its place; others until somebody wants them.
static SOCKETS: Mutex<Vec<Passed>> = Mutex::new(Vec::new());

enum Passed {
    Path(PathBuf, Arc<UnixListener>),
    Port(SocketAddr, TcpListener),
}

fn sockets() -> MutexGuard<'static, Vec<Passed>> {
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the sockets that this process was started with. Comes first, while there is one thread: it
/// changes the environment.
pub(crate) fn take_sockets() {
    let mut passed = ListenFd::from_env();
    let mut sockets = sockets();
    for n in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_unix_listener(n) {
            let address = listener.local_addr().ok();
            if let Some(path) = address.as_ref().and_then(|a| a.as_pathname()) {
                sockets.push(Passed::Path(path.to_owned(), Arc::new(listener)));
            }
        } else if let Ok(Some(listener)) = passed.take_tcp_listener(n) {
            if let Ok(address) = listener.local_addr() {
                sockets.push(Passed::Port(address, listener));
            }
        }
    }
}

/// Listens at this path: on the socket that was passed for it, or on one of its own, which `bind` makes.
pub(crate) fn socket(
    path: &Path,
    bind: impl FnOnce(&Path) -> Result<Socket, Error>,
) -> Result<Socket, Error> {
    let wanted = absolute(path).ok();
    let sockets = sockets();
    let passed = sockets.iter().find_map(|passed| match passed {
        Passed::Path(path, listener) if absolute(path).ok() == wanted => Some(listener),
        _ => None,
    });
    match passed {
        Some(listener) if is_used(listener) => Err(Error::InUse(path.to_owned())),
        Some(listener) => Ok(Socket::adopt(Arc::clone(listener), path)),
        None => {
            drop(sockets);
            bind(path)
        }
    }
}

/// True if somebody of this process listens on it.
fn is_used(listener: &Arc<UnixListener>) -> bool {
    Arc::strong_count(listener) > 1
}

/// The listener that was passed for this address, if one was.
pub(crate) fn port(address: SocketAddr) -> Option<TcpListener> {
    let mut sockets = sockets();
    let is_it = |passed: &Passed| matches!(passed, Passed::Port(at, _) if *at == address);
    let at = sockets.iter().position(is_it)?;
    match sockets.swap_remove(at) {
        Passed::Port(_, listener) => Some(listener),
        Passed::Path(..) => None,
    }
}

/// Says that clients can connect, and what there is. Sockets that nobody wanted are closed.
pub(crate) fn ready(status: &str) {
    sockets().retain(|passed| match passed {
        Passed::Path(_, listener) if is_used(listener) => true,
        Passed::Path(path, _) => {
            warn!("nothing is to listen on {}", path.display());
            false
        }
        Passed::Port(address, _) => {
            warn!("nothing is to listen on {address}");
            false
        }
    });
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the end has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Without anybody who listens this does nothing.
    if let Err(e) = notify(state) {
        warn!("the service manager cannot be told: {e}");
    }
}

/// When to give the next sign of life.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Half of the time after which the process is taken for dead; `None` if nobody watches.
    period: Option<Duration>,
    due: Instant,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        let period = watchdog_enabled().map(|time| time / 2);
        Self {
            period: period.filter(|period| !period.is_zero()),
            due: Instant::now(),
        }
    }

    /// How long the next sign of life may take; `None` if there need be none.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = || self.due.saturating_duration_since(Instant::now());
        self.period.map(|_| left())
    }

    /// Gives a sign of life if it is time for one.
    pub(crate) fn alive(&mut self) {
        let now = Instant::now();
        if let Some(period) = self.period.filter(|_| now >= self.due) {
            tell(&[NotifyState::Watchdog]);
            self.due = now + period;
        }
    }
}
