// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Other network namespaces than that of the process.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, thread};

use rustix::io::Errno;
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
use vnet_backend::Error;

use crate::attach::is;
use crate::sys;

/// Does something in the network namespace that is at this path, or in that of the process. What is
/// opened there stays there.
pub(crate) fn inside<T: Send>(
    path: Option<&Path>,
    what: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let Some(path) = path else {
        return what();
    };
    let failed = |source: io::Error| {
        let hint = match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM) => " (it takes CAP_SYS_ADMIN)",
            Some(Errno::INVAL) => " (it is none)",
            _ => "",
        };
        Error::Io {
            what: format!("cannot enter network namespace {}{hint}", path.display()),
            source,
        }
    };
    enter(File::open(path).map_err(failed)?.as_fd(), failed, what)
}

/// Does something in this network namespace.
pub(crate) fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    failed: impl Fn(io::Error) -> Error + Sync,
    what: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    // A thread of its own: it ends there, and the process stays where it is.
    thread::scope(|scope| {
        let entered = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace, kind).map_err(|e| failed(e.into()))?;
            what()
        };
        let thread = thread::Builder::new().name("vnet-netns".into());
        let thread = thread.spawn_scoped(scope, entered).map_err(&failed)?;
        let done = thread.join();
        done.unwrap_or_else(|_| Err(failed(io::Error::other("internal error"))))
    })
}

/// Where an interface is that was attached to.
pub(crate) enum Place {
    /// In the namespace of the process.
    Here,
    /// In this one, as when it was attached to.
    There(OwnedFd),
    /// Moved to another one since, or deleted.
    Gone,
}

impl Place {
    /// Asks a descriptor of it, which knows better than a path that may be gone by now, or lead to another namespace.
    /// Who may not control the interface is told nothing.
    pub(crate) fn of(tun: BorrowedFd<'_>) -> io::Result<Self> {
        let home = File::from(sys::opened_in(tun)?);
        let now = match sys::is_in(tun) {
            Err(error) if is(&error, Errno::BADFD) => return Ok(Self::Gone),
            now => File::from(now?),
        };
        let id = |file: Metadata| (file.dev(), file.ino());
        let place = id(now.metadata()?);
        if place != id(home.metadata()?) {
            Ok(Self::Gone)
        } else if place == id(fs::metadata("/proc/thread-self/ns/net")?) {
            Ok(Self::Here)
        } else {
            Ok(Self::There(home.into()))
        }
    }
}
