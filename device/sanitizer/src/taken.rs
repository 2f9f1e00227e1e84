// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Memory that was taken from the card.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Ranges that are remembered. With an IOMMU each buffer may be one, so that it is the latest that
/// count.
const MOST: usize = 256;

/// Ranges that the card had and does not have now, the latest last; no two share an address.
#[derive(Debug, Default)]
pub(crate) struct Taken(VecDeque<RangeInclusive<u64>>);

impl Taken {
    /// A range is taken that was given whole.
    pub(crate) fn add(&mut self, range: RangeInclusive<u64>) {
        self.0.push_back(range);
        self.forget();
    }

    /// A range is given, which may be a part of those that were taken.
    pub(crate) fn give_back(&mut self, range: RangeInclusive<u64>) {
        let (first, last) = range.into_inner();
        let outside = |old: RangeInclusive<u64>| {
            let (a, b) = old.into_inner();
            let before = first.checked_sub(1).map(|end| a..=b.min(end));
            let behind = last.checked_add(1).map(|start| a.max(start)..=b);
            [before, behind].into_iter().flatten()
        };
        let old = std::mem::take(&mut self.0);
        let left = old.into_iter().flat_map(outside);
        self.0 = left.filter(|range| !range.is_empty()).collect();
        self.forget();
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn forget(&mut self) {
        let more = self.0.len().saturating_sub(MOST);
        self.0.drain(..more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ranges: &[RangeInclusive<u64>]) -> Taken {
        let mut taken = Taken::default();
        ranges.iter().cloned().for_each(|range| taken.add(range));
        taken
    }

    #[test]
    fn what_was_taken_is_remembered() {
        let taken = taken(&[0x1000..=0x1fff, u64::MAX..=u64::MAX]);
        assert!([0x1000, 0x1fff, u64::MAX]
            .iter()
            .all(|&at| taken.contains(at)));
        assert!(![0, 0xfff, 0x2000, u64::MAX - 1]
            .iter()
            .any(|&at| taken.contains(at)));
    }

    #[test]
    fn what_is_given_again_is_not_taken() {
        for (given, left) in [
            (0..=9, vec![10..=19, 30..=39]),
            (0..=u64::MAX, vec![]),
            (10..=19, vec![30..=39]),
            (12..=13, vec![10..=11, 14..=19, 30..=39]),
            (15..=34, vec![10..=14, 35..=39]),
            (19..=29, vec![10..=18, 30..=39]),
            (39..=u64::MAX, vec![10..=19, 30..=38]),
        ] {
            let mut taken = taken(&[10..=19, 30..=39]);
            taken.give_back(given.clone());
            assert_eq!(taken.0, left, "{given:?}");
        }
        let mut all = taken(&[0..=u64::MAX]);
        all.give_back(0..=0);
        all.give_back(u64::MAX..=u64::MAX);
        assert_eq!(all.0, [1..=u64::MAX - 1]);
    }

    #[test]
    fn the_latest_are_remembered() {
        let mut taken = Taken::default();
        let most = MOST as u64;
        (0..=most).for_each(|n| taken.add(3 * n..=3 * n + 2));
        assert!(!taken.contains(2) && taken.contains(3));
        // Two are left of one.
        taken.give_back(3 * most + 1..=3 * most + 1);
        assert_eq!(taken.0.len(), MOST);
        assert!(!taken.contains(5) && taken.contains(6) && taken.contains(3 * most + 2));
    }
}
