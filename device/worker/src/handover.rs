// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Work for a pair that comes up in a thread which is not its worker.

use crate::gate::Gate;
use crate::kick::{Event, Kick};

/// What is left after a round that was served for the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing that the worker does not know of.
    Nothing,
    /// Something for the worker.
    Work,
}

/// Serves a round here and now if nobody is at it; else, or for what is left then, wakes the
/// worker. Never waits.
pub(crate) fn serve_or_kick<T, E: Event>(
    gate: &Gate<T>,
    kick: &Kick<E>,
    serve: impl FnOnce(&mut T) -> Rest,
) {
    let rest = match gate.try_lock() {
        Some(mut state) => serve(&mut state),
        // Whoever has the lock may be past its look at what came up.
        None => Rest::Work,
    };
    // With the lock let go, so that the worker does not wake to wait for it.
    if rest == Rest::Work {
        kick.kick();
    }
}
