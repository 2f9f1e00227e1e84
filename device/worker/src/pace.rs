// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Looking at the transmit ring by the clock instead of by doorbell.
//!
//! A doorbell costs the guest an exit and a message to this process: in an emulated guest that
//! sends small frames without pause, a third of its time. So while frames come one after the other,
//! the driver is not asked to ring; the worker looks again after a short time, and asks only when it
//! has looked in vain. What answers a received frame is not made to wait: in an exchange of requests
//! and responses the frames of the two directions alternate, and such a frame is followed by none
//! until the next one was received.

use std::time::{Duration, Instant};

/// So many frames without one received in between are a stream.
const STREAM_FRAMES: u64 = 4;
/// So many bytes in a round are part of one, whatever was received: a sender of bulk data gets
/// acknowledgements all the time.
const STREAM_BYTES: u64 = 8 * 1024;
/// Frames that are so many intervals apart do not belong together.
const APART: u32 = 4;

/// Decides how the driver's next frames are noticed.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// Frames sent since one was received.
    alone: u64,
    /// When frames were sent last.
    last: Option<Instant>,
    /// When the ring is looked at next, if no doorbell is asked for.
    until: Option<Instant>,
}

impl Pace {
    /// Looks after this time; with zero, never: there are doorbells only.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            alone: 0,
            last: None,
            until: None,
        }
    }

    /// Takes note of frames received.
    pub(crate) fn received(&mut self) {
        self.alone = 0;
    }

    /// Says what comes after a round that sent so much and left the ring empty: a time to look at
    /// it again, or `None` for a doorbell.
    pub(crate) fn sent(
        &mut self,
        frames: u64,
        bytes: u64,
        now: impl FnOnce() -> Instant,
    ) -> Option<Instant> {
        if self.interval.is_zero() {
            return None;
        }
        if frames == 0 {
            // Another round than the one that was waited for, if it is too early.
            let until = self.until.take()?;
            self.until = (now() < until).then_some(until);
            return self.until;
        }
        self.alone = self.alone.saturating_add(frames);
        let now = now();
        let close = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < APART * self.interval);
        self.last = Some(now);
        let streams = close && (self.alone >= STREAM_FRAMES || bytes >= STREAM_BYTES);
        self.until = streams.then(|| now + self.interval);
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_micros(50);

    struct Clock(Instant, Pace);

    impl Clock {
        fn new(interval: Duration) -> Self {
            Self(Instant::now(), Pace::new(interval))
        }

        /// A round this much later; true if it ends without a doorbell.
        fn round(&mut self, later: u64, frames: u64, bytes: u64) -> bool {
            self.0 += Duration::from_micros(later);
            let now = self.0;
            match self.1.sent(frames, bytes, || now) {
                Some(until) => {
                    assert!(until > now && until <= now + INTERVAL);
                    true
                }
                None => false,
            }
        }
    }

    #[test]
    fn a_stream_needs_no_doorbells_until_it_ends() {
        let mut clock = Clock::new(INTERVAL);
        let asked: Vec<_> = (0..6).map(|_| clock.round(20, 1, 64)).collect();
        assert_eq!(asked, [false, false, false, true, true, true]);
        // Another event than the clock.
        assert!(clock.round(20, 0, 0));
        assert!(clock.round(20, 3, 200));
        // A look in vain.
        assert!(!clock.round(50, 0, 0));
        assert!(!clock.round(10, 0, 0));
        // It begins again where frames come as close as before.
        assert!(clock.round(10, 1, 64));
        assert!(!clock.round(1000, 1, 64));
    }

    #[test]
    fn bulk_data_streams_though_it_is_acknowledged() {
        let mut clock = Clock::new(INTERVAL);
        assert!(!clock.round(0, 1, 60_000));
        for _ in 0..10 {
            clock.1.received();
            assert!(clock.round(100, 1, 60_000));
        }
    }

    #[test]
    fn what_answers_waits_for_nothing() {
        let mut clock = Clock::new(INTERVAL);
        for _ in 0..20 {
            assert!(!clock.round(30, 1, 98));
            clock.1.received();
            assert!(!clock.round(30, 0, 0));
        }
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut clock = Clock::new(Duration::ZERO);
        assert!((0..9).all(|_| !clock.round(1, 50, 60_000)));
    }
}
