// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One split ring, as the device works it: avail entries in, used entries out, and the two event
//! indices that keep both sides from waking each other for nothing.
//!
//! The `virtio-queue` crate holds addresses and indices and re-arms doorbells. Two things are done
//! here instead. Avail entries are read here, because the crate's iterator ends silently where a
//! driver is to be told what it did wrong. Used entries are written here, because the crate shows
//! each one to the driver at once, and the entries of a frame that fills several buffers must
//! become visible together.

use std::sync::atomic::{fence, Ordering};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vnet_contract::features::INDIRECT_DESC;
use vnet_contract::queue::{self, Error};
use vnet_contract::ring::{self, Desc};
use vnet_dma::DmaMap;

use crate::indirect::{Indirect, Table};
use crate::{Due, Fault, RingConfig};

/// A ring whose configuration was accepted.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    /// The avail index when it was last read: entries up to here may be taken.
    seen: u16,
    /// Used entries that were published since the last interrupt, or since it was clear that the
    /// driver wants none for them.
    unsignalled: u16,
    /// If the driver accepted `INDIRECT_DESC`.
    indirect: Option<Indirect>,
}

impl Ring {
    /// Checks what the driver programmed.
    pub(crate) fn new(config: &RingConfig, mem: &DmaMap) -> Result<Self, Fault> {
        if !queue::size_is_valid(config.size) {
            return Err(Fault::new(Error::Size, config.size));
        }
        // Valid sizes are small.
        let size = config.size as u16;
        for (address, align, bytes, access) in [
            (
                config.desc,
                ring::DESC_ALIGN,
                ring::desc_bytes(size),
                Permissions::Read,
            ),
            (
                config.avail,
                ring::AVAIL_ALIGN,
                ring::avail_bytes(size),
                Permissions::Read,
            ),
            (
                config.used,
                ring::USED_ALIGN,
                ring::used_bytes(size),
                Permissions::ReadWrite,
            ),
        ] {
            if address % align != 0 {
                return Err(Fault::at(Error::Alignment, address));
            }
            if !mem.check_range(GuestAddress(address), bytes, access) {
                return Err(Fault::at(Error::RingFault, address));
            }
        }
        let configured = || {
            let mut q = Queue::new(queue::MAX_SIZE)?;
            q.try_set_size(size)?;
            q.try_set_desc_table_address(GuestAddress(config.desc))?;
            q.try_set_avail_ring_address(GuestAddress(config.avail))?;
            q.try_set_used_ring_address(GuestAddress(config.used))?;
            q.set_event_idx(true);
            q.set_next_avail(config.index_avail);
            q.set_next_used(config.index_used);
            q.set_ready(true);
            Ok::<_, virtio_queue::Error>(q)
        };
        Ok(Self {
            queue: configured().map_err(|_| Fault::new(Error::Size, config.size))?,
            seen: config.index_avail,
            unsignalled: 0,
            indirect: (config.features & INDIRECT_DESC != 0).then(|| Indirect::new(size)),
        })
    }

    /// Number of descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Next avail entry to fetch and next used entry to write.
    pub(crate) fn indices(&self) -> (u16, u16) {
        (self.queue.next_avail(), self.queue.next_used())
    }

    /// Takes the next avail entry: the head of a chain, not yet checked against the ring size.
    pub(crate) fn take(&mut self, mem: &DmaMap) -> Result<Option<u16>, Fault> {
        let next = self.queue.next_avail();
        if next == self.seen {
            // Acquire: the entries and descriptors below this index were written before it.
            let idx = self
                .queue
                .avail_idx(mem, Ordering::Acquire)
                .map_err(|_| Fault::at(Error::RingFault, self.queue.avail_ring()))?
                .0;
            if idx.wrapping_sub(next) > self.size() {
                return Err(Fault::new(Error::AvailIndex, idx));
            }
            if idx == next {
                return Ok(None);
            }
            self.seen = idx;
        }
        let slot = usize::from(next % self.size());
        let offset = ring::RING_ENTRIES + slot * ring::AVAIL_ENTRY_SIZE;
        let address = self.queue.avail_ring().wrapping_add(offset as u64);
        let head = load::<u16>(mem, address)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        Ok(Some(u16::from_le(head)))
    }

    /// Gives back the last `count` entries that were taken.
    pub(crate) fn give_back(&mut self, count: u16) {
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    /// Reads a descriptor. `index` must be below the ring size.
    pub(crate) fn descriptor(&self, mem: &DmaMap, index: u16) -> Result<Desc, Fault> {
        let offset = usize::from(index) * ring::DESC_SIZE;
        let address = self.queue.desc_table().wrapping_add(offset as u64);
        // A driver that changes the descriptor between the loads gets a mixture; each field is
        // checked after it was read, and read once.
        Ok(Desc::from_words([
            u64::from_le(load(mem, address)?),
            u64::from_le(load(mem, address.wrapping_add(8))?),
        ]))
    }

    /// Reads the table that the indirect descriptor `desc` at `index` points to.
    pub(crate) fn table(
        &mut self,
        mem: &DmaMap,
        index: u16,
        desc: Desc,
    ) -> Result<Table<'_>, Fault> {
        match &mut self.indirect {
            Some(indirect) => indirect.table(mem, index, desc),
            None => Err(Fault::new(Error::Indirect, index)),
        }
    }

    /// Writes the used entry `ahead` places after the last published one. It stays invisible
    /// until [`Self::publish`].
    pub(crate) fn put_used(
        &mut self,
        mem: &DmaMap,
        ahead: u16,
        head: u16,
        len: u32,
    ) -> Result<(), Fault> {
        let slot = usize::from(self.queue.next_used().wrapping_add(ahead) % self.size());
        let offset = ring::RING_ENTRIES + slot * ring::USED_ENTRY_SIZE;
        let address = self.queue.used_ring().wrapping_add(offset as u64);
        store(mem, u32::from(head).to_le(), address, Ordering::Relaxed)?;
        store(mem, len.to_le(), address.wrapping_add(4), Ordering::Relaxed)
    }

    /// Shows `count` used entries to the driver.
    pub(crate) fn publish(&mut self, mem: &DmaMap, count: u16) -> Result<(), Fault> {
        let next = self.queue.next_used().wrapping_add(count);
        let address = self.queue.used_ring().wrapping_add(ring::RING_IDX as u64);
        // Release: a driver that sees the index sees the entries, and the data in the buffers.
        store(mem, next.to_le(), address, Ordering::Release)?;
        self.queue.set_next_used(next);
        // More than the index can tell apart count as all.
        self.unsignalled = self.unsignalled.saturating_add(count);
        Ok(())
    }

    /// The interrupt that the driver wants for what was published, until [`Self::signalled`].
    pub(crate) fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        if self.unsignalled == 0 {
            return Ok(None);
        }
        // The used index must be visible before used_event is read: the driver writes used_event
        // and then reads the used index, so one of the two sees the other's write.
        fence(Ordering::SeqCst);
        let offset = ring::used_event_offset(self.size()) as u64;
        let event = load::<u16>(mem, self.queue.avail_ring().wrapping_add(offset))?;
        let event = u16::from_le(event);
        let new = self.queue.next_used();
        let old = new.wrapping_sub(self.unsignalled);
        if !ring::need_event(event, new, old) {
            // It moves its event before it looks at the used index for the last time.
            self.unsignalled = 0;
            return Ok(None);
        }
        Ok(Some(Due {
            event,
            entries: new.wrapping_sub(event),
        }))
    }

    /// The interrupt that was due is taken care of.
    pub(crate) fn signalled(&mut self) {
        self.unsignalled = 0;
    }

    /// Asks for a doorbell when the driver goes beyond the entries that were seen, and returns
    /// true if it has done so already; then no doorbell may come.
    pub(crate) fn rearm(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        let next = self.queue.next_avail();
        // Entries that were seen and given back are no news.
        self.queue.set_next_avail(self.seen);
        let news = self.queue.enable_notification(mem);
        self.queue.set_next_avail(next);
        news.map_err(|_| Fault::at(Error::RingFault, self.queue.used_ring()))
    }
}

fn load<T: vm_memory::AtomicAccess>(mem: &DmaMap, address: u64) -> Result<T, Fault> {
    mem.load(GuestAddress(address), Ordering::Relaxed)
        .map_err(|_| Fault::at(Error::RingFault, address))
}

fn store<T: vm_memory::AtomicAccess>(
    mem: &DmaMap,
    value: T,
    address: u64,
    order: Ordering,
) -> Result<(), Fault> {
    mem.store(value, GuestAddress(address), order)
        .map_err(|_| Fault::at(Error::RingFault, address))
}
