// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a round of service leaves to be done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vnet_contract::queue::Error;
use vnet_queue::Fault;

/// What ends the sleep of a worker, other than a kick and its alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// The backend's descriptor.
    pub(crate) readiness: bool,
    /// The backend's deadline.
    pub(crate) deadline: Option<Instant>,
}

impl Sleep {
    /// True if a worker that sleeps like this wakes in time for one that should sleep like `due`.
    pub(crate) fn covers(&self, due: &Sleep) -> bool {
        let in_time = match (self.deadline, due.deadline) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(other)) => mine <= other,
        };
        in_time && (self.readiness || !due.readiness)
    }
}

/// What a round did and what comes next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Another round is due at once.
    pub(crate) again: bool,
    /// Else: what to wait for.
    pub(crate) sleep: Sleep,
    /// When the next interrupt is to be judged, if there is one that waits.
    pub(crate) interrupt: Option<Instant>,
    /// When a ring is to be looked at without a doorbell.
    pub(crate) look: Option<Instant>,
    /// Frames moved.
    pub(crate) progress: bool,
    /// So many or such large ones that nobody waits for a single one.
    pub(crate) bulk: bool,
    /// Faults of the receive and the transmit queue, to be reported.
    pub(crate) rx_fault: Option<Fault>,
    pub(crate) tx_fault: Option<Fault>,
    /// The backend panicked in this round.
    pub(crate) panicked: bool,
}

impl Round {
    /// Has a ring looked at, at this time or before.
    pub(crate) fn look_at(&mut self, at: Instant) {
        self.look = self.look.into_iter().chain([at]).min();
    }

    /// One that did nothing, but is to be followed by another.
    pub(crate) fn again() -> Self {
        Self {
            again: true,
            ..Self::default()
        }
    }

    /// Has the pair look again for what it did not find in memory that is shared.
    #[cold]
    pub(crate) fn retry(&mut self, unshared: &AtomicBool) {
        for fault in [&mut self.rx_fault, &mut self.tx_fault] {
            let lacks =
                |fault: &mut Fault| matches!(fault.error, Error::BufferFault | Error::RingFault);
            if fault.take_if(lacks).is_some() {
                unshared.store(true, Ordering::Release);
                self.again = true;
            }
        }
    }
}
