// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The latest frames of a queue, for somebody who looks on, instead of for a file.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use vnet_backend::Meta;

use crate::bell::Bell;
use crate::parcel::{cost, Chain, Parcel, Record, Stages};
use crate::recorder::Recorder;
use crate::spool::{spool, Item, Spool};

/// Bytes of each frame that are kept: the headers, as a rule.
pub(crate) const START: usize = 96;
/// Frames that wait to be looked at, at most.
const FRAMES: usize = 32;
/// Parcels of them.
const PARCELS: usize = 32;

/// A frame that somebody sees.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Frames of the queue up to this one, since somebody looks.
    pub number: u64,
    /// Its length.
    pub len: u32,
    /// Its first bytes.
    pub start: Vec<u8>,
    /// What goes with it.
    pub meta: Meta,
    /// When it was where.
    pub stages: Stages,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Somebody looks at the frames of a queue. Clones are handles on the same; it is over when
/// [`Self::end`] says so.
#[derive(Clone, Debug)]
pub struct Watch {
    spool: Spool,
    items: Arc<Mutex<Receiver<Item>>>,
}

impl Watch {
    /// Nobody tells it of frames yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let (spool, items) = spool(FRAMES * cost(START), PARCELS);
        let items = Arc::new(Mutex::new(items));
        Self { spool, items }
    }

    /// For the engine of this queue.
    pub fn recorder(&self, queue: u16, bell: &Bell) -> Recorder {
        Recorder::new(self.spool.clone(), queue, START as u32, bell.clone())
    }

    /// True if both are the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.items, &other.items)
    }

    /// Nobody looks any more: whoever tells it of frames may let go of it.
    pub fn end(&self) {
        self.spool.shared.over.store(true, Ordering::Release);
    }

    /// True if nobody looks any more.
    pub fn is_over(&self) -> bool {
        self.spool.is_over()
    }

    /// Frames that came since the last call, in order; of many, only the first.
    pub fn take(&self) -> Vec<Seen> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Vec::new();
        for item in items.try_iter() {
            if let Item::Parcel(parcel) = item {
                self.spool.shared.release(parcel.load());
                let records = parcel.records.iter();
                seen.extend(records.map(|record| Seen::new(&parcel, record)));
            }
        }
        seen
    }

    /// Takes from what goes to a file what there is room for.
    fn tell(&self, parcel: &Parcel) {
        if self.is_over() {
            return;
        }
        let mut copy = Parcel::new(parcel.queue);
        for record in &parcel.records {
            let bytes = parcel.bytes(record);
            let keep = bytes.len().min(START);
            if !self.spool.reserve(keep) {
                break;
            }
            copy.add(record.clone(), keep, |to| {
                to.copy_from_slice(&bytes[..keep])
            });
            for chain in parcel.chains(record) {
                copy.chain(chain.head, chain.indirect);
                for n in 0..chain.count {
                    // Those that were only counted have no lengths here, either.
                    copy.descriptor(chain.lens.get(n).copied().unwrap_or_default());
                }
            }
        }
        if !copy.records.is_empty() {
            self.spool.put(copy);
        }
    }
}

/// Whoever looks at the frames of a queue that others take, or nobody. Clones are handles on the same: who
/// looks may change while frames are on their way.
#[derive(Clone, Debug, Default)]
pub struct Onlooker(Arc<Mutex<Option<Watch>>>);

impl Onlooker {
    /// Has somebody look from now on.
    pub fn set(&self, watch: Option<Watch>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = watch;
    }

    pub(crate) fn tell(&self, parcel: &Parcel) {
        let watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &*watch {
            watch.tell(parcel);
        }
    }
}

impl Seen {
    fn new(parcel: &Parcel, record: &Record) -> Self {
        Self {
            number: record.number,
            len: record.len,
            start: parcel.bytes(record).to_vec(),
            meta: record.meta,
            stages: record.stages,
            chains: parcel.chains(record).collect(),
        }
    }
}
