// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Rates, and a token bucket for backends that limit one.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Shortest time that a bucket saves up for, so that a thread that wakes late loses nothing.
const LEAST_BURST: Duration = Duration::from_millis(5);
/// Fewest bytes that may go at once after a pause: a few of the largest frames.
const LEAST_BYTES: u64 = 256 * 1024;

/// Bits a second, written as a number with `k`, `M` or `G` behind it, or nothing: `100M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// `None` for no bits.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bits_per_second).map(Self)
    }

    /// How long so many bytes take.
    pub fn time(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0.get());
        // A bit a second and the longest frame: less than a week.
        Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
    }
}

/// What is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: bits a second are needed, such as 500k, 100M or 1G")]
pub struct BadRate(String);

const UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1000)];

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(s: &str) -> Result<Self, BadRate> {
        let unit = UNITS
            .iter()
            .find_map(|(name, unit)| Some((s.strip_suffix(*name)?, *unit)));
        let (number, unit) = unit.unwrap_or((s, 1));
        let bits = number.parse().ok().and_then(|n: u64| n.checked_mul(unit));
        bits.and_then(Self::new)
            .ok_or_else(|| BadRate(s.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.get();
        match UNITS.iter().find(|(_, unit)| bits.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", bits / unit),
            None => write!(f, "{bits}"),
        }
    }
}

/// So many bits a second. A frame may go while the bucket is not empty, and may take more than is
/// in it: then the next one waits for longer. So a frame of any length can go, and the rate holds.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    burst: Duration,
    /// When all that was spent will have been earned.
    earned: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            burst: rate.time(LEAST_BYTES).max(LEAST_BURST),
            earned: None,
        }
    }

    /// When the next frame may go; `None`: now.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        // A clock before the burst's length has not begun to run.
        let due = self.earned?.checked_sub(self.burst)?;
        (due > now).then_some(due)
    }

    /// Takes out what a frame of so many bytes costs.
    pub fn spend(&mut self, bytes: usize, now: Instant) {
        let from = self.earned.map_or(now, |earned| earned.max(now));
        self.earned = Some(from + self.rate.time(bytes as u64));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the frames are and whenever they come, over any time no more goes than the rate
        /// allows, the burst and one frame; and with enough of them no less.
        #[test]
        fn the_rate_holds(
            rate in 1_000u64..10_000_000_000,
            frames in prop::collection::vec((14usize..65_553, 0u64..2_000_000), 1..300),
        ) {
            let rate = Rate::new(rate).unwrap();
            let mut bucket = Bucket::new(rate);
            let start = Instant::now() + Duration::from_secs(100_000);
            let mut now = start;
            let (mut bytes, mut waited) = (0, false);
            for (len, pause) in frames {
                now += Duration::from_nanos(pause);
                if let Some(due) = bucket.due(now) {
                    prop_assert!(due > now);
                    now = due;
                    waited = true;
                }
                prop_assert_eq!(bucket.due(now), None);
                bucket.spend(len, now);
                bytes += len as u64;
                let allowed = now - start + bucket.burst;
                prop_assert!(rate.time(bytes - len as u64) <= allowed + Duration::from_micros(1));
            }
            // One that never waited was never short of tokens.
            prop_assert!(waited || rate.time(bytes) <= now - start + bucket.burst + rate.time(65_553));
        }
    }

    #[test]
    fn after_a_pause_a_burst_goes_at_once() {
        let mut bucket = Bucket::new("8M".parse().unwrap());
        let mut now = Instant::now() + Duration::from_secs(1000);
        for _ in 0..2 {
            let mut sent = 0;
            while bucket.due(now).is_none() {
                bucket.spend(1000, now);
                sent += 1;
            }
            // 256 KiB and one, at a megabyte a second.
            assert_eq!(sent, 263);
            assert!(bucket.due(now).unwrap() - now <= Duration::from_millis(1));
            now += Duration::from_secs(10);
        }
    }

    #[test]
    fn rates_are_written_as_they_are_read() {
        for text in ["1", "999", "500k", "100M", "1G", "2500M", "1001"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("1000k".parse::<Rate>(), "1M".parse());
        for bad in ["", "0", "0M", "M", "-1", "1.5G", "1m", "99999999999G"] {
            let error = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("is no rate"), "{error}");
        }
    }
}
