// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What becomes of which frame.

use vnet_backend::mix;

use crate::config::{Lane, WHOLE};

/// The frames of one direction and queue, by number.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    seed: u64,
    frame: u64,
}

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) twice: bool,
    pub(crate) late: bool,
    /// Which part of the jitter it has, from 0 to 2^32: half of that is none.
    pub(crate) jitter: u32,
}

impl Chance {
    /// `lane` tells queues and directions apart.
    pub(crate) fn new(seed: u64, lane: u64) -> Self {
        Self {
            seed: mix(seed ^ mix(lane)),
            frame: 0,
        }
    }

    /// Counts from the first frame again.
    pub(crate) fn restart(&mut self) {
        self.frame = 0;
    }

    /// The fate of the next frame.
    pub(crate) fn next(&mut self, lane: &Lane) -> Fate {
        self.frame += 1;
        let number = |kind: u64| mix(self.seed ^ mix(self.frame * 4 + kind));
        let hit = |kind, parts| number(kind) % u64::from(WHOLE) < u64::from(parts);
        Fate {
            lost: hit(0, lane.loss),
            twice: hit(1, lane.duplicate),
            late: hit(2, lane.reorder),
            jitter: (number(3) >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, lane: u64) -> Vec<Fate> {
        let shares = Lane {
            loss: 100_000,
            duplicate: 10_000,
            reorder: 500_000,
            ..Lane::default()
        };
        let mut chance = Chance::new(seed, lane);
        (0..100_000).map(|_| chance.next(&shares)).collect()
    }

    #[test]
    fn shares_are_kept_and_kinds_are_independent() {
        let fates = fates(7, 0);
        let share = |is: fn(&Fate) -> bool| fates.iter().filter(|f| is(f)).count() as f64 / 1e5;
        // Five standard deviations.
        for (found, due) in [
            (share(|f| f.lost), 0.1),
            (share(|f| f.twice), 0.01),
            (share(|f| f.late), 0.5),
            (share(|f| f.lost && f.late), 0.05),
            (share(|f| f.jitter < 1 << 30), 0.25),
        ] {
            let deviation = 5.0 * (due * (1.0 - due) / 1e5_f64).sqrt();
            assert!((found - due).abs() < deviation, "{found} {due}");
        }
    }

    #[test]
    fn the_same_seed_is_the_same_fate() {
        assert_eq!(fates(7, 3), fates(7, 3));
        assert_ne!(fates(7, 3), fates(8, 3));
        assert_ne!(fates(7, 3), fates(7, 4));
    }
}
