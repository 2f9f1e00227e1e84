// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What lies between the queues and the thread that writes. Bounded, and nobody waits to put something in.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;

use vnet_contract::pci::MAX_QUEUE_PAIRS;

use crate::event::Event;
use crate::parcel::{cost, Parcel};

/// Most bytes of frames that wait to be written to a file, each with what it counts for beside them.
pub(crate) const MAX_LOAD: usize = 32 << 20;
/// Most parcels and events that wait.
pub(crate) const MAX_PARCELS: usize = 4096;

/// Queues that a card can have.
pub(crate) const QUEUES: usize = 2 * MAX_QUEUE_PAIRS as usize;

#[derive(Debug)]
pub(crate) enum Item {
    Parcel(Parcel),
    Event(Event),
    /// Nothing: look what has changed.
    Nudge,
}

/// What became of the frames of a queue.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Frames that the queue carried.
    pub(crate) seen: AtomicU64,
    /// Those of them that are not in the file.
    pub(crate) dropped: AtomicU64,
}

/// What everybody knows who has a part in a capture.
#[derive(Debug)]
pub(crate) struct Shared {
    load: AtomicUsize,
    /// Most of it.
    most: usize,
    /// Nothing more is wanted.
    pub(crate) over: AtomicBool,
    pub(crate) tallies: [Tally; QUEUES],
    /// Events that had no room.
    pub(crate) lost_events: AtomicU64,
}

/// The way in.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    pub(crate) shared: Arc<Shared>,
    items: SyncSender<Item>,
}

/// A spool in which so much waits at most, and the way out.
pub(crate) fn spool(most: usize, parcels: usize) -> (Spool, Receiver<Item>) {
    let (items, receiver) = sync_channel(parcels);
    let shared = Arc::new(Shared {
        load: AtomicUsize::new(0),
        most,
        over: AtomicBool::new(false),
        tallies: [const {
            Tally {
                seen: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            }
        }; QUEUES],
        lost_events: AtomicU64::new(0),
    });
    (Spool { shared, items }, receiver)
}

impl Spool {
    /// Makes room for a frame of which so many bytes are kept; false: there is none.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        // Relaxed: counts and no more. What is in a parcel is ordered by the channel.
        let load = &self.shared.load;
        let before = load.fetch_add(cost(bytes), Ordering::Relaxed);
        let fits = before + cost(bytes) <= self.shared.most;
        if !fits {
            load.fetch_sub(cost(bytes), Ordering::Relaxed);
        }
        fits
    }

    /// Hands over a parcel for which there is room. Gives back how many frames there was none for.
    pub(crate) fn put(&self, parcel: Parcel) -> u64 {
        let load = parcel.load();
        let frames = parcel.records.len() as u64;
        match self.items.try_send(Item::Parcel(parcel)) {
            Ok(()) => 0,
            Err(_) => {
                self.shared.release(load);
                frames
            }
        }
    }

    /// Hands over an event.
    pub(crate) fn event(&self, event: Event) {
        if self.items.try_send(Item::Event(event)).is_err() {
            self.shared.lost_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the thread look up.
    pub(crate) fn nudge(&self) {
        // One that is full is looked at anyway.
        let _ = self.items.try_send(Item::Nudge);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    pub(crate) fn tally(&self, queue: u16) -> &Tally {
        &self.shared.tallies[usize::from(queue) % QUEUES]
    }
}

impl Shared {
    /// A parcel of this load is no longer there.
    pub(crate) fn release(&self, load: usize) {
        self.load.fetch_sub(load, Ordering::Relaxed);
    }
}
