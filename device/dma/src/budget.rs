// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the cards of a process share.
//!
//! Memory areas and descriptors belong to the process. A client that could use them all up, or some that
//! do so together, would make the next allocation fail, and with it every card.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is in use of something that there is only so much of.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self {
            taken: AtomicUsize::new(0),
        }
    }

    /// Takes one unless there are so many already.
    pub(crate) fn take(&'static self, most: usize) -> Option<Taken> {
        let more = |taken| (taken < most).then_some(taken + 1);
        // Nothing is read on the strength of the count.
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Taken(self))
    }
}

/// One that was taken, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken(&'static Budget);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        static TWO: Budget = Budget::new();
        let first = TWO.take(2).unwrap();
        let _second = TWO.take(2).unwrap();
        assert!(TWO.take(2).is_none());
        assert!(TWO.take(3).is_some());
        drop(first);
        assert!(TWO.take(2).is_some());
    }
}
