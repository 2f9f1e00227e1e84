// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive queue: frames of a backend, into the guest's buffers.

use std::slice::from_ref;

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta, Queue, Room, RxRing, MAX_FRAME};
use vnet_capture::Recorder;
use vnet_contract::features::{HASH_REPORT, HDR_SPLIT, MRG_RXBUF};
use vnet_contract::hdr::{self, FlowHash, NetHdr, F_SPLIT};
use vnet_contract::queue::{Error, Kind, MAX_RX_CHAIN};
use vnet_dma::DmaMap;
use vnet_faults::Site;

use crate::chain::{single, walk, Chain, Direction};
use crate::header;
use crate::progress::{Progress, Recovered};
use crate::record::{describe, Followers};
use crate::ring::Ring;
use crate::shelf::Parts;
use crate::split::Split;
use crate::steer::{Handed, Steer, FRAME_START};
use crate::view::View;
use crate::{
    Budget, Due, Fault, Observer, Outcome, Outline, Position, RingConfig, RxFilter, Waits, Written,
};

mod step;

/// Longest per-packet header that any set of features gives.
const MAX_HEADER: usize = hdr::size(u64::MAX);

/// A running receive queue.
#[derive(Debug)]
pub struct Rx {
    ring: Ring,
    features: u64,
    /// Bytes of the per-packet header.
    header_len: usize,
    chains: Vec<Chain>,
    parts: Parts,
    header: Parts,
    /// Set if the driver has headers apart.
    split: Option<Split>,
    heads: Parts,
    /// Takes the end of a frame that does not fit the guest's buffers, and so will be dropped.
    overflow: Box<[u8]>,
    /// Those who want to know of each frame.
    followers: Option<Box<Followers>>,
}

impl Rx {
    /// Checks the configuration and starts the queue.
    pub fn start(config: &RingConfig, mem: &DmaMap) -> Result<Self, Fault> {
        Ok(Self {
            ring: Ring::new(config, mem)?,
            features: config.features,
            header_len: hdr::size(config.features),
            chains: Vec::new(),
            parts: Parts::default(),
            header: Parts::default(),
            split: (config.features & HDR_SPLIT != 0).then(Split::new),
            heads: Parts::default(),
            overflow: vec![0; MAX_FRAME].into_boxed_slice(),
            followers: None,
        })
    }

    /// Keeps track of how far the queue is.
    pub fn track(&mut self, progress: Progress) {
        progress.done(self.ring.used_after(0), 0);
        self.followers.get_or_insert_default().progress = Some(progress);
    }

    /// Goes on with a queue that another process started with this configuration and kept track
    /// of. Frames that it received but did not show to the driver are shown now.
    pub fn resume(
        config: &RingConfig,
        mem: &DmaMap,
        progress: Progress,
    ) -> Result<(Self, Recovered), Fault> {
        let mut rx = Self::start(config, mem)?;
        let rest = progress.rest(rx.ring.shown(mem)?, rx.ring.size());
        rx.ring.catch_up(rest.used);
        // Their used entries are there already, and so is what was received.
        let view = rx.ring.view(mem);
        rx.ring.publish(&view, rest.count)?;
        rx.ring.skip(rest.count);
        rx.track(progress);
        let recovered = Recovered {
            shown: rest.count,
            dropped: 0,
        };
        Ok((rx, recovered))
    }

    /// Lets used entries go wrong. Without this, nothing does.
    pub fn set_faults(&mut self, site: Site) {
        self.ring.set_faults(site);
    }

    /// Where the queue is, for who fetches the memory that it needs.
    pub fn outline(&self) -> Outline {
        self.ring
            .outline(Kind::Rx, self.split.is_some(), MAX_RX_CHAIN)
    }

    /// From now on the queue is in memory that is fetched: batches take no chain from this avail
    /// index on, and do not show the driver what they used.
    pub fn confine(&mut self, horizon: u16) {
        self.ring.confine(horizon);
    }

    /// What was written to such memory since the last time.
    pub fn written(&mut self) -> Written {
        self.ring.written()
    }

    /// Next avail entry to fetch and next used entry to write.
    pub fn indices(&self) -> (u16, u16) {
        self.ring.indices()
    }

    /// Lets the backend deliver one batch. All of it is for this queue, and has no hash.
    pub fn run(
        &mut self,
        mem: &DmaMap,
        backend: &mut dyn Queue,
        filter: &RxFilter,
        budget: Budget,
    ) -> Outcome {
        self.batch(mem, filter, None, budget, |batch| backend.receive(batch))
    }

    /// Lets the backend deliver one batch, of which this queue gets what `steer` leaves to it.
    pub fn run_steered(
        &mut self,
        mem: &DmaMap,
        backend: &mut dyn Queue,
        filter: &RxFilter,
        steer: &mut dyn Steer,
        budget: Budget,
    ) -> Outcome {
        self.batch(mem, filter, Some(steer), budget, |batch| {
            backend.receive(batch);
        })
    }

    /// Delivers one batch of frames that another queue handed over.
    pub fn take_over(
        &mut self,
        mem: &DmaMap,
        source: &mut dyn Handed,
        filter: &RxFilter,
        budget: Budget,
    ) -> Outcome {
        self.batch(mem, filter, None, budget, |batch| {
            while let Some((frame, meta, hash)) = source.front() {
                if let Some(split) = &mut batch.split {
                    split.expect(frame);
                }
                let Some(room) = batch.room(frame.len()) else {
                    return;
                };
                let len = room.write(frame);
                batch.hash = hash;
                batch.commit(len, meta);
                source.pop();
            }
        })
    }

    fn batch(
        &mut self,
        mem: &DmaMap,
        filter: &RxFilter,
        steer: Option<&mut (dyn Steer + '_)>,
        budget: Budget,
        work: impl FnOnce(&mut Batch<'_>),
    ) -> Outcome {
        self.chains.clear();
        let told = match self.ring.lies() {
            true => u64::MAX,
            false => self.features & !filter.withheld,
        };
        if let Some(recorder) = self.recorder() {
            recorder.begin();
        }
        let mut batch = Batch {
            view: self.ring.view(mem),
            ring: &mut self.ring,
            mergeable: self.features & MRG_RXBUF != 0,
            features: self.features,
            told,
            header_len: self.header_len,
            filter,
            steer: steer.map(|s| s as _),
            hash: FlowHash::default(),
            budget,
            chains: &mut self.chains,
            first: 0,
            posted: 0,
            unpublished: 0,
            parts: self.parts.take(),
            start: 0,
            single: None,
            header: self.header.take(),
            split: self.split.as_mut(),
            heads: self.heads.take(),
            lead: 0,
            overflow: VolatileSlice::from(&mut self.overflow[..]),
            lent: None,
            outcome: Outcome::new(Waits::Backend),
            followers: self.followers.as_deref_mut(),
        };
        work(&mut batch);
        batch.publish();
        let unused = batch.waiting() as u16;
        batch.ring.give_back(unused);
        batch
            .ring
            .tell(|observer, at| observer.end(mem, at, unused));
        let Batch {
            parts,
            header,
            heads,
            outcome,
            ..
        } = batch;
        self.parts.put(parts);
        self.header.put(header);
        self.heads.put(heads);
        if let Some(recorder) = self.recorder() {
            recorder.shown(outcome.waits == Waits::Nothing);
        }
        outcome
    }

    /// Has somebody watch the queue.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.ring.observe(observer);
    }

    /// Tells whoever watches the queue of something.
    pub fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position)) {
        self.ring.tell(what);
    }

    /// The interrupt that the driver wants now for what was delivered, until [`Self::signalled`].
    pub fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        let due = self.ring.interrupt_due(mem);
        if let (Some(recorder), Ok(None)) = (self.recorder(), &due) {
            recorder.settle(false);
        }
        due
    }

    /// The interrupt that was due was raised, or another one serves for it.
    pub fn signalled(&mut self) {
        if let Some(recorder) = self.recorder() {
            recorder.settle(true);
        }
        self.ring.signalled();
    }

    /// The interrupt that was due is lost.
    pub fn unheard(&mut self) {
        if let Some(recorder) = self.recorder() {
            recorder.settle(false);
        }
        self.ring.signalled();
    }

    /// Has frames kept for a capture, or not.
    pub fn set_recorder(&mut self, recorder: Option<Box<Recorder>>) {
        let progress = self.followers.take().and_then(|f| f.progress);
        // Without anybody who follows, frames take the shorter way.
        if progress.is_some() || recorder.is_some() {
            self.followers = Some(Box::new(Followers { progress, recorder }));
        }
    }

    fn recorder(&mut self) -> Option<&mut Recorder> {
        self.followers.as_mut()?.recorder.as_deref_mut()
    }

    /// Asks for a doorbell; true if there are new buffers already.
    pub fn rearm(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ring.rearm(mem)
    }

    /// Asks for a doorbell when there are many new buffers; true if there are some already. If there
    /// are not, the ring has to be looked at after a time: a driver may have no more than a few.
    pub fn rearm_late(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ring.rearm_late(mem)
    }
}

/// The room that was lent last.
#[derive(Clone, Copy, Debug)]
struct Lent {
    /// Bytes that the backend may have written.
    len: usize,
    /// The last part is the overflow.
    overflows: bool,
}

/// A chain of one buffer in one range of memory, as most are, that waits for a frame.
#[derive(Clone, Copy, Debug)]
struct Single<'b> {
    head: u16,
    /// The place of the per-packet header, and what is behind it.
    header: VolatileSlice<'b>,
    room: VolatileSlice<'b>,
}

/// The room that is lent: that of the single chain, or else of the others.
#[inline]
fn lent_parts<'a, 'b>(
    single: &'a Option<Single<'b>>,
    others: &'a [VolatileSlice<'b>],
) -> &'a [VolatileSlice<'b>] {
    single
        .as_ref()
        .map_or(others, |single| from_ref(&single.room))
}

/// One batch: chains that were taken from the ring and wait for a frame.
struct Batch<'b> {
    ring: &'b mut Ring,
    view: View<'b>,
    mergeable: bool,
    features: u64,
    /// Features that a frame may make use of.
    told: u64,
    header_len: usize,
    filter: &'b RxFilter,
    steer: Option<&'b mut dyn Steer>,
    /// Hash of the frame that is committed next.
    hash: FlowHash,
    budget: Budget,
    /// Chains of this batch; those from `first` on wait, with `posted` bytes in all.
    chains: &'b mut Vec<Chain>,
    first: usize,
    posted: usize,
    /// Used entries that the driver does not see yet.
    unpublished: u16,
    /// Parts of the chains; those from `start` on belong to chains that wait, without the place
    /// of the header, which is at the start of the first one.
    parts: Vec<VolatileSlice<'b>>,
    start: usize,
    /// In place of all of these, the only chain that waits: most never need to get there.
    single: Option<Single<'b>>,
    header: Vec<VolatileSlice<'b>>,
    /// With header split: a header buffer for each of the chains, whose parts and bytes then are
    /// those behind it. The first `lead` bytes that a frame has there are lent too; they take the
    /// place of the part before `start`, which nobody needs any more.
    split: Option<&'b mut Split>,
    heads: Vec<VolatileSlice<'b>>,
    lead: usize,
    overflow: VolatileSlice<'b>,
    lent: Option<Lent>,
    outcome: Outcome,
    followers: Option<&'b mut Followers>,
}

impl Batch<'_> {
    /// Number of chains that wait.
    fn waiting(&self) -> usize {
        self.chains.len() - self.first + usize::from(self.single.is_some())
    }

    /// Bytes of a frame that fit the chains that wait.
    fn capacity(&self) -> usize {
        match (&self.single, &self.split) {
            (Some(single), _) => single.room.len(),
            (None, None) => self.posted.saturating_sub(self.header_len),
            // However much of it will be in the header buffer.
            (None, Some(_)) => self.posted,
        }
    }

    /// True while the batch has done nothing but take chains for its first frame.
    fn is_fresh(&self) -> bool {
        self.outcome.frames + self.outcome.drops + self.outcome.handed == 0
    }

    /// Takes the next chain if none waits, it is a single buffer, and nobody wants headers apart or to be
    /// told of frames. Any other, and what is wrong with it, is for [`Self::gather_several`].
    #[inline]
    fn take_single(&mut self) -> Result<(), Fault> {
        let plain = self.split.is_none() && self.followers.is_none();
        if !plain || self.waiting() > 0 || self.budget.is_spent() {
            return Ok(());
        }
        let Some(head) = self.ring.take(&self.view)? else {
            return Ok(());
        };
        let desc = (head < self.ring.size()).then(|| self.ring.descriptor(&self.view, head));
        let parts = desc
            .and_then(Result::ok)
            .and_then(|desc| single(&mut self.view, &desc, Direction::Write, MAX_RX_CHAIN))
            .and_then(|part| part.split_at(self.header_len).ok());
        match parts {
            Some((header, room)) if !room.is_empty() => {
                self.budget.spend(0, 0, 1);
                self.single = Some(Single { head, header, room });
            }
            _ => self.ring.give_back(1),
        }
        Ok(())
    }

    /// Puts it where it can be one of several.
    fn spill(&mut self) {
        let Some(Single { head, header, room }) = self.single.take() else {
            return;
        };
        let bytes = header.len() + room.len();
        self.header.clear();
        self.header.push(header);
        self.start = self.parts.len();
        self.parts.push(room);
        self.posted += bytes;
        self.chains.push(Chain {
            head,
            descriptors: 1,
            bytes,
            first: bytes,
            parts_end: self.parts.len(),
        });
    }

    /// Takes chains until `len` bytes fit, or it is clear that they never will. Else says what has
    /// to come first.
    #[inline]
    fn gather(&mut self, len: usize) -> Result<Option<Waits>, Fault> {
        self.take_single()?;
        if let Some(single) = &self.single {
            if len <= single.room.len() {
                return Ok(None);
            }
        }
        self.spill();
        self.gather_several(len)
    }

    #[inline(never)]
    fn gather_several(&mut self, len: usize) -> Result<Option<Waits>, Fault> {
        while self.capacity() < len {
            if self.waiting() > 0 && !self.mergeable {
                // One chain holds the frame, or nothing does.
                return Ok(None);
            }
            if self.budget.is_spent() {
                // The chains cannot be kept, as they borrow from the batch. The next batch walks
                // them again and has its whole budget for the frame. A frame for which that was
                // not enough will not fit then either.
                return Ok((!self.is_fresh()).then_some(Waits::Nothing));
            }
            let Some(head) = self.ring.take(&self.view)? else {
                // A driver that has posted all that it can will not post more.
                let all = self.waiting() == usize::from(self.ring.size());
                return Ok((!all).then_some(Waits::Driver));
            };
            let parts = &mut self.parts;
            let before = parts.len();
            let chain = walk(
                self.ring,
                &mut self.view,
                head,
                Direction::Write,
                MAX_RX_CHAIN,
                parts,
            )
            .and_then(|chain| match chain.bytes > self.header_len {
                true => Ok(chain),
                false => Err(Fault::new(Error::BufferLength, head)),
            });
            match chain {
                Ok(chain) => {
                    self.budget.spend(0, 0, chain.descriptors.into());
                    self.adopt(chain, before)?;
                }
                Err(fault) => {
                    self.ring.give_back(1);
                    return Err(fault);
                }
            }
        }
        Ok(None)
    }

    /// Has a chain wait that was taken, and whose parts are those from `at` on.
    #[inline]
    fn adopt(&mut self, mut chain: Chain, at: usize) -> Result<(), Fault> {
        if self.split.is_some() {
            self.set_apart(&mut chain, at)?;
        }
        self.posted += chain.bytes;
        self.chains.push(chain);
        if self.waiting() == 1 {
            self.reserve_header();
        }
        Ok(())
    }

    /// Sets the header buffer apart from the other parts of a chain, which are those from `at` on.
    fn set_apart(&mut self, chain: &mut Chain, at: usize) -> Result<(), Fault> {
        let head = self.parts[at];
        let error = if chain.first < self.header_len || chain.first == chain.bytes {
            Some(Error::BufferLength)
        } else if head.len() != chain.first {
            // It lies in several ranges of guest memory.
            Some(Error::BufferFault)
        } else {
            None
        };
        if let Some(error) = error {
            self.ring.give_back(1);
            return Err(Fault::new(error, chain.head));
        }
        chain.bytes -= chain.first;
        if self.waiting() == 0 {
            self.start = at + 1;
        } else {
            self.parts.remove(at);
            chain.parts_end -= 1;
        }
        self.heads.push(head);
        Ok(())
    }

    /// Puts as much of the header buffer before the other parts as the headers will need, if they
    /// are as long as is expected.
    fn lend_header(&mut self) {
        self.lead = 0;
        let (Some(split), Some(head)) = (&self.split, self.heads.get(self.first)) else {
            return;
        };
        let lead = split.expected().min(head.len() - self.header_len);
        if let Ok(part) = head.subslice(self.header_len, lead) {
            self.parts[self.start - 1] = part;
            self.lead = lead;
        }
    }

    /// The first of the parts that are lent.
    fn first_part(&self) -> usize {
        self.start - usize::from(self.lead > 0)
    }

    /// Sees to it that the headers of a frame, and nothing else of it, are in the header buffer, and
    /// says so; if it cannot be split, that it fills the header buffer. Returns the number of bytes
    /// there; zero without header split.
    fn split(&mut self, start: &[u8], len: usize, hdr: &mut NetHdr) -> usize {
        let Some(head) = self.heads.get(self.first) else {
            return 0;
        };
        let (Some(split), Ok(room)) = (&mut self.split, head.offset(self.header_len)) else {
            return 0;
        };
        let cut = split.cut(start, len, room.len());
        if cut.split {
            hdr.flags |= F_SPLIT;
            // It is in the first bytes, which are few.
            hdr.hdr_len = cut.at as u16;
        }
        if cut.at != self.lead.min(len) {
            let first = self.start - usize::from(self.lead > 0);
            let frame = Frame {
                meta: Meta::default(),
                len,
                parts: &self.parts[first..],
            };
            split.arrange(&frame, cut.at, room, &self.parts[self.start..]);
        }
        cut.at
    }

    /// Sets the place of the header apart from the parts of the first chain that waits.
    fn reserve_header(&mut self) {
        self.header.clear();
        if let Some(head) = self.heads.get(self.first) {
            // A header buffer is longer than the header, or as long.
            self.header.extend(head.subslice(0, self.header_len));
            return;
        }
        let mut left = self.header_len;
        while left > 0 {
            let part = self.parts[self.start];
            match part.split_at(left) {
                Ok((place, rest)) if !rest.is_empty() => {
                    self.header.push(place);
                    self.parts[self.start] = rest;
                    left = 0;
                }
                _ => {
                    self.header.push(part);
                    self.start += 1;
                    left -= part.len();
                }
            }
        }
    }

    /// Hands a frame of `len` bytes, which fits, to the driver in the only chain that waits.
    #[inline]
    fn deliver_single(
        &mut self,
        single: Single<'_>,
        len: usize,
        mut hdr: NetHdr,
    ) -> Result<(), Fault> {
        let used = self.header_len + len;
        self.ring
            .put_used(&self.view, self.unpublished, single.head, used as u32)?;
        hdr.num_buffers = 1;
        self.write_header(&hdr, from_ref(&single.header));
        self.single = None;
        self.unpublished += 1;
        Ok(())
    }

    /// Writes the per-packet header, which these places have room for.
    #[inline]
    fn write_header(&self, hdr: &NetHdr, places: &[VolatileSlice<'_>]) {
        let mut bytes = [0; MAX_HEADER];
        let (base, rest) = bytes.split_at_mut(hdr::SIZE);
        base.copy_from_slice(&hdr.to_bytes());
        if self.features & HASH_REPORT != 0 {
            rest[..hdr::HASH_SIZE].copy_from_slice(&self.hash.to_bytes());
        }
        let mut bytes = &bytes[..self.header_len];
        for place in places {
            place.copy_from(bytes);
            bytes = &bytes[place.len().min(bytes.len())..];
        }
    }

    /// Hands a frame of `len` bytes, which fits, to the driver. With header split, so many of them
    /// are `in_head`.
    fn deliver(
        &mut self,
        len: usize,
        meta: Meta,
        mut hdr: NetHdr,
        in_head: usize,
    ) -> Result<(), Fault> {
        let mut left = self.header_len + len;
        let mut head = 0;
        if self.split.is_some() {
            head = self.header_len + in_head;
            left -= head;
        }
        let mut count = 0;
        for chain in &self.chains[self.first..] {
            let used = chain.bytes.min(left);
            // A chain is at most `MAX_RX_CHAIN` long.
            let ahead = self.unpublished.wrapping_add(count);
            self.ring
                .put_used(&self.view, ahead, chain.head, (head + used) as u32)?;
            head = 0;
            count += 1;
            left -= used;
            self.posted -= chain.bytes;
            if left == 0 {
                break;
            }
        }
        hdr.num_buffers = count;
        self.write_header(&hdr, &self.header);
        self.unpublished += count;
        if self.followers.is_some() {
            self.tell(len, meta, in_head, count);
        }
        self.first += usize::from(count);
        self.start = self.chains[self.first - 1].parts_end;
        if self.waiting() > 0 {
            self.reserve_header();
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// Tells those who want to know that a frame was put into the first `count` chains.
    #[inline(never)]
    fn tell(&mut self, len: usize, meta: Meta, in_head: usize, count: u16) {
        let Some(followers) = &mut self.followers else {
            return;
        };
        if let Some(progress) = &followers.progress {
            progress.done(self.ring.used_after(self.unpublished), 1);
        }
        let Some(recorder) = &mut followers.recorder else {
            return;
        };
        let head = self.heads.get(self.first).filter(|_| in_head > 0);
        let head = head.and_then(|head| head.subslice(self.header_len, in_head).ok());
        let frame = Frame {
            meta,
            len,
            parts: &self.parts[self.start..],
        };
        if recorder.received(head, &frame, self.hash) {
            for chain in &self.chains[self.first..][..usize::from(count)] {
                describe(self.ring, &self.view, chain.head, recorder);
            }
        }
    }
}

impl RxRing for Batch<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        self.withdraw();
        if self.outcome.fault.is_some() || len > MAX_FRAME {
            return None;
        }
        if self.budget.is_spent() && !self.is_fresh() {
            self.outcome.waits = Waits::Nothing;
            return None;
        }
        match self.gather(len) {
            // A backend that was refused more may have asked for less.
            Ok(None) => self.outcome.waits = Waits::Backend,
            Ok(Some(waits)) => {
                self.outcome.waits = waits;
                return None;
            }
            Err(fault) => {
                self.outcome.fault = Some(fault);
                return None;
            }
        }
        let capacity = self.capacity();
        let overflow = match len.checked_sub(capacity) {
            None | Some(0) => None,
            // Within the overflow, which takes the longest frame.
            Some(short) => Some(self.overflow.subslice(0, short).ok()?),
        };
        self.lent = Some(Lent {
            len: capacity.max(len),
            overflows: overflow.is_some(),
        });
        if self.single.is_none() {
            self.parts.extend(overflow);
            self.lend_header();
        }
        Some(Room {
            parts: lent_parts(&self.single, &self.parts[self.first_part()..]),
        })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        let Some(lent) = self.withdraw() else {
            // Nothing was lent, so nothing was written.
            return;
        };
        self.budget.spend(1, len, 0);
        if len > lent.len || len > self.capacity() {
            self.outcome.drops += 1;
            return;
        }
        let mut start = [0; FRAME_START];
        // Only the address is needed if nobody looks at the rest.
        let most = match (&self.steer, &self.split) {
            (None, None) => header::ETH_HLEN,
            _ => FRAME_START,
        };
        let start = &mut start[..most.min(len)];
        let frame = Frame {
            meta,
            len,
            parts: lent_parts(&self.single, &self.parts[self.first_part()..]),
        };
        frame.read(start);
        if let Some(steer) = &mut self.steer {
            match steer.steer(start, &frame) {
                Some(hash) => self.hash = hash,
                // The buffers take the next frame.
                None => {
                    self.outcome.handed += 1;
                    return;
                }
            }
        }
        let wanted = start
            .first_chunk()
            .is_some_and(|start| self.filter.accepts(start, len, meta.gso.is_some()));
        let hdr = match wanted {
            true => header::build(&meta, self.told),
            false => None,
        };
        // So they do if the frame is dropped.
        let Some(mut hdr) = hdr else {
            self.outcome.drops += 1;
            return;
        };
        let delivered = match self.single {
            Some(single) => self.deliver_single(single, len, hdr),
            None => {
                let in_head = self.split(start, len, &mut hdr);
                self.deliver(len, meta, hdr, in_head)
            }
        };
        match delivered {
            Ok(()) => {
                self.outcome.frames += 1;
                self.outcome.bytes += len as u64;
            }
            Err(fault) => self.outcome.fault = Some(fault),
        }
    }
}

impl Batch<'_> {
    /// Shows the driver what was delivered: once a batch, since each time the driver's processor
    /// and this one have to pass the used ring to and fro.
    fn publish(&mut self) {
        let count = std::mem::take(&mut self.unpublished);
        if count == 0 {
            return;
        }
        if let Err(fault) = self.ring.publish(&self.view, count) {
            self.outcome.fault.get_or_insert(fault);
        }
    }

    /// Takes back the room that was lent.
    fn withdraw(&mut self) -> Option<Lent> {
        let lent = self.lent.take();
        if lent.is_some_and(|l| l.overflows) {
            self.parts.pop();
        }
        lent
    }
}
