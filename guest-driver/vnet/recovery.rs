// SPDX-License-Identifier: GPL-2.0

//! When to try again to bring a card back into service.
//!
//! A card that failed once is reset at once. One that fails again soon after may be broken for a while
//! or for good, and nobody can know: so it is tried again and again, but ever more seldom, so that
//! neither the log nor the RTNL lock suffer.

use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

type Time = Instant<Monotonic>;

/// A failure so soon after an attempt means that the attempt was in vain. Also for a pair that was
/// started anew.
pub(crate) const STABLE: Delta = Delta::from_secs(10);

/// Time between attempts: doubled after each that was in vain, to a limit.
const FIRST_PAUSE: i64 = 1;
const MOST_DOUBLINGS: u32 = 2;

/// After one that failed others have the RTNL lock for at least so many times as long as it took, which is
/// seconds if the card does not come to rest.
const REST: i64 = 15;

/// The attempts so far.
#[derive(Default)]
pub(crate) struct Recovery {
    /// When the last one began or, if it failed, was over.
    last: Option<Time>,
    /// How long it took, if it failed.
    took: Option<Delta>,
    /// Attempts in a row that were in vain, before the last.
    in_vain: u32,
}

impl Recovery {
    /// True if it is time for an attempt, which the caller makes.
    pub(crate) fn attempt(&mut self) -> bool {
        let now = Time::now();
        let pause = Delta::from_secs(FIRST_PAUSE << self.in_vain.min(MOST_DOUBLINGS));
        let rest = self.took.map_or(pause, |took| took * REST);
        match self.last {
            Some(last) if now - last < pause.max(rest) => return false,
            Some(last) if now - last < STABLE => self.in_vain = self.in_vain.saturating_add(1),
            _ => self.in_vain = 0,
        }
        (self.last, self.took) = (Some(now), None);
        true
    }

    /// The attempt failed.
    pub(crate) fn failed(&mut self) {
        let now = Time::now();
        self.took = self.last.map(|began| now - began);
        self.last = Some(now);
    }
}
