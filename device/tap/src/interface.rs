// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! An interface of the host, whatever it is called by now.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netdevice::{index_to_name_inlined, InlinedName};
use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};

use crate::name::Name;
use crate::sys;

/// The number of no interface.
const NONE: u32 = 0;

/// An interface. One that is renamed stays the same; one that comes by its name later is another.
///
/// It may be moved to another network namespace: then it is gone, as far as this process can see.
#[derive(Debug)]
pub struct Interface {
    /// Asks after it.
    socket: OwnedFd,
    index: u32,
}

impl Interface {
    /// The one that has this name, in the network namespace of the calling thread.
    pub fn new(name: &Name) -> io::Result<Self> {
        let socket = socket()?;
        let index = sys::interface_index(socket.as_fd(), name)?;
        Ok(Self { socket, index })
    }

    /// One that is gone, or nowhere that this process can see.
    pub(crate) fn gone() -> io::Result<Self> {
        Ok(Self {
            socket: socket()?,
            index: NONE,
        })
    }

    /// The number that the kernel knows it by.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name now. An error: it is gone.
    pub(crate) fn name(&self) -> io::Result<InlinedName> {
        Ok(index_to_name_inlined(&self.socket, self.index)?)
    }

    fn checked_name(&self) -> io::Result<Name> {
        Name::new(self.name()?.as_str()).map_err(io::Error::other)
    }

    /// A socket of its network namespace.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Its MTU now.
    pub fn mtu(&self) -> io::Result<u32> {
        sys::interface_mtu(self.socket(), &self.checked_name()?)
    }

    pub(crate) fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        sys::set_interface_mtu(self.socket(), &self.checked_name()?, mtu)
    }

    pub(crate) fn bring_up(&self) -> io::Result<()> {
        sys::bring_up(self.socket(), &self.checked_name()?)
    }

    /// True if it carries frames with the header of Ethernet.
    pub fn is_ethernet(&self) -> io::Result<bool> {
        let kind = sys::interface_type(self.socket(), &self.checked_name()?)?;
        Ok(matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
    }

    /// True if it is up and has carrier. One that is gone has none.
    pub fn is_running(&self) -> bool {
        const RUNNING: u16 = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
        let flags = self
            .checked_name()
            .and_then(|name| sys::interface_flags(self.socket(), &name));
        flags.is_ok_and(|flags| flags & RUNNING == RUNNING)
    }
}

/// Any will do.
fn socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}
