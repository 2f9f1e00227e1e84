// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! From a name to descriptors that carry frames.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{open, Mode, OFlags};
use rustix::io::Errno;
use vnet_backend::Error;
use vnet_contract::hdr;

use crate::interface::Interface;
use crate::name::Name;
use crate::sys;
use crate::tun::Tun;

// linux/if_tun.h
const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// An interface that was attached to.
pub(crate) struct Attached {
    pub(crate) interface: Interface,
    pub(crate) queues: Vec<Tun>,
}

/// Opens `queues` queues of the interface `name`.
pub(crate) fn attach(name: &str, queues: u16) -> Result<Attached, Error> {
    let checked = Name::new(name)?;
    let mut mode = if queues > 1 { IFF_MULTI_QUEUE } else { 0 };
    let mut tuns = Vec::with_capacity(queues.into());
    for _ in 0..queues {
        let tun = open_tun()?;
        let mut attached = sys::attach(tun.as_fd(), &checked, flags(mode));
        let refused = |error: &io::Error| is(error, Errno::INVAL);
        if attached.as_ref().is_err_and(refused) && mode == 0 {
            // One queue of an interface that was made for several.
            mode = IFF_MULTI_QUEUE;
            attached = sys::attach(tun.as_fd(), &checked, flags(mode));
        }
        attached.map_err(|error| explain(name, queues, error))?;
        sys::set_header_len(tun.as_fd(), hdr::SIZE)
            .and_then(|()| sys::set_little_endian(tun.as_fd()))
            .map_err(|source| Error::Io {
                what: format!("cannot set up the packet header of TAP interface {name}"),
                source,
            })?;
        tuns.push(Tun {
            fd: Arc::new(tun),
            detachable: mode == IFF_MULTI_QUEUE,
            attached: true,
        });
    }
    let interface = Interface::new(&checked).map_err(|source| Error::Io {
        what: format!("cannot watch TAP interface {name}"),
        source,
    })?;
    Ok(Attached {
        interface,
        queues: tuns,
    })
}

/// Takes over descriptors that [`attach`] made, in this process or in another.
///
/// The interface may have another name since, or be `gone`: deleted, or in another network namespace. That is a link that
/// is down, as it is for who has seen it happen.
///
/// Queues that are detached stay so: frames would come to them which nobody reads, and there is a lock of
/// all network configuration to wait for.
pub(crate) fn adopt(name: &str, queues: Vec<OwnedFd>, gone: bool) -> Result<Attached, Error> {
    let failed = |source| Error::Io {
        what: format!("cannot go on with TAP interface {name}"),
        source,
    };
    let mut now = None;
    let mut tuns = Vec::with_capacity(queues.len());
    for fd in queues {
        let flags = match sys::attached_to(fd.as_fd()) {
            Err(error) if is(&error, Errno::BADFD) => 0,
            attached => {
                let (found, flags) = attached.map_err(failed)?;
                if *now.get_or_insert(found) != found {
                    return Err(Error::Unsupported(format!(
                        "the descriptors of TAP interface {name} that were kept are of several interfaces"
                    )));
                }
                flags
            }
        };
        tuns.push(Tun {
            fd: Arc::new(fd),
            detachable: flags & IFF_MULTI_QUEUE != 0,
            attached: flags & sys::IFF_DETACH_QUEUE == 0,
        });
    }
    let interface = match now.filter(|_| !gone).map(|name| Interface::new(&name)) {
        None => Interface::gone(),
        Some(Err(error)) if is(&error, Errno::NODEV) => Interface::gone(),
        Some(found) => found,
    };
    Ok(Attached {
        interface: interface.map_err(failed)?,
        queues: tuns,
    })
}

fn flags(mode: u16) -> u16 {
    IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | mode
}

fn open_tun() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open("/dev/net/tun", flags, Mode::empty()).map_err(|error| Error::Io {
        what: match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                "cannot open /dev/net/tun (is the tun module there?)"
            }
            _ => "cannot open /dev/net/tun",
        }
        .into(),
        source: error.into(),
    })
}

pub(crate) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Says what an error of the kernel's means here.
fn explain(name: &str, queues: u16, error: io::Error) -> Error {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            " (to make an interface takes CAP_NET_ADMIN; one can be made for a user with ip tuntap)"
        }
        Some(Errno::BUSY) => " (another program uses it)",
        Some(Errno::INVAL) if queues > 1 => " (it exists and is no TAP with multi_queue)",
        Some(Errno::INVAL) => " (it exists and is no TAP)",
        Some(Errno::TOOBIG) => " (it has no more queues)",
        _ => "",
    };
    Error::Io {
        what: format!("cannot attach to TAP interface {name}{hint}"),
        source: error,
    }
}
