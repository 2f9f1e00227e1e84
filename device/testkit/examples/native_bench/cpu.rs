// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which core does what.

use rustix::thread::{sched_setaffinity, CpuSet};

/// The core of the driver.
pub(crate) const DRIVER: usize = 0;
/// The core of the server.
pub(crate) const SERVER: usize = 1;

/// Binds the calling thread, and what it starts from now on, to a core. A machine without that
/// core goes without.
pub(crate) fn bind(core: usize) {
    allow(&[core]);
}

/// Lets the calling thread run on both cores again.
pub(crate) fn unbind() {
    allow(&[DRIVER, SERVER]);
}

fn allow(cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    let _ = sched_setaffinity(None, &set);
}
