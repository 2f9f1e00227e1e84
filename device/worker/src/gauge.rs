// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair as somebody sees it who has no part in serving it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use vnet_contract::queue::Kind;

use crate::counters::{Counters, Tally};
use crate::drops::Drops;
use crate::pair::Pair;
use crate::shared::Shared;
use crate::times::Times;

/// How full a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Chains that the driver has made available and not got back: buffers for frames to come, or
    /// frames that are to be sent.
    pub waiting: u16,
    /// Descriptors of the ring.
    pub size: u16,
}

/// A handle that does not wait for the pair, but where it says so. The pair's thread may be gone by then.
#[derive(Clone)]
pub struct Gauge(Arc<Shared>);

impl Pair {
    /// A handle for somebody who looks on.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(self.shared()))
    }
}

impl Gauge {
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    /// The counters of a queue since the pair was made, whatever the driver resets. They never
    /// decrease.
    pub fn totals(&self, kind: Kind) -> Counters {
        self.tally(kind).totals()
    }

    /// The dropped frames of a queue by reason, since the process began. They never decrease.
    pub fn drops(&self, kind: Kind) -> Drops {
        self.tally(kind).reasons()
    }

    /// Has the batches of both queues timed from now on. Takes two looks at the clock for each.
    pub fn measure(&self) {
        self.0.tallies.rx.measure();
        self.0.tallies.tx.measure();
    }

    /// How long batches of a queue took in which frames moved, since they are timed.
    pub fn times(&self, kind: Kind) -> Option<Times> {
        self.tally(kind).times()
    }

    /// How full the ring of a queue is that was started, by what is in its memory now; `None` if the
    /// card cannot look there, or has to ask for it.
    pub fn fill(&self, kind: Kind) -> Option<Fill> {
        let ring = self.tally(kind).ring()?;
        let snapshot = self.0.dma.snapshot();
        let (waiting, size) = ring.waiting(snapshot.memory()?)?;
        Some(Fill { waiting, size })
    }

    fn tally(&self, kind: Kind) -> &Tally {
        match kind {
            Kind::Rx => &self.0.tallies.rx,
            Kind::Tx => &self.0.tallies.tx,
        }
    }

    /// Pulls the cable, or puts it back in: without it, frames of both directions are lost, and
    /// counted as drops. From the next round on.
    pub fn set_plugged(&self, plugged: bool) {
        self.0.unplugged.store(!plugged, Ordering::Relaxed);
        self.0.kick.kick();
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.0.index).finish()
    }
}
