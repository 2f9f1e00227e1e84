// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How long batches take, once somebody has asked for that.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Shortest time that has a bucket of its own, as a power of two of nanoseconds: 1.024 us.
const FIRST: u32 = 10;
/// Buckets, each for twice the time of the one before, up to 8.4 ms; and one for longer times.
const BUCKETS: usize = 15;

/// Times by size, as the worker keeps them: changed once a batch, read at any time.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

/// How many batches took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    buckets: [u64; BUCKETS],
    /// What they took together.
    pub sum: Duration,
}

impl Histogram {
    pub(crate) fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    pub(crate) fn read(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|n| self.buckets[n].load(Relaxed)),
            sum: Duration::from_nanos(self.nanoseconds.load(Relaxed)),
        }
    }
}

/// The first bucket whose bound is no less than this.
fn bucket(nanoseconds: u64) -> usize {
    let bits = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(FIRST) as usize).min(BUCKETS - 1)
}

impl Times {
    /// Each bucket: the longest time that it is for, `None` for any, and how many batches took no
    /// longer than that, but longer than the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(n, &count)| {
            let bound = (n + 1 < BUCKETS).then(|| Duration::from_nanos(1 << (FIRST as usize + n)));
            (bound, count)
        })
    }

    /// Number of batches.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_are_put_where_they_belong() {
        let us = |n| Duration::from_micros(n);
        let histogram = Histogram::default();
        let all = [
            Duration::ZERO,
            Duration::from_nanos(1024),
            Duration::from_nanos(1025),
            us(8388),
            us(9000),
            Duration::MAX,
        ];
        // The last one would be too long for the sum, and is for another histogram.
        all[..5].iter().for_each(|&time| histogram.add(time));
        let times = histogram.read();
        assert_eq!(times.count(), 5);
        assert_eq!(times.sum, all[..5].iter().sum::<Duration>());
        let filled: Vec<_> = times.buckets().filter(|&(_, count)| count > 0).collect();
        let ns = |n| Some(Duration::from_nanos(n));
        assert_eq!(
            filled,
            [(ns(1024), 2), (ns(2048), 1), (ns(1 << 23), 1), (None, 1)]
        );
        let histogram = Histogram::default();
        histogram.add(Duration::MAX);
        assert_eq!(histogram.read().buckets().last(), Some((None, 1)));
    }
}
