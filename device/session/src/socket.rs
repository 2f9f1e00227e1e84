// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The path that clients connect to.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    accept_with, connect, shutdown, socket_with, AddressFamily, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::closer::Closer;
use crate::error::Error;
use crate::lock::Lock;

/// A listening socket with a path, which is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Arc<UnixListener>,
    path: PathBuf,
    /// Device and inode of the path, to recognize it by; `None` if somebody else sees to its end.
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Listens at this path, which appears once a client can connect. What a server that died left
    /// there is removed; a path that a living server uses, or that is no socket, is refused.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        Self::bind_as(path, None)
    }

    /// The same for a socket that its owner alone can connect to, and root.
    pub fn bind_private(path: &Path) -> Result<Self, Error> {
        Self::bind_as(path, Some(Permissions::from_mode(0o600)))
    }

    fn bind_as(path: &Path, permissions: Option<Permissions>) -> Result<Self, Error> {
        let failed = |source| Error::Socket {
            path: path.to_owned(),
            source,
        };
        // Two servers that start at once must not both find the path stale, or one would remove
        // the socket that the other has just made.
        let _lock = Lock::take(path).map_err(failed)?;
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::NotASocket(path.to_owned()));
            }
            Ok(_) if is_alive(path).map_err(failed)? => {
                return Err(Error::InUse(path.to_owned()));
            }
            Ok(_) => {}
        }
        let listener = listen(path, permissions).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        Ok(Self {
            listener: Arc::new(listener),
            path: path.to_owned(),
            identity: Some(identity),
        })
    }

    /// A socket that somebody else has made and listens on at this path, and whose path stays. The listener
    /// is shared for as long as this is there.
    pub fn adopt(listener: Arc<UnixListener>, path: &Path) -> Self {
        Self {
            listener,
            path: path.to_owned(),
            identity: None,
        }
    }

    /// A second descriptor of the listener, which does not wait for clients.
    pub fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        self.listener.try_clone().map(OwnedFd::from)
    }

    /// Lets nobody connect any more, and lets go of those who wait to be served: whoever closes
    /// the last descriptor of the listener closes what they have sent, which may take its time. Says
    /// nothing to a listener that somebody else sees to.
    pub fn close(&self) {
        if self.identity.is_none() {
            return;
        }
        let closer = Closer::default();
        let _ = shutdown(&self.listener, Shutdown::Both);
        while let Ok(client) = accept_with(&self.listener, SocketFlags::CLOEXEC) {
            closer.hang_up(client);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have removed the path and put another in its place.
        if self.identity.is_some() && identity(&self.path).ok() == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// True if somebody listens at the path.
fn is_alive(path: &Path) -> io::Result<bool> {
    let address = SocketAddrUnix::new(path)?;
    // Without waiting: a server whose backlog is full is alive as well.
    let probe = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match connect(&probe, &address) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        // The second: its owner has removed it in the meantime.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Makes a socket that listens, and then gives it its path, in place of a stale one.
fn listen(path: &Path, permissions: Option<Permissions>) -> io::Result<UnixListener> {
    // A path that clients cannot name is of no use, even if the other one fits.
    SocketAddrUnix::new(path)?;
    let (temporary, listener) = loop {
        let temporary = temporary(path);
        match UnixListener::bind(&temporary) {
            // From a server with this process id that was killed half-way.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            result => break (temporary, result?),
        }
    };
    // Before anybody who looks for the path can connect.
    let permitted = permissions.map_or(Ok(()), |to| fs::set_permissions(&temporary, to));
    match permitted.and_then(|()| fs::rename(&temporary, path)) {
        Ok(()) => Ok(listener),
        Err(e) => {
            let _ = fs::remove_file(&temporary);
            Err(e)
        }
    }
}

/// A short name in the directory of the path; another at each call.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{}-{n}", process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    #[test]
    fn a_path_is_removed_with_its_socket_but_not_what_replaced_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(Socket::bind(&path).unwrap());
        assert!(!path.exists());

        let socket = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        drop(socket);
        assert!(path.exists());
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, Error::NotASocket(_)), "{refused}");
    }

    #[test]
    fn a_living_server_keeps_its_path_and_a_dead_one_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let living = UnixListener::bind(&path).unwrap();
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, Error::InUse(_)), "{refused}");
        drop(living);
        let _socket = Socket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        // Nothing else is left in the directory.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_private_socket_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _socket = Socket::bind_private(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_there_can_be_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..200 {
            let path = dir.path().join(n.to_string());
            let trying = Arc::new(Barrier::new(2));
            let client = std::thread::spawn({
                let (path, trying) = (path.clone(), Arc::clone(&trying));
                move || {
                    trying.wait();
                    loop {
                        match UnixStream::connect(&path) {
                            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                            result => break result.map(drop),
                        }
                    }
                }
            });
            trying.wait();
            let _socket = Socket::bind(&path).unwrap();
            client.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_server_with_a_full_backlog_is_alive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::InUse(_))));
    }

    #[test]
    fn of_servers_that_start_at_once_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let start = Barrier::new(8);
        let done = Barrier::new(8);
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let socket = Socket::bind(&path);
                        done.wait();
                        socket.is_ok()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter(|&won| won)
                .count()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn errors_name_the_path() {
        let missing = Socket::bind(Path::new("/nonexistent/vnet/s")).unwrap_err();
        assert!(missing
            .to_string()
            .starts_with("socket /nonexistent/vnet/s: "));
        let long = format!("/tmp/{}", "x".repeat(200));
        assert!(Socket::bind(Path::new(&long)).is_err());
    }
}
