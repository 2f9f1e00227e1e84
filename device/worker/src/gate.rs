// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A lock that passes to whoever waits.

use std::sync::{PoisonError, TryLockError};

use crate::sync::{Mutex, MutexGuard};

/// A mutex that its last owner cannot take again past somebody who waits for it.
///
/// The worker takes the lock for one batch after the other. With a plain mutex it would win every
/// race against a sleeping waiter, and the message thread could wait for as long as there is
/// traffic. Here a waiter keeps the turnstile while it waits, which the worker has to pass next.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    turnstile: Mutex<()>,
    inner: Mutex<T>,
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            turnstile: Mutex::new(()),
            inner: Mutex::new(value),
        }
    }

    /// Waits for at most the batch that runs now, and those of others who waited before.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Panics of a backend are caught while the lock is held, and leave a state that says so.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody has it or waits for it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let _turn = taken(self.turnstile.try_lock())?;
        taken(self.inner.try_lock())
    }
}

fn taken<G>(result: Result<G, TryLockError<G>>) -> Option<G> {
    match result {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn an_owner_in_a_loop_does_not_keep_others_out() {
        const TIMES: u64 = 200;
        let gate = Gate::new(());
        let stop = AtomicBool::new(false);
        let rounds = AtomicU64::new(0);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _guard = gate.lock();
                    // Busy, as a worker is.
                    let end = Instant::now() + Duration::from_micros(50);
                    while Instant::now() < end {}
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
            while rounds.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let mut seen = 0;
            for _ in 0..TIMES {
                // Long enough for the owner to have the lock again.
                std::thread::sleep(Duration::from_micros(500));
                let before = rounds.load(Ordering::Relaxed);
                drop(gate.lock());
                seen += rounds.load(Ordering::Relaxed) - before;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(
                seen <= 3 * TIMES,
                "{seen} rounds while waiting {TIMES} times"
            );
        });
    }

    #[test]
    fn try_lock_gives_way() {
        let gate = Gate::new(1);
        let held = gate.lock();
        assert!(gate.try_lock().is_none());
        drop(held);
        assert_eq!(gate.try_lock().map(|g| *g), Some(1));
    }
}
