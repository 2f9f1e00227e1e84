// SPDX-License-Identifier: GPL-2.0

//! The machine's CPUs.

use crate::bindings as b;

/// Number of CPUs that are online, at least one. It may change at any time.
pub fn online_cpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { b::nd_online_cpus() }
}
