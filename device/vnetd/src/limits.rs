// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Limits of the process.

use std::fs;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Raises the number of descriptors to what the administrator allows. The usual limit is low for
/// the sake of `select`, which nothing here calls; a card needs one for each file of its client's
/// memory, each interrupt and each queue.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // The bounds on what a client can use fit the usual limit, too.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Keeps memory that is shared with others out of the core that a crash may leave: that is the guest's, which
/// is nothing for the disk of the host, and gigabytes. Stacks and the heap stay in.
pub(crate) fn leave_guests_out_of_cores() {
    const FILTER: &str = "/proc/self/coredump_filter";
    // core(5): without a file, with one, huge pages, DAX.
    const SHARED: u32 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 8;
    let filter = fs::read_to_string(FILTER).unwrap_or_default();
    // A kernel that leaves no cores has no such file.
    if let Ok(filter) = u32::from_str_radix(filter.trim_end(), 16) {
        let _ = fs::write(FILTER, format!("{:#x}", filter & !SHARED));
    }
}

/// Has this process, and those that it starts, leave no core. Who crashes holds what is theirs until that is
/// written, and nobody can go on meanwhile.
///
/// A limit of one, as that is all that a program hears to which the kernel gives cores; for a file it is too
/// short. Who wants one raises the limit of the process.
pub(crate) fn leave_no_core() {
    let limit = getrlimit(Resource::Core);
    let lowered = Rlimit {
        current: Some(1),
        ..limit
    };
    // Refused if it has to be zero, which is as good for a file.
    let _ = setrlimit(Resource::Core, lowered);
}
