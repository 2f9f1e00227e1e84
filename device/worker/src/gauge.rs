// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair as somebody sees it who has no part in serving it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use vnet_contract::queue::Kind;

use crate::counters::Counters;
use crate::pair::Pair;
use crate::shared::Shared;

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
        match kind {
            Kind::Rx => self.0.tallies.rx.totals(),
            Kind::Tx => self.0.tallies.tx.totals(),
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
