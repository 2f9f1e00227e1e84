// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The watcher of one running queue.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::queue::{self, kind, Error, Kind};
use vnet_contract::ring;
use vnet_dma::DmaMap;
use vnet_irq::Vector;
use vnet_queue::{Fault, Observer, Position, RingConfig};

use crate::chain::Chain;
use crate::header::{self, START};
use crate::owned::{Ledger, Owned};
use crate::waits::{self, Look, Waits};
use crate::{Finding, Rule, Sanitizer};

/// Bytes of a frame to transmit, behind its header, that must not change: no more than the headers
/// of UDP over IPv4. What follows may be a page of a file, which anybody may write to.
const STABLE_TX: usize = 42;
/// Bytes of a receive buffer that must not change.
const STABLE_RX: usize = 64;
/// Receive buffers, those that are next, of which that is checked.
const CHECKED: u16 = 32;
/// Descriptors that are looked at in one go, beyond which the rest waits for the next time: the
/// queue pair is locked meanwhile.
const DESCRIPTORS: usize = 2 * queue::MAX_SIZE as usize;
/// How long memory that the card owns may be out of reach: platforms take it away and give it back
/// in one go when something is plugged in.
const LOST: Duration = Duration::from_millis(400);

/// The queue that a shadow watches.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Its index.
    pub queue: u16,
    /// What the driver programmed, which was found good.
    pub config: RingConfig,
    /// Where its interrupts go.
    pub vector: Option<Arc<Vector>>,
}

/// Watches one running queue.
#[derive(Debug)]
pub struct Shadow {
    sanitizer: Arc<Sanitizer>,
    ring: Ring,
    kind: Kind,
    size: u16,
    /// Bytes of the per-packet header.
    header: usize,
    /// Where the ring stood is known: a ring that is resumed goes on where it was.
    placed: bool,
    /// Entries of the avail ring before this were looked at.
    seen: u16,
    owned: Ledger,
    waits: Waits,
    /// Chains that came lately, for what a doorbell says to be unmistakable: in this second and in
    /// the one before.
    rate: [u32; 2],
    second: Duration,
}

impl Shadow {
    /// For a ring that is about to run.
    pub fn new(sanitizer: Arc<Sanitizer>, ring: Ring) -> Self {
        let kind = kind(ring.queue);
        // Valid sizes are small.
        let size = ring.config.size as u16;
        let interrupts = ring.vector.is_some();
        Self {
            kind,
            size,
            header: hdr::size(ring.config.features),
            placed: false,
            seen: 0,
            owned: Ledger::new(size),
            waits: Waits::new(kind, size, interrupts, sanitizer.patience()),
            rate: [0; 2],
            second: Duration::ZERO,
            sanitizer,
            ring,
        }
    }

    fn report(
        &self,
        head: Option<u16>,
        rule: Rule,
        seen: impl Into<String>,
        due: impl Into<String>,
    ) {
        let finding = Finding::new(rule, seen, due).queue(self.ring.queue);
        self.sanitizer.report(match head {
            Some(head) => finding.descriptor(head),
            None => finding,
        });
    }

    fn load(&self, mem: &DmaMap, address: u64) -> Option<u16> {
        let value: u16 = mem.load(GuestAddress(address), Ordering::Acquire).ok()?;
        Some(u16::from_le(value))
    }

    fn avail_index(&self, mem: &DmaMap) -> Option<u16> {
        self.load(
            mem,
            self.ring.config.avail.wrapping_add(ring::RING_IDX as u64),
        )
    }

    fn event(&self, mem: &DmaMap) -> Option<u16> {
        let offset = ring::used_event_offset(self.size) as u64;
        self.load(mem, self.ring.config.avail.wrapping_add(offset))
    }

    /// The chain of an avail entry.
    fn entry(&self, mem: &DmaMap, index: u16) -> Option<u16> {
        let offset = ring::RING_ENTRIES + usize::from(index & (self.size - 1)) * 2;
        self.load(mem, self.ring.config.avail.wrapping_add(offset as u64))
    }

    fn access(&self) -> Permissions {
        match self.kind {
            Kind::Rx => Permissions::Write,
            Kind::Tx => Permissions::Read,
        }
    }

    /// The first buffer of a chain that the card cannot reach.
    fn unreachable(&self, mem: &DmaMap, chain: &Chain) -> Option<u64> {
        let access = self.access();
        let bad = |&(addr, len): &(u64, usize)| !mem.check_range(GuestAddress(addr), len, access);
        chain.buffers().find(bad).map(|(addr, _)| addr)
    }

    /// Begins where the ring stands when it is first heard of.
    fn place(&mut self, at: Position) {
        if !self.placed {
            self.placed = true;
            self.seen = at.next_avail;
            self.waits.place(at.next_used);
        }
    }

    /// Looks at the entries of the avail ring before `upto` that were not looked at yet, as far as
    /// `descriptors` go. The card owns them all.
    fn look(&mut self, mem: &DmaMap, upto: u16, mut descriptors: usize) {
        // Nothing if more was looked at already.
        for _ in 0..ahead(upto, self.seen).min(self.size) {
            let Some(head) = self.entry(mem, self.seen) else {
                return;
            };
            if descriptors == 0 {
                return;
            }
            self.seen = self.seen.wrapping_add(1);
            self.rate[0] = self.rate[0].saturating_add(1);
            self.sanitizer.sign_of_life();
            if head < self.size {
                descriptors = descriptors.saturating_sub(self.take(mem, head));
            }
        }
    }

    /// A chain was made available. Returns the descriptors that were looked at.
    fn take(&mut self, mem: &DmaMap, head: u16) -> usize {
        self.waits.offered(head);
        let Some(chain) = Chain::read(mem, self.ring.config.desc, self.size, head) else {
            return self.size.into();
        };
        let descriptors = chain.descriptors();
        if let Some((index, taker)) = self.owned.taken(&chain) {
            let seen = format!("descriptor {index}, which the chain at {taker} takes");
            let due = "one that was returned";
            self.report(Some(head), Rule::ChainReused, seen, due);
            return descriptors;
        }
        let bad_header = self.kind == Kind::Tx && self.judge_header(mem, head, &chain);
        self.check_overlap(head, &chain);
        if self.owned.has_room(&chain) {
            let owned = Owned {
                digest: match self.kind {
                    Kind::Rx => None,
                    Kind::Tx => self.digest(mem, &chain),
                },
                reachable: self.unreachable(mem, &chain).is_none(),
                lost: None,
                bad_header,
                chain,
            };
            self.owned.add(head, owned);
        }
        descriptors
    }

    /// Looks for another buffer with which this chain shares memory. Frames to transmit may well share
    /// it with each other.
    fn check_overlap(&self, head: u16, chain: &Chain) {
        let queue = self.ring.queue;
        let remembered = self.owned.has_room(chain);
        let mut buffers = self.sanitizer.buffers();
        let shared = chain.buffers().fold(None, |found, (first, len)| {
            let shared = match (self.kind, remembered) {
                (Kind::Rx, true) => buffers.add(first, len, queue, head),
                (Kind::Tx, true) => {
                    buffers.add_sent(first, len, queue, head);
                    buffers.find(first, len)
                }
                (_, false) => buffers.find(first, len),
            };
            found.or(shared)
        });
        drop(buffers);
        if let Some(shared) = shared {
            let seen = format!(
                "{:#x}, which is also of the buffer at descriptor {} of queue {}",
                shared.address, shared.head, shared.queue
            );
            let due = "memory of its own";
            self.report(Some(head), Rule::BufferOverlap, seen, due);
        }
    }

    /// True if the header is wrong.
    fn judge_header(&self, mem: &DmaMap, head: u16, chain: &Chain) -> bool {
        let mut start = [0; header::START + hdr::size(u64::MAX)];
        let n = chain.start(mem, &mut start);
        let Some(len) = chain.bytes().checked_sub(self.header) else {
            return false;
        };
        let (Some(bytes), Some(frame)) = (start.first_chunk(), start[..n].get(self.header..))
        else {
            return false;
        };
        let frame = &frame[..frame.len().min(START)];
        let header = NetHdr::from_bytes(bytes);
        match header::judge(&header, frame, len, self.ring.config.features) {
            Ok(()) => false,
            Err((rule, seen, due)) => {
                self.report(Some(head), rule, seen, due);
                true
            }
        }
    }

    /// A digest of what must not change; `None` if it cannot be read.
    fn digest(&self, mem: &DmaMap, chain: &Chain) -> Option<u64> {
        let mut bytes = [0; STABLE_TX + hdr::size(u64::MAX) + STABLE_RX];
        let most = match self.kind {
            Kind::Rx => STABLE_RX,
            Kind::Tx => self.header + STABLE_TX,
        };
        let most = most.min(chain.bytes());
        let bytes = &mut bytes[..most];
        // FNV-1a.
        (chain.start(mem, bytes) == most).then(|| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        })
    }

    /// Compares the contents of the receive buffers that are next with what they were, and takes
    /// note of those that are not known.
    fn check_posted(&mut self, mem: &DmaMap, at: Position) {
        if self.kind != Kind::Rx {
            return;
        }
        let posted = ahead(self.seen, at.next_avail);
        for n in 0..posted.min(CHECKED) {
            let index = at.next_avail.wrapping_add(n);
            let Some(head) = self.entry(mem, index) else {
                return;
            };
            let Some(owned) = self.owned.get(head) else {
                continue;
            };
            let known = owned.digest;
            let chain = std::mem::take(&mut owned.chain);
            let digest = self.digest(mem, &chain);
            if let Some(owned) = self.owned.get(head) {
                owned.chain = chain;
                owned.digest = digest;
            }
            if differ(known, digest) {
                let seen = "other contents than before";
                let due = "that the driver leaves it alone";
                self.report(Some(head), Rule::BufferChanged, seen, due);
            }
        }
    }

    /// A chain is about to be returned. Until now it was the card's.
    fn give_back(&mut self, mem: &DmaMap, head: u16) {
        let Some(owned) = self.owned.remove(head) else {
            return;
        };
        let mut buffers = self.sanitizer.buffers();
        for (first, _) in owned.chain.buffers() {
            buffers.remove(first, self.ring.queue, head);
        }
        drop(buffers);
        let now = Chain::read(mem, self.ring.config.desc, self.size, head);
        if now.as_ref() != Some(&owned.chain) {
            let due = "the same as when it was made available";
            self.report(Some(head), Rule::ChainChanged, "other descriptors", due);
            return;
        }
        if self.kind == Kind::Tx && differ(owned.digest, self.digest(mem, &owned.chain)) {
            let seen = "another header or start of the frame";
            let due = "the same as when it was made available";
            self.report(Some(head), Rule::BufferChanged, seen, due);
        }
    }

    /// Looks for memory that was taken away while the card owns it.
    fn check_reach(&mut self, mem: &DmaMap, now: Duration) {
        let access = self.access();
        let mut gone = Vec::new();
        for (head, owned) in self.owned.iter_mut().filter(|(_, o)| o.reachable) {
            let bad =
                |&(addr, len): &(u64, usize)| !mem.check_range(GuestAddress(addr), len, access);
            let lost = owned.chain.buffers().find(bad);
            owned.lost = lost.map(|_| owned.lost.unwrap_or(now));
            if let (Some((address, _)), Some(since)) = (lost, owned.lost) {
                if now - since >= LOST {
                    owned.reachable = false;
                    gone.push((head, address));
                }
            }
        }
        for (head, address) in gone {
            self.sanitizer.lost(self.ring.queue, head, address);
        }
    }

    /// The part of the ring that the card cannot reach.
    fn missing_part(&self, mem: &DmaMap) -> Option<u64> {
        let config = &self.ring.config;
        parts(config, self.size)
            .into_iter()
            .find(|&(address, bytes, access)| {
                !mem.check_range(GuestAddress(address), bytes, access)
            })
            .map(|part| part.0)
    }

    /// The indirect table or the buffer of a chain that the card cannot reach; or else the buffer that
    /// the fault is about, which may be in reach by now, or be a header buffer that lies in two ranges.
    fn missing_buffer(&self, mem: &DmaMap, head: u16, fault: Fault) -> Option<u64> {
        let chain = Chain::read_part(mem, self.ring.config.desc, self.size, head);
        let table = chain.indirect().filter(|&(address, bytes)| {
            !mem.check_range(GuestAddress(address), bytes, Permissions::Read)
        });
        let table = table.map(|(address, _)| address);
        table
            .or_else(|| self.unreachable(mem, &chain))
            .or_else(|| chain.buffer_of(fault.info as u16))
    }

    fn forget_rate(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.second);
        if passed >= Duration::from_secs(1) {
            let before = if passed < Duration::from_secs(2) {
                self.rate[0]
            } else {
                0
            };
            self.rate = [0, before];
            self.second = now;
        }
    }
}

/// By how much an index is ahead of another one; zero if it is behind.
fn ahead(index: u16, of: u16) -> u16 {
    match index.wrapping_sub(of) {
        by @ 0..0x8000 => by,
        _ => 0,
    }
}

/// True if both are known and they differ.
fn differ(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The parts of a ring of this size, and how the card uses them.
pub(crate) fn parts(config: &RingConfig, size: u16) -> [(u64, usize, Permissions); 3] {
    [
        (config.desc, ring::desc_bytes(size), Permissions::Read),
        (config.avail, ring::avail_bytes(size), Permissions::Read),
        (config.used, ring::used_bytes(size), Permissions::ReadWrite),
    ]
}

impl Observer for Shadow {
    fn begin(&mut self, mem: &DmaMap, at: Position) {
        self.place(at);
        self.waits.looked();
        if let Some(event) = self.event(mem) {
            self.waits.event(event, self.sanitizer.now());
        }
        let Some(index) = self.avail_index(mem) else {
            return;
        };
        if index.wrapping_sub(at.next_avail) <= self.size {
            self.look(mem, index, DESCRIPTORS);
            self.check_posted(mem, at);
        }
    }

    fn publish(&mut self, mem: &DmaMap, at: Position, count: u16) {
        // What came since the batch began: the engine has looked at it, so it is bounded.
        self.look(mem, at.next_avail, usize::MAX);
        let now = self.sanitizer.now();
        for n in 0..count {
            let index = at.next_used.wrapping_add(n) & (self.size - 1);
            let offset = ring::RING_ENTRIES + usize::from(index) * ring::USED_ENTRY_SIZE;
            let address = self.ring.config.used.wrapping_add(offset as u64);
            let Ok(id) = mem.load::<u32>(GuestAddress(address), Ordering::Relaxed) else {
                return;
            };
            let head = u32::from_le(id) as u16;
            self.give_back(mem, head);
            self.waits.returning(head, now);
        }
    }

    fn end(&mut self, mem: &DmaMap, at: Position, lent: u16) {
        for n in 0..lent {
            let Some(head) = self.entry(mem, at.next_avail.wrapping_add(n)) else {
                return;
            };
            if let Some(owned) = self.owned.get(head) {
                owned.digest = None;
            }
        }
        self.check_posted(mem, at);
    }

    fn armed(&mut self, event: u16) {
        self.waits.armed(event);
    }

    fn due(&mut self, event: u16) {
        let now = self.sanitizer.now();
        self.waits.event(event, now);
        if self.waits.due(event, now) {
            let seen =
                format!("one more for used entry {event}, and no buffer was posted since long");
            self.report(
                None,
                Rule::InterruptStorm,
                seen,
                "none until buffers are taken, and posted again",
            );
        }
    }

    fn fault(&mut self, mem: &DmaMap, at: Position, bad: u16, fault: Fault) {
        self.place(at);
        let head = self.entry(mem, bad);
        let rule = match fault.error {
            Error::AvailIndex => Rule::AvailIndex,
            Error::DescIndex => Rule::ChainIndex,
            Error::ChainLength => Rule::ChainLoop,
            Error::Direction => Rule::ChainDirection,
            Error::BufferLength => Rule::ChainLength,
            Error::Indirect => Rule::ChainIndirect,
            Error::Header => {
                self.look(mem, bad.wrapping_add(1), DESCRIPTORS);
                let known = head.and_then(|head| self.owned.get(head));
                if known.is_some_and(|owned| owned.bad_header) {
                    return;
                }
                Rule::HeaderFlags
            }
            Error::RingFault => {
                let address = self.missing_part(mem).unwrap_or(fault.info.into());
                self.sanitizer.out_of_reach(self.ring.queue, None, address);
                return;
            }
            Error::BufferFault => {
                let address = head.and_then(|head| self.missing_buffer(mem, head, fault));
                // The chain may be out of reach by now, too.
                let head = head.filter(|_| address.is_some());
                let address = address.or_else(|| self.missing_part(mem));
                let address = address.unwrap_or(self.ring.config.desc);
                self.sanitizer.out_of_reach(self.ring.queue, head, address);
                return;
            }
            // Of starting or programming a queue: the card reports them.
            Error::Size
            | Error::Alignment
            | Error::NotNegotiated
            | Error::Vector
            | Error::ConfigWhileRunning => return,
        };
        let (head, due) = match rule {
            Rule::AvailIndex => {
                let last = at.next_avail.wrapping_add(self.size);
                (None, format!("{last} at most"))
            }
            _ => (head, "a chain as section 7 of the data sheet has it".into()),
        };
        self.report(head, rule, fault.to_string(), due);
    }

    fn doorbell(&mut self, mem: &DmaMap, at: Position, value: u32) {
        self.place(at);
        self.waits.looked();
        let Some(index) = self.avail_index(mem) else {
            return;
        };
        // Many entries later the same value would mean another lap.
        self.forget_rate(self.sanitizer.now());
        let lately = self.rate[0].saturating_add(self.rate[1]);
        let ahead = (value as u16).wrapping_sub(index);
        if (1..=self.size).contains(&ahead) && lately < 1 << 14 {
            let seen = format!(
                "avail index {index}, next entry of the card {}",
                at.next_avail
            );
            self.report(
                None,
                Rule::DoorbellEarly,
                seen,
                format!("{}, as rung", value as u16),
            );
        }
    }

    fn tick(&mut self, mem: &DmaMap, at: Position) {
        self.place(at);
        let now = self.sanitizer.now();
        self.forget_rate(now);
        let (Some(avail), Some(event)) = (self.avail_index(mem), self.event(mem)) else {
            return;
        };
        if avail.wrapping_sub(at.next_avail) > self.size {
            return;
        }
        self.look(mem, avail, DESCRIPTORS);
        self.check_posted(mem, at);
        self.check_reach(mem, now);
        if self.kind == Kind::Rx {
            self.sanitizer
                .set_asleep(self.ring.queue, self.waits.is_armed(event));
        }
        let look = Look {
            now,
            avail,
            event,
            pending: self.ring.vector.as_ref().is_some_and(|v| v.is_pending()),
            asleep: self.sanitizer.is_asleep(self.ring.queue),
        };
        for rule in self.waits.tick(look) {
            let seen = format!(
                "avail index {avail}, used index {}, used_event {event}",
                at.next_used
            );
            let due = format!(
                "{} within {:?}",
                waits::due(rule),
                self.sanitizer.patience()
            );
            self.report(None, rule, seen, due);
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if self.kind == Kind::Rx {
            self.sanitizer.set_asleep(self.ring.queue, true);
        }
        self.sanitizer.buffers().remove_queue(self.ring.queue);
    }
}
