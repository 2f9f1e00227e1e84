// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the engine of one queue tells of its frames.

use std::mem;
use std::sync::atomic::Ordering;

use vm_memory::VolatileSlice;
use vnet_backend::Frame;
use vnet_contract::hdr::{FlowHash, HASH_NONE};

use crate::bell::Bell;
use crate::now;
use crate::parcel::{Parcel, Record, Stages};
use crate::spool::Spool;
use crate::watch::Onlooker;

/// Load of frames that wait for their interrupt, at which they wait no longer.
const MAX_WAITING: usize = 2 << 20;

const NO_HASH: FlowHash = FlowHash {
    value: 0,
    report: HASH_NONE,
};

/// Keeps the frames of one queue. Called with the lock of its pair held, and never waits.
///
/// A batch is told of in this order: [`Self::begin`]; when sending, [`Self::lend`] and [`Self::returned`];
/// for each frame [`Self::sent`] or [`Self::received`], and if that is true its chains and, as long as they
/// are wanted, their descriptors;
/// [`Self::shown`]. Sooner or later follows [`Self::settle`].
#[derive(Debug)]
pub struct Recorder {
    spool: Spool,
    bell: Bell,
    snaplen: usize,
    /// Frames that the driver was not shown yet, from `fresh` on, and those that it was.
    parcel: Parcel,
    fresh: usize,
    /// Of the batch.
    stages: Stages,
    /// Frames of the queue so far, and those since the last one that was kept.
    number: u64,
    dropped: u32,
    /// Somebody looks at the same frames, maybe.
    onlooker: Option<Onlooker>,
}

impl Recorder {
    pub(crate) fn new(spool: Spool, queue: u16, snaplen: u32, bell: Bell) -> Self {
        bell.listen(true);
        let number = spool.tally(queue).seen.load(Ordering::Relaxed);
        Self {
            spool,
            bell,
            snaplen: snaplen as usize,
            parcel: Parcel::new(queue),
            fresh: 0,
            stages: Stages::default(),
            number,
            dropped: 0,
            onlooker: None,
        }
    }

    /// Has somebody see the frames who does not take them.
    pub fn shown_to(mut self, onlooker: Onlooker) -> Self {
        self.onlooker = Some(onlooker);
        self
    }

    /// A batch begins: the card is about to fetch.
    pub fn begin(&mut self) {
        let rang = self.bell.take();
        let fetch = now();
        self.stages = Stages {
            // One that rang before is for what is left from the last batch, too.
            doorbell: match rang {
                0 => self.stages.doorbell,
                rang => rang.min(fetch),
            },
            fetch,
            backend: fetch,
            ..Stages::default()
        };
    }

    /// The backend is about to be given what was fetched.
    pub fn lend(&mut self) {
        self.stages.backend = now();
    }

    /// The backend has given it back.
    pub fn returned(&mut self) {
        self.stages.done = now();
    }

    /// The backend took this frame. True: its descriptors are wanted, too.
    pub fn sent(&mut self, frame: &Frame<'_>) -> bool {
        self.keep(None, frame, NO_HASH)
    }

    /// This frame was received, and begins with `head`. True: its descriptors are wanted, too.
    pub fn received(
        &mut self,
        head: Option<VolatileSlice<'_>>,
        frame: &Frame<'_>,
        hash: FlowHash,
    ) -> bool {
        self.stages.done = now();
        let kept = self.keep(head, frame, hash);
        self.stages.backend = self.stages.done;
        kept
    }

    /// This frame passed, of which nothing else is known: where there is no ring.
    pub fn passed(&mut self, frame: &Frame<'_>) {
        let now = now();
        self.stages = Stages {
            backend: now,
            done: now,
            ..Stages::default()
        };
        self.keep(None, frame, NO_HASH);
    }

    /// That was all for now of what [passed](Self::passed).
    pub fn hand_over(&mut self) {
        if !self.parcel.records.is_empty() {
            self.send();
        }
    }

    /// The chain that begins with the descriptor `head` is one of the last frame. True: its descriptors
    /// are wanted, too.
    pub fn chain(&mut self, head: u16, indirect: bool) -> bool {
        self.parcel.chain(head, indirect)
    }

    /// A descriptor of the last chain, if that was wanted. True: so is the next one.
    pub fn descriptor(&mut self, len: u32) -> bool {
        self.parcel.descriptor(len)
    }

    /// The batch is over, and the driver sees what was used. `more`: there was more to fetch.
    pub fn shown(&mut self, more: bool) {
        if self.fresh < self.parcel.records.len() {
            let used = now();
            for record in &mut self.parcel.records[self.fresh..] {
                record.stages.used = used;
            }
            self.fresh = self.parcel.records.len();
            if self.parcel.thread.is_empty() {
                let thread = std::thread::current();
                self.parcel.thread = thread.name().unwrap_or("?").into();
            }
            // A driver that polls may have no interrupt for as long as it likes.
            if self.parcel.load() > MAX_WAITING {
                self.send();
            }
        }
        if !more {
            self.stages.doorbell = 0;
        }
    }

    /// The interrupt for all that the driver was shown was raised, or none will be.
    pub fn settle(&mut self, raised: bool) {
        if self.fresh == 0 || self.fresh < self.parcel.records.len() {
            return;
        }
        if raised {
            let interrupt = now();
            for record in &mut self.parcel.records {
                record.stages.interrupt = interrupt;
            }
        }
        self.send();
    }

    fn keep(&mut self, head: Option<VolatileSlice<'_>>, frame: &Frame<'_>, hash: FlowHash) -> bool {
        if self.spool.is_over() {
            return false;
        }
        self.number += 1;
        let tally = self.spool.tally(self.parcel.queue);
        tally.seen.fetch_add(1, Ordering::Relaxed);
        let keep = frame.len.min(self.snaplen);
        if !self.spool.reserve(keep) {
            self.dropped = self.dropped.saturating_add(1);
            tally.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut record = Record::new(self.stages, frame.meta, hash, frame.len);
        record.number = self.number;
        record.dropped = mem::take(&mut self.dropped);
        self.parcel.add(record, keep, |bytes| {
            let mut done = 0;
            if let Some(head) = head {
                done = head.copy_to(&mut bytes[..]).min(bytes.len());
            }
            frame.read(&mut bytes[done..]);
        });
        true
    }

    fn send(&mut self) {
        let queue = self.parcel.queue;
        let parcel = mem::replace(&mut self.parcel, Parcel::new(queue));
        self.fresh = 0;
        if let Some(onlooker) = &self.onlooker {
            onlooker.tell(&parcel);
        }
        let lost = self.spool.put(parcel);
        if lost != 0 {
            self.dropped = self.dropped.saturating_add(lost as u32);
            let tally = self.spool.tally(queue);
            tally.dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.bell.listen(false);
        if !self.parcel.records.is_empty() {
            self.send();
        }
    }
}
