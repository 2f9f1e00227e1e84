// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use rustix::io::Errno;
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};
use vnet_state::Intake;

use crate::attach::{adopt, attach, is, Attached};
use crate::bridge;
use crate::drops::Drops;
use crate::interface::Interface;
use crate::netns::{enter, inside, Place};
use crate::port::{Port, Shared};
use crate::sys;
use crate::teller::Teller;
use crate::tun::Tun;

// linux/if_tun.h; the last two are newer than some header files.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO: u32 = 0x20 | 0x40;

/// `MAX_TAP_QUEUES` of the kernel.
const MAX_QUEUES: u16 = 256;
/// The kernel's limit for a TAP.
const MAX_MTU: u16 = 65_521;

/// Which interface.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the interface. One that does not exist is made, and goes with the [`Tap`].
    pub name: String,
    /// Queues to open, `1..=256`. An interface that exists must have been made for several if
    /// this is more than one.
    pub queues: u16,
    /// The network namespace that it is in; `None`: that of the process. A file as
    /// `/proc/PID/ns/net` is, or those that `ip netns` makes.
    pub netns: Option<PathBuf>,
    /// A bridge of that namespace which it joins, with the bridge's MTU, and up.
    pub bridge: Option<String>,
}

/// The endpoint.
#[derive(Debug)]
pub struct Tap {
    queues: Vec<Tun>,
    /// Most queues, also when the queues were opened.
    max_queues: u16,
    /// Controls the interface.
    control: Arc<OwnedFd>,
    /// What counts the frames of each queue, if anything does.
    intakes: Vec<Intake>,
    interface: Interface,
    offloads: Offloads,
    shared: Arc<Shared>,
    /// Since the queues were opened.
    teller: Option<Teller>,
    drops: Drops,
}

impl Tap {
    /// Attaches to the interface or makes it.
    pub fn open(config: Config) -> Result<Self, Error> {
        let Config {
            name,
            queues,
            netns,
            bridge,
        } = config;
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(Error::Unsupported(format!(
                "a TAP interface cannot have {queues} queues, but 1 to {MAX_QUEUES}"
            )));
        }
        inside(netns.as_deref(), || {
            let tap = Self::new(&name, queues, attach(&name, queues)?)?;
            match &bridge {
                Some(bridge) => bridge::join(&tap.interface, bridge).map(|()| tap),
                None => Ok(tap),
            }
        })
    }

    /// Goes on with the descriptors of a [`Tap`] of another process, which were kept from being
    /// closed with it: as many as [`Self::descriptors`] gave, in that order.
    pub fn adopt(config: Config, queues: Vec<OwnedFd>) -> Result<Self, Error> {
        let Config {
            name,
            queues: many,
            netns,
            bridge: _,
        } = config;
        if queues.len() != usize::from(many) || queues.is_empty() {
            return Err(Error::Unsupported(format!(
                "TAP interface {name} was left with {} queues, not {many}",
                queues.len()
            )));
        }
        let place = Place::of(queues[0].as_fd());
        let adopt = |gone| Self::new(&name, many, adopt(&name, queues, gone)?);
        match place {
            Ok(Place::Here) => adopt(false),
            Ok(Place::There(namespace)) => {
                let failed = |source| Error::Io {
                    what: format!("cannot enter the network namespace of TAP interface {name}"),
                    source,
                };
                enter(namespace.as_fd(), failed, || adopt(false))
            }
            Ok(Place::Gone) => adopt(true),
            Err(_) => inside(netns.as_deref(), || adopt(false)),
        }
    }

    /// The descriptors of the queues, before [`Endpoint::open`] hands them out. The interface
    /// lives for as long as somebody has one of them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|tun| tun.as_fd())
    }

    /// Has the frames counted that are read from the queues, with one of these for each.
    pub fn count(&mut self, intakes: Vec<Intake>) {
        self.intakes = intakes;
    }

    fn new(name: &str, queues: u16, attached: Attached) -> Result<Self, Error> {
        let Attached {
            interface,
            queues: tuns,
        } = attached;
        let control = Arc::clone(&tuns[0].fd);
        let offloads = probe(&control).map_err(|source| Error::Io {
            what: format!("cannot set the offloads of TAP interface {name}"),
            source,
        })?;
        Ok(Self {
            queues: tuns,
            max_queues: queues,
            control,
            intakes: Vec::new(),
            interface,
            offloads,
            shared: Arc::default(),
            teller: None,
            drops: Drops::new(),
        })
    }
}

impl Tap {
    /// Tells the queues how long frames are now. The link is asked for now and then.
    fn look_at_mtu(&self) {
        let mtu = self.interface.mtu();
        let mtu = mtu.map_or(usize::from(MAX_MTU), |mtu| mtu as usize);
        self.shared.mtu.store(mtu, Ordering::Relaxed);
    }
}

/// Finds out which offloads the kernel has, and leaves them off. No matter which for an interface that was deleted.
fn probe(tun: &OwnedFd) -> std::io::Result<Offloads> {
    let all = Offloads::ALL;
    let without_uso = Offloads { uso: false, ..all };
    let offloads = if sys::set_offload(tun.as_fd(), flags(all)).is_ok() {
        all
    } else {
        without_uso
    };
    match sys::set_offload(tun.as_fd(), 0) {
        Ok(()) => Ok(offloads),
        Err(error) if is(&error, Errno::BADFD) => Ok(all),
        Err(error) => Err(error),
    }
}

fn flags(offloads: Offloads) -> u32 {
    let mut flags = 0;
    for (wanted, flag) in [
        (offloads.checksum, TUN_F_CSUM),
        (offloads.tso4, TUN_F_TSO4),
        (offloads.tso6, TUN_F_TSO6),
        (
            offloads.ecn && (offloads.tso4 || offloads.tso6),
            TUN_F_TSO_ECN,
        ),
        (offloads.uso, TUN_F_USO),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    // Segmentation without checksums makes no sense, and the kernel refuses it.
    if offloads.checksum {
        flags
    } else {
        0
    }
}

impl Endpoint for Tap {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: self.offloads,
            max_queues: self.max_queues,
            max_mtu: MAX_MTU,
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
        if usize::from(queues) > self.queues.len() {
            return Err(Error::Unsupported(format!(
                "the TAP interface was opened with {} queues, not {queues}",
                self.queues.len()
            )));
        }
        let control = Arc::clone(&self.control);
        // The kernel took all of them when they were probed. It can only fail now if the interface
        // is gone, and then no frames come.
        let tell = move |flags| drop(sys::set_offload(control.as_fd(), flags));
        let teller = Teller::start(0, tell).map_err(|source| Error::Io {
            what: "cannot start the thread of a TAP interface".into(),
            source,
        });
        self.teller = Some(teller?);
        self.look_at_mtu();
        // Queues that are not wanted are closed, so that no frames are sent to them.
        let tuns = std::mem::take(&mut self.queues);
        let mut intakes = std::mem::take(&mut self.intakes).into_iter();
        Ok(tuns
            .into_iter()
            .take(queues.into())
            .map(|tun| {
                let mut port = Port::new(tun, self.shared.clone(), self.offloads);
                if let Some(intake) = intakes.next() {
                    port.count(intake);
                }
                Box::new(port) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.shared.offloads.set(receive);
        if let Some(teller) = &self.teller {
            teller.want(flags(receive));
        }
    }

    fn missed(&self) -> u64 {
        let name = self.interface.name().ok();
        let name = name.as_ref().map(|name| name.as_str());
        self.drops.count(name)
    }
}
