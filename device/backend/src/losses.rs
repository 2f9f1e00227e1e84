// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that got no further than a backend.

/// Frames that a backend lost, each counted once, by where they were going. The counts only grow.
///
/// It does not matter in which call a frame is lost: one that was sent may be while the backend
/// receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// From the driver.
    pub sent: u64,
    /// To the driver, which had no room for them in time.
    pub missed: u64,
    /// To the driver, for any other reason.
    pub received: u64,
}

impl Losses {
    /// Those that came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            missed: self.missed.saturating_sub(before.missed),
            received: self.received.saturating_sub(before.received),
        }
    }
}
