// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card that outlives the process that serves it.
//!
//! Whatever changes the card is written down before it is answered. A process that dies on the way
//! leaves what was before, or what came after; the next one handles the same message again, which
//! then does no more than it should. One thing needs an order of its own: a queue is written down as
//! started before it starts, since from then on frames move.
//!
//! What workers and the monitor find out by themselves is written down with the next change, or
//! not at all: the next process finds it out again. But that something has failed is, before the driver
//! reads it: from then on the rings are the driver's, and may hold anything.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use tracing::{debug, warn};
use vnet_contract::pci::MAX_QUEUES;
use vnet_contract::queue::Error as Broken;
use vnet_dma::{DmaMap, MapError, Mapping};
use vnet_irq::{EventFd, OutOfRange};
use vnet_state::maps::{Maps, Row};
use vnet_state::records::{Fields, Reader, Writer};
use vnet_state::{Held, Keeper, Memory, Token};
use vnet_worker::{Fault, Legacy, Report};

use crate::card::Card;
use crate::config::Error;
use crate::decode::{pair_of, Map};
use crate::filter::FilterRegs;
use crate::missed::{Missed, MISSED_BY};
use crate::monitor::lock;
use crate::negotiation::{receive_offloads, Negotiation};
use crate::queue::QueueRegs;
use crate::rss::RssRegs;

/// Records of a card. A tag is never used for anything else.
mod tag {
    pub(super) const CARD: u16 = 1;
    pub(super) const CONFIG_SPACE: u16 = 2;
    pub(super) const NEGOTIATION: u16 = 3;
    pub(super) const FILTER: u16 = 4;
    pub(super) const RSS: u16 = 5;
    pub(super) const EVENTS: u16 = 6;
    pub(super) const QUEUE: u16 = 7;
    pub(super) const QUEUE_STATE: u16 = 8;
    pub(super) const MISSED: u16 = 9;
    pub(super) const FINDINGS: u16 = 10;
}

/// Bytes of config space that software can write in.
const CONFIG_BYTES: usize = 256;

/// A record of a queue that the card does not have.
const NO_QUEUE: Error = Error::Differs("number of queues");

/// Where a card is written down.
pub struct Survival {
    /// Its state.
    pub memory: Arc<Memory>,
    /// Keeps the descriptors that the client gave.
    pub keeper: Arc<dyn Keeper>,
}

impl fmt::Debug for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survival").finish_non_exhaustive()
    }
}

/// What is written down, and where.
pub(crate) struct Ledger {
    memory: Arc<Memory>,
    keeper: Arc<dyn Keeper>,
    maps: Maps,
    /// The files of guest memory, with the numbers under which they are kept.
    files: Vec<(Weak<File>, u32)>,
    next_file: u32,
    /// What was written down last.
    last: Vec<u8>,
    /// The next message may be one that the last process has handled.
    again: bool,
    /// Queues that the last process had started, and that do not go on yet.
    waiting: Vec<u16>,
}

impl Ledger {
    /// The number of the file that holds the memory at this address, which is kept now.
    fn file_at(&mut self, map: &DmaMap, address: u64) -> Option<u32> {
        let file = map.file(address)?;
        let known = self
            .files
            .iter()
            .find(|(f, _)| f.as_ptr() == Arc::as_ptr(file));
        if let Some((_, number)) = known {
            return Some(*number);
        }
        let number = self.next_file;
        self.next_file = number.wrapping_add(1);
        self.keeper.keep(Token::Memory(number), file.as_fd());
        self.files.push((Arc::downgrade(file), number));
        Some(number)
    }

    /// Lets go of files that no range is in any more.
    fn release_files(&mut self) {
        let keeper = &self.keeper;
        self.files.retain(|(file, number)| {
            let used = file.strong_count() != 0;
            if !used {
                keeper.forget(Token::Memory(*number));
            }
            used
        });
    }
}

impl Card {
    /// Lets the card outlive this process, and goes on with what another process left, if it did.
    /// `held` is what was kept of it; what the card takes is taken out.
    pub fn survive(&mut self, survival: Survival, held: &mut Held) -> Result<(), Error> {
        let Survival { memory, keeper } = survival;
        for (index, pair) in self.pairs.iter().enumerate() {
            let legacy = |queue| Legacy::new(&memory, queue);
            if let (Some(rx), Some(tx)) = (legacy(2 * index), legacy(2 * index + 1)) {
                pair.inherit(rx, tx);
            }
        }
        self.count_lost();
        let (maps, rows) = Maps::load(&memory);
        let mut ledger = Ledger {
            memory,
            keeper,
            maps,
            files: Vec::new(),
            next_file: 0,
            last: Vec::new(),
            again: false,
            waiting: Vec::new(),
        };
        let Some(saved) = ledger.memory.snapshot() else {
            self.ledger = Some(ledger);
            self.save();
            return Ok(());
        };
        self.load(&saved)?;
        self.reach(&mut ledger, rows, held);
        for index in 0..self.vectors.count() {
            let fd = held.remove(&Token::Vector(index));
            if let Some(Ok(fd)) = fd.map(EventFd::new) {
                // The vector exists.
                let _ = self.vectors.attach(index.into(), vec![fd]);
            }
        }
        ledger.last = saved;
        ledger.again = true;
        self.ledger = Some(ledger);
        self.go_on();
        Ok(())
    }

    /// Counts the frames that the last process had taken from the backend, and that were neither in
    /// the driver's buffers nor counted as dropped. Wherever they were, they are lost. As pairs hand
    /// frames to each other, only the sum over all of them says how many.
    fn count_lost(&self) {
        let balances: Option<Vec<_>> = self.pairs.iter().map(|pair| pair.balance()).collect();
        let Some(balances) = balances else {
            return;
        };
        let (taken, settled) = balances
            .iter()
            .fold((0u64, 0u64), |(taken, settled), (t, s)| {
                (taken.wrapping_add(*t), settled.wrapping_add(*s))
            });
        let mut lost = taken.saturating_sub(settled);
        for (pair, (taken, settled)) in self.pairs.iter().zip(balances) {
            let part = taken.saturating_sub(settled).min(lost);
            pair.lost(part);
            lost -= part;
        }
    }

    /// What is answered from now on was never handled before.
    pub fn caught_up(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.again = false;
        }
    }

    /// Sends the interrupts of consecutive vectors from `start` to these eventfds. Either all exist,
    /// or nothing changes.
    pub fn attach(&mut self, start: u32, fds: Vec<EventFd>) -> Result<(), OutOfRange> {
        self.vectors.check(start, fds.len())?;
        if let Some(ledger) = &self.ledger {
            for (index, fd) in (start..).zip(&fds) {
                ledger.keeper.keep(Token::Vector(index as u16), fd.as_fd());
            }
        }
        self.vectors.attach(start, fds)
    }

    /// Takes the eventfds of `count` vectors from `start` away.
    pub fn detach(&mut self, start: u32, count: u32) -> Result<(), OutOfRange> {
        self.vectors.detach(start, count)?;
        if let Some(ledger) = &self.ledger {
            for index in (start..).take(count as usize) {
                ledger.keeper.forget(Token::Vector(index as u16));
            }
        }
        Ok(())
    }

    /// Takes all eventfds away.
    pub fn detach_all(&mut self) {
        // It has so many.
        let _ = self.detach(0, self.vectors.count().into());
    }

    /// True if the message that is handled may be one that the last process has handled.
    pub(crate) fn is_again(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.again)
    }

    /// True if this very range is there already, and may be so because of the same message.
    pub(crate) fn has_mapped(&self, mapping: &Mapping) -> bool {
        self.is_again()
            && self
                .ledger
                .as_ref()
                .is_some_and(|l| l.maps.contains(&row(mapping, None)))
    }

    /// Writes down a range that was mapped.
    pub(crate) fn note_mapped(&mut self, mut row: Row) -> Result<(), MapError> {
        let Some(ledger) = &mut self.ledger else {
            return Ok(());
        };
        row.file = ledger.file_at(&self.dma.all(), row.address);
        match ledger.maps.insert(&row) {
            true => Ok(()),
            false => Err(MapError::TooMany),
        }
    }

    /// Writes down that ranges were removed: those for which `keep` is false of their address and
    /// size.
    pub(crate) fn note_unmapped(&mut self, keep: impl FnMut(u64, u64) -> bool) {
        if let Some(ledger) = &mut self.ledger {
            ledger.maps.retain(keep);
            ledger.release_files();
        }
    }

    /// Writes down what has changed.
    pub(crate) fn save(&mut self) {
        if self.ledger.is_none() {
            return;
        }
        let bytes = self.records();
        let Some(ledger) = self.ledger.as_mut().filter(|l| l.last != bytes) else {
            return;
        };
        // The longest record is far shorter than the place for it.
        let fits = ledger.memory.commit(&bytes);
        debug_assert!(fits);
        ledger.last = bytes;
    }

    fn records(&self) -> Vec<u8> {
        let mut to = Writer::new();
        to.record(tag::CARD)
            .u16(self.config.queue_pairs)
            .put(&self.config.mac)
            .u16(self.config.max_mtu)
            .u32(self.illegal);
        let mut bytes = [0; CONFIG_BYTES];
        self.space.read(0, &mut bytes);
        to.record(tag::CONFIG_SPACE).put(&bytes);
        self.negotiation.save(to.record(tag::NEGOTIATION));
        self.filter.save(to.record(tag::FILTER));
        self.rss.save(to.record(tag::RSS));
        self.events.save(to.record(tag::EVENTS));
        for (queue, latches) in (0..).zip(&self.latches) {
            self.at_rest(queue).save(to.record(tag::QUEUE).u16(queue));
            let to = to.record(tag::QUEUE_STATE).u16(queue);
            self.events.save_queue(queue, to);
            for latch in latches {
                to.u32(*latch);
            }
        }
        self.missed.save(to.record(tag::MISSED));
        if let Some(watch) = &self.watch {
            to.record(tag::FINDINGS).u64(watch.before);
        }
        to.finish()
    }

    /// The registers of a queue; of one that has failed, as they are once it is found stopped.
    fn at_rest(&self, queue: u16) -> QueueRegs {
        let mut registers = self.queues[usize::from(queue)];
        if registers.started && self.events.fault(queue).0 != 0 {
            let (pair, kind) = pair_of(queue);
            if let Some(indices) = self.pairs[pair].indices(kind) {
                registers.settle(indices);
            }
        }
        registers
    }

    /// Takes over the registers.
    fn load(&mut self, saved: &[u8]) -> Result<(), Error> {
        if let Some(watch) = &mut self.watch {
            // An older version does not say which of them are of the client that is there. None is
            // laid to it then.
            watch.before = watch.sanitizer.findings().total();
        }
        for (tag, mut from) in Reader::new(saved).ok_or(Error::Foreign)? {
            match tag {
                tag::CARD => self.load_card(&mut from)?,
                tag::CONFIG_SPACE => self.space.restore(&from.array::<CONFIG_BYTES>()),
                tag::NEGOTIATION => {
                    let negotiation = Negotiation::load(&mut from);
                    // The driver has seen what was offered.
                    if negotiation.offered() & !self.negotiation.offered() != 0 {
                        return Err(Error::Differs("set of features"));
                    }
                    self.map = Map::new(self.config.queue_pairs, negotiation.offered());
                    self.negotiation = negotiation;
                }
                tag::FILTER => self.filter = FilterRegs::load(self.config.max_mtu, &mut from),
                tag::RSS => self.rss = RssRegs::load(&mut from),
                tag::EVENTS => self.events.load(&mut from),
                tag::QUEUE => {
                    let queue = usize::from(from.u16());
                    *self.queues.get_mut(queue).ok_or(NO_QUEUE)? = QueueRegs::load(&mut from);
                }
                tag::QUEUE_STATE => {
                    let queue = from.u16();
                    let latches = self.latches.get_mut(usize::from(queue)).ok_or(NO_QUEUE)?;
                    self.events.load_queue(queue, &mut from);
                    *latches = std::array::from_fn(|_| from.u32());
                }
                tag::MISSED => self.missed = Missed::load(&mut from),
                tag::FINDINGS => {
                    if let Some(watch) = &mut self.watch {
                        watch.before = from.u64();
                    }
                }
                _ => debug!(tag, "a record that is not known"),
            }
        }
        Ok(())
    }

    fn load_card(&mut self, from: &mut Fields<'_>) -> Result<(), Error> {
        let (pairs, mac, max_mtu) = (from.u16(), from.array(), from.u16());
        self.illegal = from.u32();
        for (same, what) in [
            (pairs == self.config.queue_pairs, "number of queue pairs"),
            (mac == self.config.mac, "MAC address"),
            (max_mtu <= self.configured_mtu, "largest MTU"),
        ] {
            if !same {
                return Err(Error::Differs(what));
            }
        }
        // The driver was told this one, whatever the backend is good for by now.
        self.config.max_mtu = max_mtu;
        self.filter = FilterRegs::new(mac, max_mtu);
        Ok(())
    }

    /// Maps guest memory again.
    fn reach(&self, ledger: &mut Ledger, rows: Vec<Row>, held: &mut Held) {
        let refused = self.dma.map_all(rows.iter().map(|row| {
            let fd = row.file.and_then(|n| held.get(&Token::Memory(n)));
            Mapping {
                address: row.address,
                size: row.size,
                file: fd.and_then(|fd| fd.try_clone().ok()).map(File::from),
                offset: row.offset,
                read: row.read,
                write: row.write,
            }
        }));
        if let Some((_, e)) = refused.first() {
            let count = refused.len();
            warn!("guest memory of the last process: {count} ranges are lost, one as {e}");
        }
        let refused: BTreeSet<u64> = refused.into_iter().map(|(address, _)| address).collect();
        if !refused.is_empty() {
            ledger.maps.retain(|address, _| !refused.contains(&address));
        }
        let map = self.dma.all();
        for row in rows.iter().filter(|row| !refused.contains(&row.address)) {
            if let (Some(number), Some(file)) = (row.file, map.file(row.address)) {
                if ledger.files.iter().all(|(_, n)| *n != number) {
                    ledger.files.push((Arc::downgrade(file), number));
                }
                ledger.next_file = ledger.next_file.max(number.wrapping_add(1));
            }
        }
        // Those that no range is in were kept for one that was not written down.
        held.retain(|token, _| {
            let Token::Memory(number) = *token else {
                return true;
            };
            if ledger.files.iter().all(|(_, n)| *n != number) {
                ledger.keeper.forget(*token);
            }
            false
        });
    }

    /// Lets everything run that ran.
    fn go_on(&mut self) {
        self.tell_offloads(receive_offloads(self.negotiation.receive()));
        self.apply_filter();
        self.apply_rss();
        let queues = 0..(self.queues.len() as u16).min(MAX_QUEUES);
        queues
            .clone()
            .for_each(|queue| self.apply_moderation(queue));
        if !self.is_running(MISSED_BY) {
            // It has failed, and is written down as stopped.
            self.missed.stop(lock(&self.endpoint).missed());
        }
        let started: Vec<_> = queues.filter(|queue| self.is_running(*queue)).collect();
        // A worker that got at memory with its queue still to be resumed would take that for one that is
        // stopped: what is for it would be lost.
        for (pair, kind) in started.iter().copied().map(pair_of) {
            self.pairs[pair].expect(kind);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.waiting = started;
        }
        self.resume(false);
        self.set_dma(self.space.dma_enabled());
        self.events.remind();
        debug!("took over");
    }

    /// Goes on with queues that wait for that. One whose ring is out of reach waits for another try, unless
    /// this is the last: a process may have died between an unmap and the map that was to follow. The others
    /// do not wait for it, which may be for ever.
    pub(crate) fn resume(&mut self, last: bool) {
        let Some(ledger) = self.ledger.as_mut().filter(|l| !l.waiting.is_empty()) else {
            return;
        };
        let mut waiting = std::mem::take(&mut ledger.waiting);
        let memory = self.dma.all();
        waiting.retain(|&queue| {
            // The card may have been reset.
            let resumed = match self.is_running(queue) {
                true => self.resume_queue(queue, &memory),
                false => Ok(()),
            };
            match resumed {
                Err(fault) if fault.error == Broken::RingFault && !last => return true,
                Err(fault) => {
                    let (pair, kind) = pair_of(queue);
                    self.pairs[pair].stop(kind);
                    self.events.queue_failed(queue, fault);
                }
                Ok(()) => {}
            }
            false
        });
        if let Some(ledger) = &mut self.ledger {
            ledger.waiting = waiting;
        }
    }

    fn resume_queue(&mut self, queue: u16, memory: &DmaMap) -> Result<(), Fault> {
        // The last process may have died before it had looked at what it was to start.
        let (ring, vector) = self.programmed(queue)?;
        self.watch_queue(queue, ring, vector.as_ref());
        let (pair, kind) = pair_of(queue);
        self.pairs[pair].resume(kind, ring, vector, memory)?;
        if queue == MISSED_BY {
            self.missed.start(lock(&self.endpoint).missed());
        }
        Ok(())
    }
}

/// A range as it is written down.
pub(crate) fn row(mapping: &Mapping, file: Option<u32>) -> Row {
    Row {
        address: mapping.address,
        size: mapping.size,
        offset: mapping.offset,
        read: mapping.read,
        write: mapping.write,
        file,
    }
}
