// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Time as the guest has it.

use std::time::{Duration, Instant};

/// After a sign of life the guest counts as alive for this long. Above the second in which our own
/// driver looks whether its card still answers.
const GRACE: Duration = Duration::from_millis(2500);
/// Longest step of the clock: a host that was suspended, or a thread that was not scheduled, does
/// not make a driver late.
const STEP: Duration = Duration::from_secs(1);

/// A clock that stands still while the guest shows no life: it may have been stopped, and then it
/// can neglect nothing.
#[derive(Debug)]
pub(crate) struct Life {
    now: Duration,
    ticked: Instant,
    /// Signs of life that were counted, and when the number last changed.
    signs: u64,
    alive: Option<Instant>,
}

impl Life {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            now: Duration::ZERO,
            ticked: now,
            signs: 0,
            alive: None,
        }
    }

    /// Time that went by while the guest was alive.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Follows the time of the host and the signs of life counted so far.
    pub(crate) fn tick(&mut self, now: Instant, signs: u64) {
        let step = now.saturating_duration_since(self.ticked).min(STEP);
        self.ticked = now;
        if signs != self.signs {
            self.signs = signs;
            self.alive = Some(now);
        }
        if self
            .alive
            .is_some_and(|at| now.saturating_duration_since(at) <= GRACE)
        {
            self.now += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_while_the_guest_does() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut life = Life::new(start);
        life.tick(at(500), 0);
        assert_eq!(life.now(), Duration::ZERO);
        life.tick(at(1000), 1);
        life.tick(at(1500), 1);
        assert_eq!(life.now(), Duration::from_secs(1));
        for ms in (2000..60_000).step_by(500) {
            life.tick(at(ms), 1);
        }
        assert_eq!(life.now(), Duration::from_secs(3));
        // A long step is one in which this thread did not run.
        life.tick(at(90_000), 2);
        assert_eq!(life.now(), Duration::from_secs(4));
    }
}
