// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the cards of a process share, and a card's part of that.
//!
//! Memory areas, addresses and descriptors belong to the process. A client that could use them all up, or some that
//! do so together, would make the next allocation fail, and with it every card.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is in use of something that there is only so much of.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    taken: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self {
            taken: AtomicUsize::new(0),
        }
    }

    /// Takes so many, unless it were more than `most` then.
    pub(crate) fn take<B>(budget: B, count: usize, most: usize) -> Option<Taken<B>>
    where
        B: Deref<Target = Self>,
    {
        let more = |taken: usize| taken.checked_add(count).filter(|&taken| taken <= most);
        // Nothing is read on the strength of the count.
        let taken = budget
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Taken { budget, count })
    }
}

/// What was taken, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken<B: Deref<Target = Budget> = &'static Budget> {
    budget: B,
    count: usize,
}

impl<B: Deref<Target = Budget>> Drop for Taken<B> {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        static SOME: Budget = Budget::new();
        let first = Budget::take(&SOME, 2, 3).unwrap();
        let _second = Budget::take(&SOME, 1, 3).unwrap();
        assert!(Budget::take(&SOME, 1, 3).is_none());
        assert!(Budget::take(&SOME, usize::MAX, usize::MAX).is_none());
        assert!(Budget::take(&SOME, 1, 4).is_some());
        drop(first);
        assert!(Budget::take(&SOME, 2, 3).is_some());
    }
}
