// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a generator has counted.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::latency::Latency;
use crate::receiver::Receiver;

/// The counters of a generator, for those who look on.
#[derive(Clone, Debug)]
pub struct Counters(pub(crate) Arc<Mutex<Receiver>>);

/// What a generator has sent, and what came of it. Frames that came are the own ones and those of other
/// generators. No number decreases, but for `unanswered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames that the card was given.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames with a stamp that came, and answers to ARP requests; each number once.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames that will not come: thousands of later ones did, or the generator has begun anew.
    pub lost: u64,
    /// Own frames that may yet come back.
    pub unanswered: u64,
    /// Frames that a later one overtook; among them those that were given up as lost before they came.
    pub reordered: u64,
    /// Frames that came once more.
    pub duplicated: u64,
    /// Frames with a stamp whose payload is not what was sent.
    pub damaged: u64,
    /// Frames that bear no stamp, such as the guest's own traffic, or one that cannot be.
    pub other: u64,
    /// From sending to arrival.
    pub latency: Latency,
}

impl Counters {
    /// What they are now.
    pub fn report(&self) -> Report {
        self.lock().report
    }

    /// Held for a batch of frames at most.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Receiver> {
        // What was counted stays right when somebody who counted panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} frames, {} bytes; received {} frames, {} bytes, {} lost, {} late, {} twice, \
             {} damaged, {} other",
            self.sent,
            self.sent_bytes,
            self.received,
            self.received_bytes,
            self.lost,
            self.reordered,
            self.duplicated,
            self.damaged,
            self.other,
        )?;
        match self.latency.average() {
            None => Ok(()),
            Some(average) => write!(
                f,
                "; under way {} us on average, {} us at most",
                average.as_micros(),
                self.latency.longest().as_micros(),
            ),
        }
    }
}
