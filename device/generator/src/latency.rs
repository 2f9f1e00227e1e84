// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How long frames were under way.

use std::time::Duration;

/// The first bucket is for times up to this power of two of nanoseconds: 1.024 us.
const FIRST: u32 = 10;
/// Buckets, each for twice the time of the one before, up to 8.6 s; and one for longer times.
const BUCKETS: usize = 25;

/// Times by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    nanoseconds: u64,
    longest: u64,
}

impl Latency {
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        let bits = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
        let bucket = (bits.saturating_sub(FIRST) as usize).min(BUCKETS - 1);
        self.buckets[bucket] += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
        self.longest = self.longest.max(nanoseconds);
    }

    /// Number of frames.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What they took together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The average; none of no frames.
    pub fn average(&self) -> Option<Duration> {
        let nanoseconds = self.nanoseconds.checked_div(self.count())?;
        Some(Duration::from_nanos(nanoseconds))
    }

    /// Each bucket: the longest time that it is for, `None` for any, and how many frames took no
    /// longer than that, but longer than the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(n, &count)| {
            let bound = (n + 1 < BUCKETS).then(|| Duration::from_nanos(1 << (FIRST as usize + n)));
            (bound, count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_put_where_they_belong() {
        let mut latency = Latency::default();
        assert_eq!(latency.average(), None);
        for nanoseconds in [0, 1024, 1025, 1 << 33, (1 << 33) + 1] {
            latency.add(nanoseconds);
        }
        let filled: Vec<_> = latency.buckets().filter(|(_, count)| *count > 0).collect();
        let ns = |n| Some(Duration::from_nanos(n));
        assert_eq!(
            filled,
            [(ns(1024), 2), (ns(2048), 1), (ns(1 << 33), 1), (None, 1)]
        );
        assert_eq!(latency.count(), 5);
        assert_eq!(latency.longest(), Duration::from_nanos((1 << 33) + 1));
    }
}
