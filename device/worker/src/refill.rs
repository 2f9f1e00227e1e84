// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Waiting for buffers by the clock instead of by doorbell.
//!
//! When frames come faster than the driver deals with them, all of its buffers are filled, and
//! those that it posts again are used up before the next come: each time it would be asked to ring,
//! for buffers that nobody is in a hurry for, since it has a whole ring of frames to work on. So it
//! is asked to ring when it has posted many, and the worker's alarm has the ring looked at in
//! between. A driver that posts only a few is found by the clock, and when the worker has looked in
//! vain for a while, the next buffer rings.

use std::time::{Duration, Instant};

/// When the ring is looked at after it was found dry; each look in vain doubles it.
const FIRST: Duration = Duration::from_micros(250);
/// So many looks in vain, and the worker relies on the doorbell.
const LOOKS: u32 = 3;

/// Decides how the driver's next buffers are noticed.
#[derive(Debug, Default)]
pub(crate) struct Refill {
    /// When the ring is looked at next.
    until: Option<Instant>,
    /// Looks in vain.
    looks: u32,
}

impl Refill {
    /// Takes note of frames that found buffers.
    pub(crate) fn received(&mut self) {
        *self = Self::default();
    }

    /// The ring is dry. Says when to look again, or `None` for a doorbell with the next buffer.
    pub(crate) fn dry(&mut self, now: Instant) -> Option<Instant> {
        match self.until {
            // Another round than the one that was waited for.
            Some(until) if now < until => {}
            _ if self.looks == LOOKS => self.until = None,
            _ => {
                self.until = Some(now + FIRST * (1 << self.looks));
                self.looks += 1;
            }
        }
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_end_in_a_doorbell() {
        let mut refill = Refill::default();
        let mut now = Instant::now();
        let start = now;
        let mut looks = 0;
        while let Some(until) = refill.dry(now) {
            // Another event than the clock changes nothing.
            assert_eq!(refill.dry(until - Duration::from_micros(1)), Some(until));
            (now, looks) = (until, looks + 1);
        }
        assert_eq!((looks, now - start), (LOOKS, 7 * FIRST));
        assert_eq!(refill.dry(now + FIRST), None);
        refill.received();
        assert_eq!(refill.dry(now), Some(now + FIRST));
    }
}
