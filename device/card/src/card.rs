// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card as its bus sees it.

use std::ops::RangeInclusive;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use tracing::debug;
use vnet_backend::{Endpoint, Offloads};
use vnet_contract::features::{complete, MAC_FILTER};
use vnet_contract::pci::{MAX_QUEUE_PAIRS, MSIX_PBA_OFFSET};
use vnet_dma::{AddressSpace, MapError, Mapping, Relay};
use vnet_faults::Faults;
use vnet_irq::Vectors;
use vnet_pci::ConfigSpace;
use vnet_sanitizer::Rule;
use vnet_worker::{Kind, Pair, Report, Steering};

use crate::config::{is_station_address, Config, Error};
use crate::decode::{self, pair_of, Map};
use crate::events::Events;
use crate::filter::FilterRegs;
use crate::mischief::Mischief;
use crate::missed::Missed;
use crate::monitor::{Monitor, SharedEndpoint, MAX_NOTES};
use crate::negotiation::{offer, Negotiation};
use crate::queue::QueueRegs;
use crate::rss::RssRegs;
use crate::sanitize::Watch;
use crate::survival::{row, Ledger};

/// Smallest MTU limit that a card may have: less would surprise every driver.
pub(crate) const LEAST_MAX_MTU: u16 = 1500;

/// Counters per queue that have a latch.
pub(crate) const LATCHES: usize = vnet_contract::regs::STATS.len();

/// A card with its backend, worker threads and monitor.
///
/// Fields are dropped in this order: first the threads that use the rest.
pub struct Card {
    pub(crate) pairs: Vec<Pair>,
    steering: Steering,
    _monitor: Monitor,
    pub(crate) watch: Option<Watch>,
    pub(crate) config: Config,
    /// The largest MTU by configuration, which the one in force may be below for the sake of a backend.
    pub(crate) configured_mtu: u16,
    pub(crate) space: ConfigSpace,
    pub(crate) map: Map,
    pub(crate) negotiation: Negotiation,
    pub(crate) filter: FilterRegs,
    pub(crate) rss: RssRegs,
    pub(crate) queues: Vec<QueueRegs>,
    /// High halves of counters, from the last read of their low halves.
    pub(crate) latches: Vec<[u32; LATCHES]>,
    pub(crate) illegal: u32,
    pub(crate) missed: Missed,
    /// Something has changed that is to be written down.
    pub(crate) changed: bool,
    /// The card was reset, and what it wrote before to memory that is not shared may be on its way.
    pub(crate) unsettled: bool,
    pub(crate) events: Arc<Events>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) endpoint: SharedEndpoint,
    pub(crate) dma: AddressSpace,
    /// Where the card is written down, if it outlives the process.
    pub(crate) ledger: Option<Ledger>,
    /// What is to go wrong, in a card that has faults.
    pub(crate) mischief: Option<Mischief>,
    /// The faults, for a backend that comes.
    pub(crate) faults: Option<Arc<Faults>>,
    /// What the backend can deliver, which may be less than the first one could.
    pub(crate) deliverable: Offloads,
}

impl Card {
    /// Makes a card and starts its threads. Nobody has touched it yet: it is as after a reset,
    /// with an empty DMA address space and no eventfds.
    pub fn new(mut config: Config, mut endpoint: Box<dyn Endpoint>) -> Result<Self, Error> {
        let backend = endpoint.capabilities();
        let most = MAX_QUEUE_PAIRS.min(backend.max_queues);
        if !(1..=most).contains(&config.queue_pairs) {
            return Err(Error::QueuePairs {
                wanted: config.queue_pairs,
                backend: backend.max_queues,
            });
        }
        if !is_station_address(config.mac) {
            return Err(Error::Mac);
        }
        let configured_mtu = config.max_mtu;
        config.max_mtu = config.max_mtu.min(backend.max_mtu);
        if config.max_mtu < LEAST_MAX_MTU {
            return Err(Error::Mtu(config.max_mtu));
        }

        let dma = AddressSpace::new();
        let vectors = Arc::new(Vectors::new(config.queue_pairs + 1).map_err(Error::Thread)?);
        vectors.hold(true);
        let (notes, inbox) = sync_channel(MAX_NOTES);
        let events = Arc::new(Events::new(
            2 * config.queue_pairs,
            Arc::clone(&vectors),
            endpoint.link(),
            notes.clone(),
        ));

        let pairs = (0u16..)
            .zip(endpoint.open(config.queue_pairs)?)
            .map(|(index, queue)| {
                let report = Arc::clone(&events) as Arc<dyn Report>;
                Pair::spawn(index, queue, dma.clone(), report, config.service)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Thread)?;
        let steering = Steering::connect(pairs.iter());
        let endpoint: SharedEndpoint = Arc::new(Mutex::new(endpoint));
        let monitor = Monitor::spawn(Arc::clone(&endpoint), Arc::clone(&events), notes, inbox)
            .map_err(Error::Thread)?;

        let offered = complete(offer(&backend) & !config.withheld);
        let queues = 2 * usize::from(config.queue_pairs);
        let card = Self {
            pairs,
            steering,
            _monitor: monitor,
            watch: None,
            space: ConfigSpace::new(vectors.count()),
            map: Map::new(config.queue_pairs, offered),
            negotiation: Negotiation::new(offered),
            filter: FilterRegs::new(config.mac, config.max_mtu),
            rss: RssRegs::new(),
            queues: vec![QueueRegs::new(); queues],
            latches: vec![[0; LATCHES]; queues],
            illegal: 0,
            missed: Missed::default(),
            changed: false,
            unsettled: false,
            config,
            configured_mtu,
            events,
            vectors,
            endpoint,
            dma,
            ledger: None,
            mischief: None,
            faults: None,
            deliverable: backend.receive,
        };
        card.apply_filter();
        Ok(card)
    }

    /// Lets the card misbehave, as far as these faults go. Frames and link are a matter of its
    /// endpoint: [`vnet_faults::Faulty`].
    pub fn set_faults(&mut self, faults: &Arc<Faults>) {
        for pair in &self.pairs {
            pair.set_faults(faults);
        }
        self.mischief = Some(Mischief::new(faults));
        self.faults = Some(Arc::clone(faults));
    }

    /// The MSI-X vectors, to attach eventfds to.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// Whether the card may access guest memory: bus mastering is on, and the card is in D0.
    pub fn dma_enabled(&self) -> bool {
        self.space.dma_enabled()
    }

    /// Reads config space.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.space.read(offset, data);
        if let Some(mischief) = &self.mischief {
            mischief.read_config(data);
        }
    }

    /// Writes config space, and does what the write asks for.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        let changes = self.space.write(offset, data);
        if let Some(power) = changes.power {
            debug!(?power, "power state");
        }
        if changes.flr {
            debug!("function-level reset");
            self.reset_function();
        } else if let Some(on) = changes.dma {
            self.set_dma(on);
        }
        self.save();
    }

    /// Reads BAR 0: registers. Without memory space, or in D3hot, nothing answers, as on a bus.
    pub fn read_registers(&mut self, offset: u64, data: &mut [u8]) {
        if !self.space.memory_enabled() {
            data.fill(0xff);
            return;
        }
        self.begin_access();
        data.fill(0);
        let Some(slots) = decode::split(offset, data.len()) else {
            self.illegal(Rule::RegisterWidth, offset, data.len() as u64);
            self.save();
            return;
        };
        for (at, out) in slots.zip(data.chunks_exact_mut(4)) {
            out.copy_from_slice(&self.read_slot(at).to_le_bytes());
        }
        // What has failed since, this may have told the driver.
        if std::mem::take(&mut self.changed) || self.events.is_any_failed() {
            self.save();
        }
        if let Some(mischief) = &self.mischief {
            mischief.read_registers(offset, data);
        }
    }

    /// Writes BAR 0: registers and doorbells.
    pub fn write_registers(&mut self, offset: u64, data: &[u8]) {
        if !self.space.memory_enabled() {
            return;
        }
        self.begin_access();
        let Some(slots) = decode::split(offset, data.len()) else {
            self.illegal(Rule::RegisterWidth, offset, data.len() as u64);
            self.save();
            return;
        };
        for (at, bytes) in slots.zip(data.chunks_exact(4)) {
            let mut value = [0; 4];
            value.copy_from_slice(bytes);
            self.write_slot(at, u32::from_le_bytes(value));
        }
        // Nearly all writes are doorbells, which change nothing that is written down.
        if std::mem::take(&mut self.changed) {
            self.save();
        }
    }

    /// Reads the MSI-X BAR: the pending bits. The table is the client's; here it reads as zero,
    /// and nothing in this BAR can be written.
    pub fn read_msix(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let pba = u64::from(MSIX_PBA_OFFSET);
        match offset.checked_sub(pba) {
            Some(at) => self.vectors.read_pending(at, data),
            // A read that starts in the table and reaches into the pending bits.
            None => {
                let before = usize::try_from(pba - offset).unwrap_or(usize::MAX);
                if let Some(tail) = data.get_mut(before..) {
                    self.vectors.read_pending(0, tail);
                }
            }
        }
    }

    /// True if a queue that was stopped still has something on its way to memory that is not shared.
    pub(crate) fn is_settling(&self, queue: u16) -> bool {
        let (pair, kind) = pair_of(queue);
        !self.pairs[pair].is_settled(kind)
    }

    /// The same for the card, if it was reset.
    pub(crate) fn is_unsettled(&self) -> bool {
        let Some(relay) = self.dma.relay().filter(|_| self.unsettled) else {
            return false;
        };
        // In this order: a worker that is done with it may leave something on its way.
        (0..self.queues.len() as u16).any(|queue| self.is_settling(queue)) || relay.is_writing()
    }

    /// A sign of life of the guest.
    fn touched(&self) {
        if let Some(sanitizer) = self.sanitizer() {
            sanitizer.sign_of_life();
        }
    }

    /// Says that the client can be asked to read and write memory that it does not share, and
    /// returns how; `None`: such memory stays out of reach. That a card which is watched, or
    /// outlives its process, looks at memory itself.
    pub fn relay(&self) -> Option<Arc<Relay>> {
        let alone = self.sanitizer().is_none() && self.ledger.is_none();
        let on = alone && self.dma.set_relayed(true);
        on.then(|| self.dma.relay().cloned()).flatten()
    }

    /// The address space, to see what it allows now.
    pub fn address_space(&self) -> &AddressSpace {
        &self.dma
    }

    /// Adds a range to the DMA address space.
    pub fn map(&mut self, mapping: Mapping) -> Result<(), MapError> {
        if self.has_mapped(&mapping) {
            return Ok(());
        }
        let row = row(&mapping, None);
        self.dma.map(mapping)?;
        if let Some(sanitizer) = self.sanitizer() {
            sanitizer.mapped(row.address..=row.address + (row.size - 1));
        }
        self.note_mapped(row)?;
        self.resume(false);
        Ok(())
    }

    /// Removes every range that touches this stretch. When this returns, nothing uses them.
    pub fn unmap(&mut self, address: u64, size: u64) {
        let last = address.saturating_add(size.saturating_sub(1));
        if size != 0 {
            self.note_taken(address..=last);
        }
        if self.dma.unmap(address, size) != 0 {
            self.quiesce();
        }
        self.note_unmapped(|first, length| {
            size == 0 || first > last || first.saturating_add(length - 1) < address
        });
    }

    /// Removes every range. When this returns, nothing uses them.
    pub fn unmap_all(&mut self) {
        self.note_taken(0..=u64::MAX);
        self.dma.clear();
        self.quiesce();
        self.note_unmapped(|_, _| false);
    }

    /// Memory is about to be taken from the card: who misses it then has to know already.
    fn note_taken(&self, stretch: RangeInclusive<u64>) {
        if let Some(sanitizer) = self.sanitizer() {
            let map = self.dma.all();
            map.within_reach(stretch)
                .for_each(|range| sanitizer.unmapped(range));
        }
    }

    /// Resets the function, as FLR and a reset of the bus do: queues, registers and config space.
    /// The DMA address space and the eventfds belong to the client and stay.
    pub fn reset_function(&mut self) {
        self.space.reset();
        self.set_dma(false);
        self.reset_registers();
        self.save();
    }

    /// The client is gone: resets the function and drops all that the client gave.
    pub fn disconnect(&mut self) {
        // First: what waits for the client waits in vain.
        self.dma.set_relayed(false);
        self.reset_function();
        self.pairs.iter().for_each(Pair::disconnect);
        self.unmap_all();
        self.detach_all();
        self.vectors.clear_pending();
        if let Some(watch) = &mut self.watch {
            watch.end_session();
        }
        self.save();
    }

    /// Resets queues and registers, but not config space: what `CTRL_RESET` does.
    pub(crate) fn reset_registers(&mut self) {
        self.rss = RssRegs::new();
        self.steering.set_rules(None);
        for pair in &self.pairs {
            pair.stop(Kind::Rx);
            pair.stop(Kind::Tx);
        }
        // Not before: what is given up while a queue runs is begun again.
        if let Some(relay) = self.dma.relay() {
            relay.cancel();
            self.unsettled = true;
        }
        // With all queues stopped no worker reports an error any more; a backend that fails while
        // it is reset does, and that must stay.
        self.events.reset();
        self.pairs.iter().for_each(Pair::reset);
        self.vectors.clear_pending();
        self.negotiation = Negotiation::new(self.negotiation.offered());
        self.filter = FilterRegs::new(self.config.mac, self.config.max_mtu);
        self.queues.fill(QueueRegs::new());
        self.latches.fill([0; LATCHES]);
        self.illegal = 0;
        self.missed = Missed::default();
        self.tell_offloads(Offloads::default());
        self.apply_filter();
        debug!("reset");
    }

    /// Tells the workers which frames the driver wants.
    pub(crate) fn apply_filter(&self) {
        let table = self.negotiation.accepted().unwrap_or(0) & MAC_FILTER != 0;
        let mut filter = self.filter.filter(table);
        filter.withheld = self.negotiation.withheld();
        for pair in &self.pairs {
            pair.set_rx_filter(filter.clone());
        }
    }

    /// Tells the workers how received frames are spread over the pairs.
    pub(crate) fn apply_rss(&mut self) {
        let accepted = self.negotiation.accepted().unwrap_or(0);
        let rules = self.rss.rules(accepted, self.config.queue_pairs);
        self.steering.set_rules(rules);
    }

    /// What comes before each access to the registers, which may take long, or find the card reset.
    fn begin_access(&mut self) {
        if self.mischief.as_ref().is_some_and(Mischief::access) {
            self.reset_registers();
            self.changed = true;
        }
        self.touched();
        self.resume(true);
        self.halt_if_failed();
    }

    /// Follows whether the card may access memory, which is what an interrupt does too.
    pub(crate) fn set_dma(&self, on: bool) {
        self.dma.set_bus_master(on);
        self.vectors.hold(!on);
        if on {
            self.pairs.iter().for_each(Pair::wake);
        } else {
            self.quiesce();
        }
    }

    fn quiesce(&self) {
        self.pairs.iter().for_each(Pair::quiesce);
    }
}
