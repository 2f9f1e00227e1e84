// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the messages of one client do to the card.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::io::Errno;
use tracing::{debug, trace, warn};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_UNMAP_FLAG_ALL, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TYPE_MASK,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_TYPE_MASK,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};
use vnet_card::{Card, Limit};
use vnet_dma::{AddressSpace, Mapping, Relay};
use vnet_irq::EventFd;

use crate::error::Error;
use crate::layout::{self, CONFIG, ERROR_IRQ, MSIX, MSIX_IRQ, REGISTERS};
use crate::serve::SharedCard;

/// Called with what makes it pointless to go on.
pub(crate) type OnFatal = Box<dyn FnMut(Error) + Send>;

/// The card, in the hands of one client after another.
pub(crate) struct Device {
    card: SharedCard,
    sharing: Sharing,
    on_fatal: OnFatal,
    limit: Limit,
    /// The next message may be one that another process has handled, if only in part.
    again: bool,
    /// Set if the client can be asked for memory that it does not share.
    relay: Option<Arc<Relay>>,
}

/// Whether the client shares its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// It has mapped no memory that would tell.
    Unknown,
    /// It mapped memory that the card should be able to write, but gave no file for it. Some
    /// memory of a guest is never shared, such as that of a display, so this alone is no mistake.
    Withheld,
    /// It gave a file for some of its memory.
    Shared,
    /// It was found to share nothing, and this was reported.
    Reported,
}

impl Device {
    pub(crate) fn new(card: SharedCard, on_fatal: OnFatal) -> Self {
        Self {
            card,
            sharing: Sharing::Unknown,
            on_fatal,
            limit: Limit::new(Instant::now()),
            again: true,
            relay: None,
        }
    }

    /// A client has come. If it can be `asked`, it need not share its memory.
    pub(crate) fn connect(&mut self, asked: bool) -> Option<Arc<Relay>> {
        self.relay = asked.then(|| self.card().relay()).flatten();
        self.relay.clone()
    }

    /// What of its memory a client may be asked for now.
    pub(crate) fn address_space(&self) -> AddressSpace {
        self.card().address_space().clone()
    }

    /// The client is gone; take back what it gave.
    pub(crate) fn disconnect(&mut self) {
        self.card().disconnect();
        self.sharing = Sharing::Unknown;
        self.relay = None;
    }

    /// The client has talked to another process before, which may not have got as far as to find out
    /// whether it shares its memory.
    pub(crate) fn recovered(&mut self) {
        let (map, checked) = {
            let card = self.card();
            (card.address_space().all(), card.dma_enabled())
        };
        // It was looked at when bus mastering was turned on. What it shares may be away for a moment.
        let shared = checked || map.within_reach(0..=u64::MAX).next().is_some();
        self.sharing = match shared {
            true => Sharing::Shared,
            false if map.has_withheld() => Sharing::Withheld,
            false => Sharing::Unknown,
        };
    }

    /// What comes from now on was not handled by another process.
    pub(crate) fn caught_up(&mut self) {
        if std::mem::take(&mut self.again) {
            self.card().caught_up();
        }
    }

    /// Says what will not work for this client, which may say less about it itself.
    fn warn(&mut self, what: impl Display) {
        if let Some(suppressed) = self.limit.permit(Instant::now()) {
            warn!("client: {what}");
            if suppressed != 0 {
                warn!("{suppressed} more such lines were not logged");
            }
        }
    }

    fn card(&self) -> MutexGuard<'_, Card> {
        // After a panic the server ends, and the card is reset on the way.
        self.card.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client maps its memory before it uses the device. One that has mapped memory by now, but
    /// shared none, never will: if it cannot be asked either, no frame could ever move.
    ///
    /// Asked when bus mastering is turned on, and not before: QEMU aborts if a device goes away
    /// while it is set up or reset, which for one that is hot-plugged would end a running guest.
    fn check_sharing(&mut self) {
        if self.sharing == Sharing::Withheld {
            self.sharing = Sharing::Reported;
            match self.relay {
                Some(_) => warn!(
                    "client: does not share its memory, which makes the card slow; QEMU does with \
                     -object memory-backend-memfd,share=on as the memory of its machine"
                ),
                None => (self.on_fatal)(Error::NoSharedMemory),
            }
        }
    }

    fn set_msix(&mut self, flags: u32, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        if flags & VFIO_IRQ_SET_ACTION_TYPE_MASK != VFIO_IRQ_SET_ACTION_TRIGGER {
            return Err(Errno::INVAL.into());
        }
        let mut card = self.card();
        let done = match flags & VFIO_IRQ_SET_DATA_TYPE_MASK {
            // MSI-X was disabled.
            VFIO_IRQ_SET_DATA_NONE if count == 0 => {
                card.detach_all();
                Ok(())
            }
            VFIO_IRQ_SET_DATA_NONE => card.vectors().raise(start, count),
            // No descriptors: these vectors are enabled, but nothing listens to them yet.
            VFIO_IRQ_SET_DATA_EVENTFD if fds.is_empty() => card.detach(start, count),
            VFIO_IRQ_SET_DATA_EVENTFD if fds.len() == count as usize => {
                return attach(&mut card, start, fds);
            }
            _ => return Err(Errno::INVAL.into()),
        };
        done.map_err(|_| Errno::INVAL.into())
    }
}

fn attach(card: &mut Card, start: u32, fds: Vec<File>) -> io::Result<()> {
    let fds = fds.into_iter().map(|fd| EventFd::new(fd.into()));
    card.attach(start, fds.collect::<io::Result<_>>()?)
        .map_err(|_| Errno::INVAL.into())
}

/// Refuses an access that does not lie within its region. The session does so before; other loops
/// that can drive this do not.
fn check_range(region: u32, offset: u64, length: usize) -> io::Result<()> {
    let end = offset.checked_add(length as u64);
    match end.filter(|&end| end <= layout::region_size(region)) {
        Some(_) => Ok(()),
        None => Err(Errno::INVAL.into()),
    }
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        check_range(region, offset, data.len())?;
        match region {
            REGISTERS => self.card().read_registers(offset, data),
            MSIX => self.card().read_msix(offset, data),
            CONFIG => self.card().read_config(offset, data),
            // Of size zero: the access is empty.
            _ => {}
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(region, offset, data.len())?;
        match region {
            REGISTERS => self.card().write_registers(offset, data),
            CONFIG => {
                let mut card = self.card();
                card.write_config(offset, data);
                if card.dma_enabled() {
                    drop(card);
                    self.check_sharing();
                }
            }
            // Nothing in the MSI-X region is writable here, and other regions are empty.
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        trace!(address, size, ?flags, file = file.is_some(), "map");
        let write = flags.contains(DmaMapFlags::WRITE);
        match (&file, self.sharing) {
            (Some(_), _) => self.sharing = Sharing::Shared,
            (None, Sharing::Unknown) if write => self.sharing = Sharing::Withheld,
            _ => {}
        }
        let mapping = Mapping {
            address,
            size,
            file,
            offset,
            read: flags.contains(DmaMapFlags::READ),
            write,
        };
        let mapped = self.card().map(mapping);
        mapped.map_err(|e| {
            self.warn(&e);
            e.into()
        })
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        trace!(address, size, ?flags, "unmap");
        if flags.bits() & VFIO_DMA_UNMAP_FLAG_ALL != 0 {
            self.card().unmap_all();
        } else {
            self.card().unmap(address, size);
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        debug!("device reset");
        self.card().reset_function();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        trace!(index, flags, start, count, fds = fds.len(), "set irqs");
        match index {
            MSIX_IRQ => {
                let attaches = !fds.is_empty();
                let done = self.set_msix(flags, start, count, fds);
                done.inspect_err(|e| {
                    if attaches {
                        self.warn(format_args!("interrupts from vector {start} on: {e}"));
                    }
                })
            }
            // Never raised, so that there is nothing to keep.
            ERROR_IRQ => Ok(()),
            // Taking away what does not exist is no mistake.
            _ if count == 0 => Ok(()),
            _ => Err(Errno::INVAL.into()),
        }
    }
}

#[cfg(test)]
mod tests;
