// SPDX-License-Identifier: GPL-2.0

//! Counters that each CPU has a copy of.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::ptr::NonNull;
use kernel::prelude::*;

use crate::bindings as b;

/// `N` counters of 64 bits that any number of contexts may add to at a time.
///
/// Adding touches the copy of the CPU that it happens on, in one instruction, so there is neither a lock nor
/// a cache line that CPUs fight for; reading adds the copies up. For what is counted in one context
/// at a time, [`Counter`](crate::Counter) does the same with less.
///
/// # Invariants
///
/// The pointer is to an allocation of `N` numbers for each CPU that there may be.
///
/// Adding and reading may be done in any context; making and dropping it in process context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/counters.rs
/// pub(crate) fn add(&self, count: Count, n: u64) {
///     self.0.add(count as usize, n);
/// }
/// ```
pub struct CpuCounters<const N: usize>(NonNull<u64>);

// SAFETY: made for concurrent use.
unsafe impl<const N: usize> Send for CpuCounters<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for CpuCounters<N> {}

impl<const N: usize> CpuCounters<N> {
    /// Counters at zero. May sleep.
    pub fn new() -> Result<Self> {
        // SAFETY: no preconditions.
        let base = unsafe { b::nd_percpu_alloc(N) };
        Ok(Self(NonNull::new(base).ok_or(ENOMEM)?))
    }

    /// Adds to a counter, of those that there are. Any context.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        if index < N {
            // SAFETY: the memory holds `N` counters a CPU.
            unsafe { b::nd_percpu_add(self.0.as_ptr(), index, n) }
        }
    }

    /// What was added to a counter, on all CPUs. While others add this is what it was at some time.
    pub fn sum(&self, index: usize) -> u64 {
        if index < N {
            // SAFETY: as for `add`.
            unsafe { b::nd_percpu_sum(self.0.as_ptr(), index) }
        } else {
            0
        }
    }
}

impl<const N: usize> Drop for CpuCounters<N> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, and owned.
        unsafe { b::nd_percpu_free(self.0.as_ptr()) }
    }
}
