// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Another backend in the place of the one that a pair has, while it runs.
//!
//! The queue changes under the lock, between two rounds. What the worker thread has of the old one
//! beside the lock (a descriptor to sleep on, the way to detach it) it gives back when it comes by,
//! at once; [`Replaced::settle`] waits for that, so that the old backend is gone when it returns.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

use vnet_backend::Queue;

use crate::drops::Reason;
use crate::pair::Pair;
use crate::shared::Shared;
use crate::thread::Wiring;
use crate::unplugged::leftovers;

/// A backend's queue that can take the place of another: nothing can go wrong any more.
pub struct Replacement {
    queue: Box<dyn Queue>,
    wiring: Wiring,
}

impl Replacement {
    /// Gets everything that the worker thread will need.
    pub fn new(queue: Box<dyn Queue>) -> io::Result<Self> {
        let wiring = Wiring::new(queue.as_ref())?;
        Ok(Self { queue, wiring })
    }
}

/// What the worker thread is to use from now on.
pub(crate) struct Rewire {
    pub(crate) wiring: Wiring,
    /// Dropped when it does.
    pub(crate) done: Sender<()>,
}

/// The queue that was there before.
pub struct Replaced {
    queue: Box<dyn Queue>,
    shared: Arc<Shared>,
    rewired: Receiver<()>,
}

impl Replaced {
    /// Ends the old queue. Frames that it still had for the driver are lost, and counted as drops of
    /// the receive queue; returns their number. Waits so long for the worker thread to let go.
    pub fn settle(self, patience: Duration) -> u64 {
        let Self {
            mut queue,
            shared,
            rewired,
        } = self;
        let left = catch_unwind(AssertUnwindSafe(|| leftovers(queue.as_mut())));
        let left = left.unwrap_or(0);
        shared.tallies.rx.lost(left, Reason::Backend);
        drop(queue);
        // Nothing is ever sent: this is the end, or the end of patience.
        match rewired.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => left,
        }
    }
}

impl Pair {
    /// Puts another queue in the place of the backend's, from the next round on. Frames that the
    /// driver has sent and nobody has taken yet go to the new one.
    ///
    /// A pair whose backend failed stays so until it is reset.
    pub fn replace(&mut self, new: Replacement) -> Replaced {
        let Replacement { queue, wiring } = new;
        self.set_shared_backend(queue.is_shared());
        let (done, rewired) = channel();
        let mut state = self.shared().gate.lock();
        let queue = state.change_backend(queue, &self.shared().tallies);
        state.rewire = Some(Rewire { wiring, done });
        drop(state);
        self.wake();
        Replaced {
            queue,
            shared: Arc::clone(self.shared()),
            rewired,
        }
    }

    /// Puts something around the backend's queue that is otherwise the same: its descriptor, and
    /// whether it is shared, stay as they are.
    pub fn wrap(&self, wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue>) {
        self.shared().gate.lock().wrap_backend(wrap);
    }
}
