// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Limits of the process.

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
