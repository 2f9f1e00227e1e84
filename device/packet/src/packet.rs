// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};
use tracing::warn;
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};
use vnet_contract::hdr;
use vnet_tap::{Interface, Name, Port, Shared};

use crate::finish::Finisher;
use crate::sys;
use crate::wire::Socket;

/// Most queues.
const MAX_QUEUES: u16 = 64;
/// A card has no less.
const LEAST_MTU: u32 = 1500;
/// `struct virtio_net_hdr`, without the number of buffers.
const SHORT_HEADER: usize = 10;

/// Which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub name: String,
}

/// The endpoint.
pub struct Packet {
    interface: Interface,
    /// Receives, and sends for the first queue.
    first: Option<Socket>,
    shared: Arc<Shared>,
}

impl Packet {
    /// Opens the interface. That takes `CAP_NET_RAW`.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let name = Name::new(&config.name)?;
        let failed = |error| explain(&config.name, error);
        let first = socket().map_err(failed)?;
        let interface = Interface::new(&name).map_err(failed)?;
        let first = bound(first, interface.index(), libc::ETH_P_ALL).map_err(failed)?;
        // The socket would take the frames of any other for ones with addresses.
        if !interface.is_ethernet().map_err(failed)? {
            return Err(Error::Unsupported(format!(
                "cannot use interface {}: it is not one of Ethernet",
                config.name
            )));
        }
        if let Some(mtu) = interface.mtu().ok().filter(|mtu| *mtu < LEAST_MTU) {
            let name = &config.name;
            warn!("interface {name} has an MTU of {mtu}, and a card has {LEAST_MTU} at least: what is longer is lost");
        }
        Ok(Self {
            interface,
            first: Some(first),
            shared: Arc::default(),
        })
    }

    fn look_at_mtu(&self) -> u32 {
        let mtu = self.interface.mtu().unwrap_or(LEAST_MTU);
        self.shared.mtu.store(mtu as usize, Ordering::Relaxed);
        mtu
    }

    /// A socket that only sends, for the queues behind the first.
    fn sender(&self) -> Result<Socket, Error> {
        socket()
            .and_then(|socket| bound(socket, self.interface.index(), 0))
            .map_err(|source| Error::Io {
                what: "cannot open one more packet socket".into(),
                source,
            })
    }
}

/// A packet socket that gets nothing yet.
fn socket() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    Ok(socket)
}

fn bound(fd: OwnedFd, index: u32, protocol: libc::c_int) -> io::Result<Socket> {
    let header = sys::set_header(fd.as_fd(), hdr::SIZE, SHORT_HEADER)?;
    sys::set_up(fd.as_fd())?;
    if protocol != 0 {
        sys::set_promiscuous(fd.as_fd(), index)?;
    }
    sys::bind(fd.as_fd(), index, protocol)?;
    Ok(Socket { fd, header })
}

/// Says what an error of the kernel's means here.
fn explain(name: &str, error: io::Error) -> Error {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => " (it takes CAP_NET_RAW)",
        Some(Errno::NODEV) => " (there is no such interface)",
        _ => "",
    };
    Error::Io {
        what: format!("cannot open interface {name}{hint}"),
        source: error,
    }
}

impl Endpoint for Packet {
    fn capabilities(&self) -> Capabilities {
        // What is longer does not get through; the interface's MTU may change later.
        let mtu = self.look_at_mtu().max(LEAST_MTU);
        Capabilities {
            receive: Offloads::ALL,
            max_queues: MAX_QUEUES,
            max_mtu: mtu.try_into().unwrap_or(u16::MAX),
        }
    }

    fn link(&self) -> Link {
        self.look_at_mtu();
        Link {
            up: self.interface.is_running(),
            speed: None,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        self.look_at_mtu();
        (0..queues)
            .map(|_| -> Result<Box<dyn Queue>, Error> {
                let socket = match self.first.take() {
                    Some(first) => first,
                    None => self.sender()?,
                };
                let port = Port::new(socket, Arc::clone(&self.shared), Offloads::ALL);
                Ok(Box::new(Finisher::new(port, Arc::clone(&self.shared))))
            })
            .collect()
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.shared.offloads.set(receive);
    }
}
