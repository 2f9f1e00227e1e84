// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One split ring, as the device works it: avail entries in, used entries out, and the two event
//! indices that keep both sides from waking each other for nothing.
//!
//! The `virtio-queue` crate is what this is tested against, and not what it is made of: that looks
//! guest memory up for every access, ends a batch silently where a driver is to be told what it did
//! wrong, and shows each used entry to the driver at once, where the entries of a frame that fills
//! several buffers must become visible together.

use std::sync::atomic::{fence, AtomicU64, Ordering};

use vm_memory::Permissions;
use vnet_contract::features::INDIRECT_DESC;
use vnet_contract::queue::{Error, Kind as QueueKind};
use vnet_contract::ring::{self, Desc};
use vnet_dma::{DmaMap, Finder};
use vnet_faults::{Kind, Site};

use crate::indirect::{Indirect, Table};
use crate::mischief::spoil;
use crate::unshared::Confined;
use crate::view::{load, store, Array, View};
use crate::{Due, Fault, Observer, Outline, Position, RingConfig, Wish, Written};

/// Numbers of queues that are started: from one on.
static STARTS: AtomicU64 = AtomicU64::new(1);

/// A ring whose configuration was accepted.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Number of descriptors less one: a mask, as sizes are powers of two.
    mask: u16,
    /// Bus addresses of the descriptor table, the avail ring and the used ring.
    desc: u64,
    avail: u64,
    used: u64,
    /// Next avail entry to fetch.
    next_avail: u16,
    /// Next used entry to write.
    next_used: u16,
    /// The avail index when it was last read: entries up to here may be taken.
    seen: u16,
    /// Most chains that the driver had made available at a time and not got back.
    depth: u16,
    /// Used entries that were published since the last interrupt, or since it was clear that the
    /// driver wants none for them.
    unsignalled: u16,
    /// If the driver accepted `INDIRECT_DESC`.
    indirect: Option<Indirect>,
    observer: Option<Box<dyn Observer>>,
    /// The avail entry of the chain that a fault is about, if that is not the next one: what was taken
    /// before it is given back.
    bad: Option<u16>,
    /// Where used entries go wrong, if they are to.
    faults: Option<Site>,
    /// Tells this start of the queue from all others.
    id: u64,
    /// Set while the ring or its buffers are not shared.
    confined: Option<Box<Confined>>,
}

impl Ring {
    /// Checks what the driver programmed.
    pub(crate) fn new(config: &RingConfig, mem: &DmaMap) -> Result<Self, Fault> {
        let size = config.checked(mem)?;
        Ok(Self {
            mask: size - 1,
            desc: config.desc,
            avail: config.avail,
            used: config.used,
            next_avail: config.index_avail,
            next_used: config.index_used,
            seen: config.index_avail,
            depth: 0,
            unsignalled: 0,
            indirect: (config.features & INDIRECT_DESC != 0).then(|| Indirect::new(size)),
            observer: None,
            bad: None,
            faults: None,
            id: STARTS.fetch_add(1, Ordering::Relaxed),
            confined: None,
        })
    }

    /// Lets used entries go wrong.
    pub(crate) fn set_faults(&mut self, site: Site) {
        self.faults = Some(site);
    }

    /// Where the ring is, for a queue of this kind.
    pub(crate) fn outline(&self, kind: QueueKind, split: bool, longest: usize) -> Outline {
        Outline {
            id: self.id,
            kind,
            size: self.size(),
            desc: self.desc,
            avail: self.avail,
            used: self.used,
            next_avail: self.next_avail,
            next_used: self.next_used,
            indirect: self.indirect.is_some(),
            split,
            longest,
        }
    }

    /// From now on no chain is taken from this avail index on, and what is published is not shown,
    /// but put down for [`Self::written`].
    pub(crate) fn confine(&mut self, horizon: u16) {
        let confined = self.confined.get_or_insert_default();
        confined.horizon = horizon;
        self.seen = confined.limit(self.next_avail, self.seen);
    }

    /// What was written since the last time.
    pub(crate) fn written(&mut self) -> Written {
        let confined = self.confined.as_mut();
        confined.map_or_else(Written::default, |c| std::mem::take(&mut c.written))
    }

    /// True if frames may come with metadata that the driver did not accept.
    pub(crate) fn lies(&self) -> bool {
        const LIES: &[Kind] = &[Kind::BadChecksum, Kind::BadSegments];
        self.faults.as_ref().is_some_and(|site| site.may_now(LIES))
    }

    /// Number of descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.mask + 1
    }

    /// Next avail entry to fetch and next used entry to write.
    pub(crate) fn indices(&self) -> (u16, u16) {
        (self.next_avail, self.next_used)
    }

    /// Has somebody watch the ring.
    pub(crate) fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Tells the observer of something, if there is one.
    #[inline]
    pub(crate) fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position)) {
        if let Some(observer) = &mut self.observer {
            let at = Position {
                next_avail: self.next_avail,
                next_used: self.next_used,
            };
            what(observer.as_mut(), at);
        }
    }

    /// A fault is about the chain of the avail entry that is so far ahead.
    #[cold]
    pub(crate) fn blame(&mut self, ahead: u16) {
        self.bad = Some(self.next_avail.wrapping_add(ahead));
    }

    /// Tells the observer of the fault that ends the ring, if there is an observer.
    pub(crate) fn accuse(&mut self, mem: &DmaMap, fault: Fault) {
        let bad = self.bad.unwrap_or(self.next_avail);
        self.tell(|observer, at| observer.fault(mem, at, bad, fault));
    }

    /// The ring in a snapshot of guest memory, for the batch that begins.
    pub(crate) fn view<'m>(&mut self, mem: &'m DmaMap) -> View<'m> {
        self.tell(|observer, at| observer.begin(mem, at));
        let mut finder = Finder::new(mem);
        let size = usize::from(self.size());
        let entries = ring::RING_ENTRIES as u64;
        // The sums are those that were checked at the start.
        let avail = self.avail.wrapping_add(entries);
        let used = self.used.wrapping_add(entries);
        View {
            desc: Array::new(&mut finder, self.desc, 2 * size, Permissions::Read),
            avail: Array::new(&mut finder, avail, size, Permissions::Read),
            used: Array::new(&mut finder, used, 2 * size, Permissions::Write),
            finder,
        }
    }

    /// The used index that the driver sees.
    pub(crate) fn shown(&self, mem: &DmaMap) -> Result<u16, Fault> {
        let address = self.used.wrapping_add(ring::RING_IDX as u64);
        load::<u16>(mem, address, Ordering::Acquire).map(u16::from_le)
    }

    /// Goes on where another process stopped that had shown entries up to here. As chains are used
    /// in order, this says which one comes next.
    pub(crate) fn catch_up(&mut self, used: u16) {
        let ahead = used.wrapping_sub(self.next_used);
        self.next_used = used;
        self.skip(ahead);
    }

    /// Passes over chains whose used entries are there already.
    pub(crate) fn skip(&mut self, count: u16) {
        self.next_avail = self.next_avail.wrapping_add(count);
        self.seen = self.next_avail;
    }

    /// The used index that follows `ahead` more entries.
    pub(crate) fn used_after(&self, ahead: u16) -> u16 {
        self.next_used.wrapping_add(ahead)
    }

    /// Takes the next avail entry: the head of a chain, not yet checked against the ring size.
    #[inline]
    pub(crate) fn take(&mut self, view: &View<'_>) -> Result<Option<u16>, Fault> {
        let next = self.next_avail;
        if next == self.seen {
            // Acquire: the entries and descriptors below this index were written before it.
            let idx = self.avail_index(view.mem(), Ordering::Acquire)?;
            if idx.wrapping_sub(next) > self.size() {
                return Err(Fault::new(Error::AvailIndex, idx));
            }
            let idx = match &self.confined {
                None => idx,
                Some(confined) => confined.limit(next, idx),
            };
            if idx == next {
                return Ok(None);
            }
            self.seen = idx;
            // What is not published is still the device's.
            self.depth = self.depth.max(idx.wrapping_sub(self.next_used));
        }
        let head = view.avail.load(usize::from(next & self.mask))?;
        self.next_avail = next.wrapping_add(1);
        Ok(Some(u16::from_le(head)))
    }

    fn avail_index(&self, mem: &DmaMap, order: Ordering) -> Result<u16, Fault> {
        let address = self.avail.wrapping_add(ring::RING_IDX as u64);
        load::<u16>(mem, address, order).map(u16::from_le)
    }

    /// Tells this start of the queue from all others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// True if there is something to take beyond so many chains.
    pub(crate) fn has_chains(&self, mem: &DmaMap, ahead: u16) -> bool {
        let index = self.avail_index(mem, Ordering::Relaxed);
        index.is_ok_and(|index| index != self.next_avail.wrapping_add(ahead))
    }

    /// The avail index when it was last read.
    pub(crate) fn seen(&self) -> u16 {
        self.seen
    }

    /// The next `count` chains were looked at before: they are passed over one by one, and no others are
    /// taken until [`Self::release`]. What would be put into the used ring until then is put down.
    pub(crate) fn hold(&mut self, count: u16) {
        self.seen = self.next_avail;
        let horizon = self.next_avail.wrapping_add(count);
        self.confined = Some(Box::new(Confined::held(horizon)));
    }

    /// Used entries that were put down since [`Self::hold`]: first descriptor, and bytes written.
    pub(crate) fn release(&mut self) -> Vec<(u16, u32)> {
        self.confined.take().map_or_else(Vec::new, |c| c.put_down())
    }

    /// Gives back the last `count` entries that were taken.
    pub(crate) fn give_back(&mut self, count: u16) {
        self.next_avail = self.next_avail.wrapping_sub(count);
    }

    /// Reads a descriptor. `index` must be below the ring size.
    #[inline]
    pub(crate) fn descriptor(&self, view: &View<'_>, index: u16) -> Result<Desc, Fault> {
        let at = 2 * usize::from(index);
        // A driver that changes the descriptor between the loads gets a mixture; each field is
        // checked after it was read, and read once.
        Ok(Desc::from_words([
            u64::from_le(view.desc.load(at)?),
            u64::from_le(view.desc.load(at + 1)?),
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
    #[inline]
    pub(crate) fn put_used(
        &mut self,
        view: &View<'_>,
        ahead: u16,
        head: u16,
        len: u32,
    ) -> Result<(), Fault> {
        let at = 2 * usize::from(self.next_used.wrapping_add(ahead) & self.mask);
        if let Some(confined) = &mut self.confined {
            confined.put(ahead, head, len);
            if confined.is_held() {
                return Ok(());
            }
        }
        view.used.store(at, u32::from(head).to_le())?;
        view.used.store(at + 1, len.to_le())
    }

    /// Shows `count` used entries to the driver.
    pub(crate) fn publish(&mut self, view: &View<'_>, count: u16) -> Result<(), Fault> {
        self.tell(|observer, at| observer.publish(view.mem(), at, count));
        let next = self.next_used.wrapping_add(count);
        let shown = match &self.faults {
            None => next,
            Some(site) => spoil(site, view, self.mask, self.next_used, count)?,
        };
        if let Some(confined) = &mut self.confined {
            confined.publish(count, shown);
        } else {
            let address = self.used.wrapping_add(ring::RING_IDX as u64);
            // Release: a driver that sees the index sees the entries, and the data in the buffers.
            store(view.mem(), shown.to_le(), address, Ordering::Release)?;
        }
        self.next_used = next;
        // More than the index can tell apart count as all.
        self.unsignalled = self.unsignalled.saturating_add(count);
        Ok(())
    }

    /// The interrupt that the driver wants for what was published, until [`Self::signalled`].
    pub(crate) fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        if self.unsignalled == 0 {
            return Ok(None);
        }
        let wish = self.wish(mem)?;
        Ok(self.due(wish))
    }

    /// What the driver says about the interrupt for what was published.
    pub(crate) fn wish(&self, mem: &DmaMap) -> Result<Wish, Fault> {
        // The used index must be visible before used_event is read: the driver writes used_event
        // and then reads the used index, so one of the two sees the other's write.
        fence(Ordering::SeqCst);
        let offset = ring::used_event_offset(self.size()) as u64;
        let event = load::<u16>(mem, self.avail.wrapping_add(offset), Ordering::Relaxed)?;
        let new = self.next_used;
        Ok(Wish {
            event: u16::from_le(event),
            old: new.wrapping_sub(self.unsignalled),
            new,
        })
    }

    /// What follows from that.
    pub(crate) fn due(&mut self, wish: Wish) -> Option<Due> {
        let Wish { event, old, new } = wish;
        if !ring::need_event(event, new, old) {
            // It moves its event before it looks at the used index for the last time.
            self.unsignalled = 0;
            return None;
        }
        self.tell(|observer, _| observer.due(event));
        Some(Due {
            event,
            entries: new.wrapping_sub(event),
        })
    }

    /// The interrupt that was due is taken care of.
    pub(crate) fn signalled(&mut self) {
        self.unsignalled = 0;
    }

    /// Asks for a doorbell when the driver goes beyond the entries that were seen, and returns
    /// true if it has done so already; then no doorbell may come.
    pub(crate) fn rearm(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        let news = self.ask(mem, self.seen)?;
        if !news {
            let event = self.seen;
            self.tell(|observer, _| observer.armed(event));
        }
        Ok(news)
    }

    /// Asks for a doorbell when the driver has made half as many entries available as it can, for
    /// all that is known, and returns true if there are new ones already. The caller looks at the
    /// ring after a time, for the driver may not get so far.
    pub(crate) fn rearm_late(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ask(mem, self.seen.wrapping_add(self.depth / 2))
    }

    /// Asks for a doorbell for the entry `event`; true if entries were made available that were not
    /// seen.
    fn ask(&mut self, mem: &DmaMap, event: u16) -> Result<bool, Fault> {
        let offset = ring::avail_event_offset(self.size()) as u64;
        let address = self.used.wrapping_add(offset);
        store(mem, event.to_le(), address, Ordering::Relaxed)?;
        if let Some(confined) = &mut self.confined {
            confined.written.armed = Some(event);
        }
        // The event must be visible before the index is read: the driver moves the index and then
        // reads the event, so one of the two sees the other's write.
        fence(Ordering::SeqCst);
        Ok(self.avail_index(mem, Ordering::Relaxed)? != self.seen)
    }
}
