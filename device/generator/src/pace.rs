// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! When the next frame is due.

use std::time::{Duration, Instant};

use crate::config::Pace;

/// What is made up for, after a time in which nothing could be sent.
const MOST_BEHIND: Duration = Duration::from_millis(50);

/// A pace that is kept, on average.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pace: Pace,
    due: Option<Instant>,
}

impl Clock {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, due: None }
    }

    /// When the next frame is due. The first is at once.
    pub(crate) fn due(&mut self, now: Instant) -> Instant {
        *self.due.get_or_insert(now)
    }

    /// The same, if it is known.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// A frame of so many bytes was sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        let interval = match self.pace {
            Pace::Frames(frames) => Duration::from_secs(1) / frames.max(1),
            Pace::Rate(rate) => rate.time(bytes as u64),
            Pace::Full => Duration::ZERO,
        };
        let due = self.due(now);
        // An instant before the clock began to run is none.
        let earliest = now.checked_sub(MOST_BEHIND).unwrap_or(due);
        self.due = Some(due.max(earliest) + interval);
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that are sent in a second, by one who looks every so often.
    fn frames(pace: Pace, bytes: usize, look: Duration) -> u32 {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut clock = Clock::new(pace);
        let (mut now, mut frames) = (start, 0);
        while now < start + Duration::from_secs(1) {
            while clock.due(now) <= now {
                clock.sent(bytes, now);
                frames += 1;
            }
            now += look;
        }
        frames
    }

    #[test]
    fn the_pace_is_kept_by_one_who_looks_late() {
        for look in [1, 7, 40].map(Duration::from_millis) {
            let found = frames(Pace::Frames(1000), 60, look);
            assert!((960..=1000).contains(&found), "{found}");
            let found = frames(Pace::Rate("8M".parse().unwrap()), 1000, look);
            assert!((960..=1000).contains(&found), "{found}");
        }
    }

    #[test]
    fn lost_time_is_not_made_up_for() {
        // Half of the time there is nobody.
        let found = frames(Pace::Frames(1000), 60, Duration::from_millis(100));
        assert!((400..=600).contains(&found), "{found}");
    }
}
