// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive queue: frames of a backend, into the guest's buffers.

use std::slice::from_ref;

use vm_memory::VolatileSlice;
use vnet_backend::{Queue, RxRing, MAX_FRAME};
use vnet_capture::Recorder;
use vnet_contract::features::{HDR_SPLIT, MRG_RXBUF};
use vnet_contract::hdr::{self, FlowHash};
use vnet_contract::queue::{Kind, MAX_RX_CHAIN};
use vnet_dma::DmaMap;
use vnet_faults::Site;

use crate::chain::Chain;
use crate::progress::{Progress, Recovered};
use crate::record::Followers;
use crate::ring::Ring;
use crate::shelf::Parts;
use crate::split::Split;
use crate::steer::{Handed, Steer};
use crate::view::View;
use crate::{
    Budget, Due, Fault, Observer, Outcome, Outline, Position, RingConfig, RxFilter, Waits, Written,
};

mod chains;
mod deliver;
mod room;
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
        if batch.outcome.fault.is_some() {
            // Those that wait were taken before a bad one.
            batch.ring.blame(0);
        }
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

    /// Tells whoever watches the queue of the fault that ends it.
    pub fn accuse(&mut self, mem: &DmaMap, fault: Fault) {
        self.ring.accuse(mem, fault);
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

    /// The first of the parts that are lent.
    fn first_part(&self) -> usize {
        self.start - usize::from(self.lead > 0)
    }
}
