// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which numbers of a stream have come.

/// How many of the last numbers are kept. A frame that so many later ones have overtaken is lost.
pub(crate) const WINDOW: u64 = 4096;
const WORDS: usize = (WINDOW / 64) as usize;

/// The last [`WINDOW`] numbers before `next`, and whether each has come.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    /// One more than the highest that has come.
    next: u64,
    /// The lowest. Those before it count as come, until one of them does.
    first: u64,
    /// Number `n` is bit `n % WINDOW`.
    come: [u64; WORDS],
}

/// What the arrival of a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is higher than all before. So many that were skipped before are lost now.
    Next {
        /// Frames.
        lost: u64,
    },
    /// A higher one came before (reordered, as RFC 4737 has it).
    Late,
    /// It came before.
    Duplicate,
    /// It is too old to tell: it was given up.
    Old,
}

impl Track {
    /// A stream whose first number is this, unless a lower one comes.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            next: first,
            first,
            come: [u64::MAX; WORDS],
        }
    }

    /// One more than the highest number that has come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The whole number that these are the low 32 bits of: the nearest to the highest so far.
    pub(crate) fn whole(&self, number: u32) -> Option<u64> {
        let ahead = number.wrapping_sub(self.next as u32) as i32;
        let whole = self.next.checked_add_signed(ahead.into());
        whole.filter(|number| *number < u64::MAX)
    }

    /// A number comes, one of [`Self::whole`].
    pub(crate) fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            let mut lost = self.advance(number);
            if !self.mark(number) {
                lost += 1;
            }
            self.next = number + 1;
            self.set(number);
            return Arrival::Next { lost };
        }
        if self.next - number > WINDOW {
            return Arrival::Old;
        }
        for earlier in number..self.first {
            self.come[word(earlier)] &= !bit(earlier);
        }
        self.first = self.first.min(number);
        if self.mark(number) {
            return Arrival::Duplicate;
        }
        self.set(number);
        Arrival::Late
    }

    /// Numbers that have not come, though they could: all that are counted as lost when the stream ends.
    pub(crate) fn missing(&self) -> u64 {
        self.come
            .iter()
            .map(|word| u64::from(word.count_zeros()))
            .sum()
    }

    /// Makes room for the numbers from `next` up to but without `number`, none of which has come. Returns
    /// how many are lost by that.
    fn advance(&mut self, number: u64) -> u64 {
        let skipped = number - self.next;
        let mut lost = 0;
        if skipped >= WINDOW {
            // All that are kept, and those that would have been kept in between.
            lost = self.missing() + (skipped - WINDOW);
            self.come = [0; WORDS];
            return lost;
        }
        for skipped in self.next..number {
            lost += u64::from(!self.mark(skipped));
            self.come[word(skipped)] &= !bit(skipped);
        }
        lost
    }

    fn mark(&self, number: u64) -> bool {
        self.come[word(number)] & bit(number) != 0
    }

    fn set(&mut self, number: u64) {
        self.come[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_grow_beyond_32_bits() {
        let mut track = Track::new(u64::from(u32::MAX) - 1);
        for number in [u32::MAX - 1, u32::MAX, 0, 1] {
            let whole = track.whole(number).unwrap();
            assert_eq!(track.arrive(whole), Arrival::Next { lost: 0 });
        }
        assert_eq!(track.whole(u32::MAX), Some(u64::from(u32::MAX)));
        assert_eq!(Track::new(0).whole(u32::MAX), None);
    }

    proptest! {
        /// Against a set of all that came. Steps are small, with a leap now and then.
        #[test]
        fn each_number_is_what_it_is(first in 0u64..9000, steps in prop::collection::vec(
            prop_oneof![20 => -40i64..60, 1 => -9000i64..9000], 1..400,
        )) {
            let mut track = Track::new(first);
            let mut came = BTreeSet::new();
            let (mut lost, mut next, mut lowest) = (0, first, first);
            let mut at = first as i64;
            for step in steps {
                at = (at + step).max(0);
                let number = at as u64;
                let arrival = track.arrive(number);
                let due = if number >= next {
                    Arrival::Next { lost: 0 }
                } else if next - number > WINDOW {
                    Arrival::Old
                } else if came.contains(&number) {
                    Arrival::Duplicate
                } else {
                    Arrival::Late
                };
                match arrival {
                    Arrival::Next { lost: more } => {
                        prop_assert_eq!(due, Arrival::Next { lost: 0 });
                        lost += more;
                    }
                    other => prop_assert_eq!(other, due),
                }
                next = next.max(number + 1);
                if arrival != Arrival::Old {
                    came.insert(number);
                    lowest = lowest.min(number);
                }
                // Each is lost, missing or has come.
                prop_assert_eq!(lost + track.missing() + came.len() as u64, next - lowest);
            }
        }
    }
}
