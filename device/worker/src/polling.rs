// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How long a worker looks for more work before it goes to sleep.

use std::time::{Duration, Instant};

/// The window that polling begins with.
const FIRST: Duration = Duration::from_micros(4);
/// A look that comes so late means that somebody else wanted the CPU.
const CROWDED: Duration = Duration::from_micros(100);

/// What a worker does after a round that leaves nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Look again.
    Look,
    /// Ask to be woken, look once more, and sleep.
    Sleep,
}

/// Decides when polling pays: if work tends to come soon after a sleep has begun, not sleeping for
/// that long spares a wake-up. The window grows with every sleep that was too short and shrinks
/// with every one that polling would not have spared, or when others want the CPU.
#[derive(Debug)]
pub(crate) struct Polling {
    max: Duration,
    window: Duration,
    /// When the window began and when the last look was, while the worker polls.
    since: Option<(Instant, Instant)>,
}

impl Polling {
    /// Polls for `max` at most; for zero, not at all.
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            max,
            window: Duration::ZERO,
            since: None,
        }
    }

    /// True if rounds are to be served without asking to be woken: the worker comes back anyway.
    pub(crate) fn is_on(&self) -> bool {
        !self.window.is_zero()
    }

    /// Says what to do after a round; `progress`: the round moved frames.
    pub(crate) fn next(&mut self, progress: bool, now: Instant) -> Next {
        let (start, last) = match self.since {
            Some(since) if !progress => since,
            _ if progress && self.is_on() => (now, now),
            _ => return self.rest(),
        };
        if now.saturating_duration_since(last) > CROWDED {
            self.window = Duration::ZERO;
            return self.rest();
        }
        if now.saturating_duration_since(start) >= self.window {
            return self.rest();
        }
        self.since = Some((start, now));
        Next::Look
    }

    fn rest(&mut self) -> Next {
        self.since = None;
        Next::Sleep
    }

    /// Takes note of bulk data. Those who send and receive it do not wait for single frames, and
    /// on a machine with few CPUs they are who a worker that looks for work would take time from.
    pub(crate) fn bulk(&mut self) {
        self.window = Duration::ZERO;
        self.since = None;
    }

    /// Takes note of how long a sleep was, and whether there was work after it.
    pub(crate) fn slept(&mut self, time: Duration, work: bool) {
        if work && time <= self.max {
            self.window = (2 * self.window).max(FIRST).min(self.max);
        } else if self.window > FIRST {
            self.window /= 2;
        } else {
            self.window = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn no_polling_unless_it_is_allowed() {
        let mut p = Polling::new(Duration::ZERO);
        p.slept(Duration::ZERO, true);
        assert!(!p.is_on());
        assert_eq!(p.next(true, Instant::now()), Next::Sleep);
    }

    #[test]
    fn the_window_grows_while_sleeps_are_short_and_shrinks_else() {
        let mut p = Polling::new(us(50));
        for window in [4, 8, 16, 32, 50, 50] {
            p.slept(us(30), true);
            assert_eq!(p.window, us(window));
        }
        for (time, work, window) in [(51, true, 25_000), (30, false, 12_500), (999, true, 6_250)] {
            p.slept(us(time), work);
            assert_eq!(p.window, Duration::from_nanos(window));
        }
        p.slept(us(999), true);
        p.slept(us(999), true);
        assert!(!p.is_on());
    }

    #[test]
    fn bulk_data_ends_polling() {
        let mut p = Polling::new(us(1000));
        for _ in 0..20 {
            p.slept(us(30), true);
        }
        let now = Instant::now();
        assert_eq!(p.next(true, now), Next::Look);
        p.bulk();
        assert_eq!(p.next(true, now + us(1)), Next::Sleep);
        assert!(!p.is_on());
    }

    #[test]
    fn a_look_that_comes_late_ends_polling() {
        let mut p = Polling::new(us(1000));
        for _ in 0..20 {
            p.slept(us(30), true);
        }
        let now = Instant::now();
        assert_eq!(p.next(true, now), Next::Look);
        assert_eq!(p.next(false, now + us(90)), Next::Look);
        assert_eq!(p.next(false, now + us(200)), Next::Sleep);
        assert!(!p.is_on());
    }

    proptest! {
        /// Whatever happens, polling without work ends after the longest time that is allowed.
        #[test]
        fn polling_is_bounded(
            max in 0..200u64,
            sleeps in prop::collection::vec((0..300u64, any::<bool>()), 0..20),
            looks in prop::collection::vec(0..40u64, 0..40),
        ) {
            let mut p = Polling::new(us(max));
            for (time, work) in sleeps {
                p.slept(us(time), work);
                prop_assert!(p.window <= us(max));
            }
            let start = Instant::now();
            let mut now = start;
            let mut next = p.next(true, now);
            for pause in looks {
                if next == Next::Sleep {
                    break;
                }
                prop_assert!(now < start + us(max));
                now += us(pause);
                next = p.next(false, now);
            }
        }
    }
}
