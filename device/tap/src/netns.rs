// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Other network namespaces than that of the process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
use vnet_backend::Error;

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
    let namespace = File::open(path).map_err(failed)?;
    // A thread of its own: it ends there, and the process stays where it is.
    thread::scope(|scope| {
        let entered = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).map_err(|e| failed(e.into()))?;
            what()
        };
        let thread = thread::Builder::new().name("vnet-netns".into());
        let thread = thread.spawn_scoped(scope, entered).map_err(failed)?;
        let done = thread.join();
        done.unwrap_or_else(|_| Err(failed(io::Error::other("internal error"))))
    })
}
