// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The transmit queue: chains out of guest memory, as frames to a backend.

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta, Queue, MAX_FRAME};
use vnet_capture::Recorder;
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::queue::{Error, Kind};
use vnet_dma::DmaMap;
use vnet_faults::Site;
use vnet_segment::{Segmenter, Taken, MAX_SEGMENTS};

use crate::chain::{walk, Chain, Direction};
use crate::header::{self, ETH_HLEN};
use crate::progress::{Progress, Recovered};
use crate::record::describe;
use crate::ring::Ring;
use crate::shelf::{Frames, Parts};
use crate::view::View;
use crate::{Budget, Due, Fault, Observer, Outcome, Outline, Position, RingConfig, Waits, Written};

mod step;

/// A running transmit queue.
#[derive(Debug)]
pub struct Tx {
    ring: Ring,
    features: u64,
    /// Bytes of the per-packet header.
    header: usize,
    /// Chains of the batch, and the shelves of what borrows from guest memory.
    chains: Vec<Sent>,
    parts: Parts,
    frames: Frames,
    /// Does for a frame what the backend cannot do.
    segmenter: Segmenter,
    /// Where a process that takes over finds how far this one was.
    progress: Option<Progress>,
    /// Keeps frames for a capture.
    recorder: Option<Box<Recorder>>,
}

/// A chain with its header taken off.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Index of its first descriptor.
    head: u16,
    meta: Meta,
    /// Bytes of the frame.
    len: usize,
    /// Where the frame starts and ends among the parts.
    parts_start: usize,
    parts_end: usize,
}

impl Tx {
    /// Checks the configuration and starts the queue.
    pub fn start(config: &RingConfig, mem: &DmaMap) -> Result<Self, Fault> {
        Ok(Self {
            ring: Ring::new(config, mem)?,
            features: config.features,
            header: hdr::size(config.features),
            chains: Vec::new(),
            parts: Parts::default(),
            frames: Frames::default(),
            segmenter: Segmenter::default(),
            progress: None,
            recorder: None,
        })
    }

    /// Keeps track of how far the queue is.
    pub fn track(&mut self, progress: Progress) {
        progress.done(self.ring.used_after(0), 0);
        self.progress = Some(progress);
    }

    /// Goes on with a queue that another process started with this configuration and kept track
    /// of. Frames that it handed over are given back to the driver, not sent again. Of one that may not have
    /// left, `dropped` hears before that: a process that dies then leaves no trace of it.
    pub fn resume(
        config: &RingConfig,
        mem: &DmaMap,
        progress: Progress,
        dropped: impl FnOnce(),
    ) -> Result<(Self, Recovered), Fault> {
        let mut tx = Self::start(config, mem)?;
        let rest = progress.rest(tx.ring.shown(mem)?, tx.ring.size());
        tx.ring.catch_up(rest.used);
        let view = tx.ring.view(mem);
        let mut shown = 0;
        while shown < rest.count {
            let Some(head) = tx.ring.take(&view)? else {
                break;
            };
            tx.ring.put_used(&view, shown, head, 0)?;
            shown += 1;
        }
        let in_doubt = rest.in_doubt && shown == rest.count;
        if in_doubt {
            dropped();
        }
        // No longer in doubt. One that dies between the two is counted twice, and never not at all.
        progress.done(tx.ring.used_after(shown), 0);
        tx.ring.publish(&view, shown)?;
        tx.track(progress);
        let dropped = in_doubt.into();
        Ok((tx, Recovered { shown, dropped }))
    }

    /// Lets used entries go wrong. Without this, nothing does.
    pub fn set_faults(&mut self, site: Site) {
        self.ring.set_faults(site);
    }

    /// Where the queue is, for who fetches the memory that it needs.
    pub fn outline(&self) -> Outline {
        self.ring.outline(Kind::Tx, false, self.header + MAX_FRAME)
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

    /// Offers one batch to the backend and returns the buffers of the frames that it took.
    ///
    /// Frames before a bad chain are still sent; the fault is reported when they are.
    pub fn run(&mut self, mem: &DmaMap, backend: &mut dyn Queue, budget: Budget) -> Outcome {
        let mut parts = self.parts.take();
        self.chains.clear();
        if let Some(recorder) = &mut self.recorder {
            recorder.begin();
        }
        let mut view = self.ring.view(mem);
        let (waits, fault) = match self.collect(&mut view, budget, &mut parts) {
            Ok(waits) => (waits, None),
            Err(fault) => (Waits::Driver, Some(fault)),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.lend();
        }
        let taken = self.offer(backend, &parts);
        if self.recorder.is_some() {
            self.record(&view, &parts, taken.frames);
        }
        self.parts.put(parts);

        let mut outcome = Outcome::new(waits);
        let rest = self.chains.len() - taken.frames;
        if rest > 0 {
            // A fault behind frames that wait comes round again.
            self.ring.give_back(rest as u16);
            outcome.waits = match taken.spent {
                true => Waits::Nothing,
                false => Waits::Backend,
            };
        } else {
            outcome.fault = fault;
        }
        let bytes: usize = self.chains[..taken.frames].iter().map(|s| s.len).sum();
        outcome.frames = (taken.frames - taken.refused) as u64;
        outcome.bytes = (bytes - taken.refused_bytes) as u64;
        outcome.drops = taken.refused as u64;
        if let Err(fault) = self.complete(&view, taken.frames) {
            outcome.fault = Some(fault);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.shown(outcome.waits != Waits::Driver);
        }
        outcome
    }

    /// Has frames kept for a capture, or not.
    pub fn set_recorder(&mut self, recorder: Option<Box<Recorder>>) {
        self.recorder = recorder;
    }

    /// Tells of the first `count` frames of the batch.
    #[cold]
    fn record(&mut self, view: &View<'_>, parts: &[VolatileSlice<'_>], count: usize) {
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        recorder.returned();
        for sent in &self.chains[..count] {
            let frame = Frame {
                meta: sent.meta,
                len: sent.len,
                parts: &parts[sent.parts_start..sent.parts_end],
            };
            if recorder.sent(&frame) {
                describe(&self.ring, view, sent.head, recorder);
            }
        }
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

    /// The interrupt that the driver wants now for what was completed, until [`Self::signalled`].
    pub fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        let due = self.ring.interrupt_due(mem);
        if let (Some(recorder), Ok(None)) = (&mut self.recorder, &due) {
            recorder.settle(false);
        }
        due
    }

    /// The interrupt that was due was raised, or another one serves for it.
    pub fn signalled(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.settle(true);
        }
        self.ring.signalled();
    }

    /// The interrupt that was due is lost.
    pub fn unheard(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.settle(false);
        }
        self.ring.signalled();
    }

    /// Asks for a doorbell; true if there is new work already.
    pub fn rearm(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ring.rearm(mem)
    }

    /// Fetches chains until the budget is spent or the ring is empty.
    fn collect<'m>(
        &mut self,
        view: &mut View<'m>,
        mut budget: Budget,
        parts: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<Waits, Fault> {
        while !budget.is_spent() {
            let Some(head) = self.ring.take(view)? else {
                return Ok(Waits::Driver);
            };
            let before = parts.len();
            match self.read(view, head, parts) {
                Ok((len, descriptors)) => budget.spend(1, len, descriptors.into()),
                Err(fault) => {
                    parts.truncate(before);
                    self.ring.give_back(1);
                    return Err(fault);
                }
            }
        }
        Ok(Waits::Nothing)
    }

    /// Checks one chain and its header, and adds it to the batch. Returns the bytes of the frame, and
    /// how many descriptors were read for it.
    #[inline]
    fn read<'m>(
        &mut self,
        view: &mut View<'m>,
        head: u16,
        parts: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<(usize, u16), Fault> {
        let start = parts.len();
        let max = self.header + MAX_FRAME;
        let chain = walk(&mut self.ring, view, head, Direction::Read, max, parts)?;
        self.unpack(&chain, start, parts)?;
        Ok((chain.bytes - self.header, chain.descriptors))
    }

    /// Takes the header off a chain whose parts are those from `start` on, checks it, and adds the
    /// frame to the batch. Returns the header.
    #[inline]
    fn unpack(
        &mut self,
        chain: &Chain,
        mut start: usize,
        parts: &mut [VolatileSlice<'_>],
    ) -> Result<NetHdr, Fault> {
        let head = chain.head;
        if chain.bytes < self.header + ETH_HLEN {
            return Err(Fault::new(Error::BufferLength, head));
        }
        let len = chain.bytes - self.header;
        let mut bytes = [0; hdr::SIZE];
        let part = parts[start];
        match part.offset(self.header) {
            // What features append means nothing on transmit, and is only skipped.
            Ok(rest) if part.len() > self.header => {
                part.copy_to(&mut bytes);
                parts[start] = rest;
            }
            _ => start = gather(&mut bytes, self.header, start, parts),
        }
        let header = NetHdr::from_bytes(&bytes);
        let meta =
            header::parse(&header, len, self.features).ok_or(Fault::new(Error::Header, head))?;
        self.chains.push(Sent {
            head: chain.head,
            meta,
            len,
            parts_start: start,
            parts_end: chain.parts_end,
        });
        Ok(header)
    }

    /// Lends the batch to the backend and returns what it took.
    fn offer(&mut self, backend: &mut dyn Queue, parts: &[VolatileSlice<'_>]) -> Taken {
        if self.chains.is_empty() {
            return Taken::default();
        }
        let mut frames = self.frames.take();
        frames.extend(self.chains.iter().map(|sent| Frame {
            meta: sent.meta,
            len: sent.len,
            parts: &parts[sent.parts_start..sent.parts_end],
        }));
        let taken = match &self.progress {
            None => self.segmenter.transmit(backend, &frames),
            Some(progress) => {
                let first = self.ring.used_after(0);
                tracked(&mut self.segmenter, backend, &frames, progress, first)
            }
        };
        self.frames.put(frames);
        taken
    }

    /// Returns the first `count` chains to the driver.
    fn complete(&mut self, view: &View<'_>, count: usize) -> Result<(), Fault> {
        if count == 0 {
            return Ok(());
        }
        for (ahead, sent) in (0..).zip(&self.chains[..count]) {
            self.ring.put_used(view, ahead, sent.head, 0)?;
        }
        self.ring.publish(view, count as u16)
    }
}

/// Takes a header of so many bytes, of which the first are wanted, from the parts at `start`, of which there
/// are several, or one without a frame behind. Returns where the frame starts.
#[cold]
fn gather(
    bytes: &mut [u8],
    header: usize,
    mut start: usize,
    parts: &mut [VolatileSlice<'_>],
) -> usize {
    let mut done = 0;
    while done < header {
        let part = parts[start];
        part.copy_to(bytes.get_mut(done..).unwrap_or_default());
        let n = part.len().min(header - done);
        done += n;
        if n == part.len() {
            start += 1;
        } else if let Ok(rest) = part.offset(n) {
            parts[start] = rest;
        }
    }
    start
}

/// Lends the frames one by one, and says in between how far it is. The used entry of the first one
/// will be that of index `first`.
fn tracked(
    segmenter: &mut Segmenter,
    backend: &mut dyn Queue,
    frames: &[Frame<'_>],
    progress: &Progress,
    first: u16,
) -> Taken {
    let mut taken = Taken::default();
    let mut left = MAX_SEGMENTS;
    for frame in frames.chunks(1) {
        let index = first.wrapping_add(taken.frames as u16);
        progress.in_hand(index.wrapping_add(1));
        let one = segmenter.transmit_within(&mut left, backend, frame);
        if one.frames == 0 {
            // A frame of which a part was sent stays in doubt.
            if !segmenter.is_midway() {
                progress.done(index, 0);
            }
            taken.spent = one.spent;
            break;
        }
        let sent = one.frames - one.refused;
        progress.done(index.wrapping_add(1), sent as u64);
        taken.frames += one.frames;
        taken.refused += one.refused;
        taken.refused_bytes += one.refused_bytes;
    }
    taken
}
