// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Counters of a queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use vnet_queue::{Outcome, RingConfig};

use crate::drops::{DropCounters, Drops, Reason};
use crate::legacy::Legacy;
use crate::times::{Histogram, Times};

/// The counters of one queue, as the `QUEUE_STATS` registers show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames carried; of transmitted ones, those that the backend took.
    pub frames: u64,
    /// Bytes carried, without per-packet headers.
    pub bytes: u64,
    /// Frames of this queue that the card dropped or the backend lost.
    pub drops: u64,
    /// Times the queue stopped with an error.
    pub errors: u64,
    /// Doorbells received.
    pub doorbells: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Those of the drops that were for want of buffers.
    pub missed: u64,
}

impl From<[u64; Legacy::COUNTERS]> for Counters {
    fn from(all: [u64; Legacy::COUNTERS]) -> Self {
        let [frames, bytes, drops, errors, doorbells, interrupts, missed] = all;
        Self {
            frames,
            bytes,
            drops,
            errors,
            doorbells,
            interrupts,
            missed,
        }
    }
}

impl From<Counters> for [u64; Legacy::COUNTERS] {
    fn from(all: Counters) -> Self {
        let Counters {
            frames,
            bytes,
            drops,
            errors,
            doorbells,
            interrupts,
            missed,
        } = all;
        [frames, bytes, drops, errors, doorbells, interrupts, missed]
    }
}

/// The counters as the worker keeps them: changed once a batch, read at any time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    frames: AtomicU64,
    bytes: AtomicU64,
    drops: AtomicU64,
    errors: AtomicU64,
    doorbells: AtomicU64,
    interrupts: AtomicU64,
    missed: AtomicU64,
    /// The drops by reason; never cleared.
    reasons: DropCounters,
    /// How long batches take, from when somebody wants to know.
    times: OnceLock<Box<Histogram>>,
    /// Where the ring is, while the queue is started, for those who look on.
    ring: Mutex<Option<RingConfig>>,
    /// What they came to before they were last cleared. Both who clears them and who adds them up
    /// has it locked; who counts does not.
    before: Mutex<[u64; Legacy::COUNTERS]>,
    /// Where a process that takes over finds them.
    legacy: OnceLock<Legacy>,
}

impl Tally {
    /// Goes on from where the last process was, and leaves the counters to the next.
    pub(crate) fn inherit(&self, legacy: Legacy) {
        for (counter, value) in self.all().into_iter().zip(legacy.counters()) {
            counter.store(value, Ordering::Relaxed);
        }
        // The counters are those of the last batch that was finished; this is more exact.
        let progress = legacy.progress();
        match progress.frames() {
            Some(frames) => self.frames.store(frames, Ordering::Relaxed),
            None => {
                let frames = self.frames.load(Ordering::Relaxed);
                progress.count_from(frames);
                // Nor did that version know what was taken.
                let settled = frames + self.drops.load(Ordering::Relaxed);
                if legacy.intake().is_kept() {
                    legacy.intake().restart(settled);
                }
            }
        }
        legacy.intake().take();
        legacy.count(self.read().into());
        // Called once, before anything counts.
        let _ = self.legacy.set(legacy);
    }

    /// How many frames this queue has taken from the backend, and what became of frames here: so many
    /// were carried or dropped. `None` if the backend does not count.
    pub(crate) fn balance(&self) -> Option<(u64, u64)> {
        let legacy = self.legacy.get().filter(|l| l.intake().is_kept())?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let settled = load(&self.frames).wrapping_add(load(&self.drops));
        Some((legacy.intake().count(), settled))
    }

    pub(crate) fn legacy(&self) -> Option<&Legacy> {
        self.legacy.get()
    }

    fn all(&self) -> [&AtomicU64; Legacy::COUNTERS] {
        [
            &self.frames,
            &self.bytes,
            &self.drops,
            &self.errors,
            &self.doorbells,
            &self.interrupts,
            &self.missed,
        ]
    }

    /// Adds to the counters, here and for the next process. There, too, each is added to: the message thread
    /// and the worker count at the same time, and neither may put back what the other has changed.
    #[inline]
    fn add(&self, more: Counters) {
        let more = <[u64; Legacy::COUNTERS]>::from(more);
        for (counter, n) in self.all().into_iter().zip(more) {
            if n != 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
        if let Some(legacy) = self.legacy.get() {
            legacy.add(more);
        }
    }

    /// Adds what a batch did. If it dropped frames, this is why.
    pub(crate) fn batch(&self, outcome: &Outcome, why: Reason) {
        if outcome.drops != 0 {
            self.reasons.add(why, outcome.drops);
        }
        self.add(Counters {
            frames: outcome.frames,
            bytes: outcome.bytes,
            drops: outcome.drops,
            ..Counters::default()
        });
    }

    /// Adds frames that were lost before or after a batch had them.
    pub(crate) fn lost(&self, frames: u64, why: Reason) {
        if frames != 0 {
            self.reasons.add(why, frames);
            self.add(Counters {
                drops: frames,
                ..Counters::default()
            });
        }
    }

    /// Adds frames that were lost for want of buffers.
    pub(crate) fn missed(&self, frames: u64) {
        if frames != 0 {
            self.reasons.add(Reason::NoBuffers, frames);
            self.add(Counters {
                drops: frames,
                missed: frames,
                ..Counters::default()
            });
        }
    }

    /// From now on, batches are timed.
    pub(crate) fn measure(&self) {
        self.times.get_or_init(Box::default);
    }

    /// A batch begins.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.times.get().map(|_| Instant::now())
    }

    /// A batch that began like this has moved something.
    #[inline]
    pub(crate) fn end(&self, begun: Option<Instant>) {
        if let (Some(begun), Some(times)) = (begun, self.times.get()) {
            times.add(begun.elapsed());
        }
    }

    /// How long batches took; `None` if nobody wanted to know.
    pub(crate) fn times(&self) -> Option<Times> {
        self.times.get().map(|times| times.read())
    }

    /// The drops by reason.
    pub(crate) fn reasons(&self) -> Drops {
        self.reasons.read()
    }

    /// Says where the ring is, or that there is none.
    pub(crate) fn set_ring(&self, ring: Option<RingConfig>) {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    pub(crate) fn ring(&self) -> Option<RingConfig> {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self) {
        self.add(Counters {
            errors: 1,
            ..Counters::default()
        });
    }

    pub(crate) fn doorbell(&self) {
        self.add(Counters {
            doorbells: 1,
            ..Counters::default()
        });
    }

    pub(crate) fn interrupt(&self) {
        self.add(Counters {
            interrupts: 1,
            ..Counters::default()
        });
    }

    /// Since they were last cleared.
    pub(crate) fn read(&self) -> Counters {
        Counters::from(self.all().map(|counter| counter.load(Ordering::Relaxed)))
    }

    /// Since the queue was made.
    pub(crate) fn totals(&self) -> Counters {
        // Locked until the end, so that nothing counts twice or not at all.
        let before = self.before();
        let mut sum = *before;
        for (sum, counter) in sum.iter_mut().zip(self.all()) {
            *sum += counter.load(Ordering::Relaxed);
        }
        drop(before);
        Counters::from(sum)
    }

    /// Clears them, between two batches.
    pub(crate) fn reset(&self) {
        // First what was taken: a process that dies in between must not leave frames that were settled as
        // lost.
        if let Some(legacy) = self.legacy.get().filter(|l| l.intake().is_kept()) {
            legacy.intake().restart(0);
        }
        let mut before = self.before();
        for (before, counter) in before.iter_mut().zip(self.all()) {
            *before += counter.swap(0, Ordering::Relaxed);
        }
        drop(before);
        if let Some(legacy) = self.legacy.get() {
            legacy.count([0; Legacy::COUNTERS]);
            legacy.progress().count_from(0);
        }
    }

    fn before(&self) -> MutexGuard<'_, [u64; Legacy::COUNTERS]> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;
    use vnet_state::Memory;

    #[test]
    fn two_threads_that_count_leave_both_to_the_next_process() {
        const COUNT: u64 = 1_000_000;
        let memory = Memory::create().unwrap();
        let legacy = Legacy::new(&memory, 1).unwrap();
        let tally = Tally::default();
        tally.inherit(legacy.clone());
        let left = || Counters::from(legacy.counters());
        thread::scope(|scope| {
            let other = scope.spawn(|| (0..COUNT).for_each(|_| tally.doorbell()));
            for n in 1.. {
                tally.interrupt();
                assert_eq!(left().interrupts, n);
                if other.is_finished() {
                    break;
                }
            }
        });
        assert_eq!(left(), tally.read());
        tally.reset();
        assert_eq!(left(), Counters::default());
    }
}
