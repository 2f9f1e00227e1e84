// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The clock.

use rustix::time::{clock_gettime, ClockId};

/// Nanoseconds of `CLOCK_MONOTONIC`, which no one sets, and which the tracers of the kernel can be told to
/// use. Never zero.
#[inline]
pub fn now() -> u64 {
    nanos(ClockId::Monotonic).max(1)
}

/// What is to be added to [`now`] to get nanoseconds since 1970, as the system's clock has it now.
pub(crate) fn epoch() -> u64 {
    nanos(ClockId::Realtime).wrapping_sub(now())
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
