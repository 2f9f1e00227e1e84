// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why frames were dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was not for the driver, or it was too long or made no sense.
    Refused,
    /// The driver had no buffers for it in time.
    NoBuffers,
    /// The backend lost it.
    Backend,
    /// The cable was pulled.
    Unplugged,
    /// Its queue did not run.
    Stopped,
    /// It was in the hands of a process that died.
    Restart,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::NoBuffers,
        Self::Backend,
        Self::Unplugged,
        Self::Stopped,
        Self::Restart,
    ];

    /// As metrics and answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoBuffers => "no_buffers",
            Self::Backend => "backend",
            Self::Unplugged => "unplugged",
            Self::Stopped => "stopped",
            Self::Restart => "restart",
        }
    }
}

/// Dropped frames by reason, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Reason::ALL.len()]);

impl Drops {
    /// Each reason, with the number of frames.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0)
    }
}

/// The same, as it is counted.
#[derive(Debug, Default)]
pub(crate) struct DropCounters([AtomicU64; Reason::ALL.len()]);

impl DropCounters {
    pub(crate) fn add(&self, why: Reason, frames: u64) {
        self.0[why as usize].fetch_add(frames, Relaxed);
    }

    pub(crate) fn read(&self) -> Drops {
        Drops(std::array::from_fn(|n| self.0[n].load(Relaxed)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place() {
        let counters = DropCounters::default();
        for (n, why) in (1..).zip(Reason::ALL) {
            counters.add(why, n);
        }
        let read = counters.read();
        assert!(read.iter().map(|(_, count)| count).eq(1..=6));
        assert_eq!(read.iter().nth(1), Some((Reason::NoBuffers, 2)));
    }
}
