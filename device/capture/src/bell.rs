// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! When the doorbell rang last.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::now;

/// The doorbell of one queue, as whoever takes it from the bus tells the recorder, who may be at work.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Somebody wants to know.
    heard: AtomicBool,
    /// When it rang first since it was last looked at; 0: it did not.
    at: AtomicU64,
}

impl Bell {
    /// It rings. Costs a load while nobody listens.
    #[inline]
    pub fn ring(&self) {
        // Relaxed: a time, and no more.
        if self.0.heard.load(Ordering::Relaxed) {
            let _ = self
                .0
                .at
                .compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(crate) fn listen(&self, heard: bool) {
        self.0.at.store(0, Ordering::Relaxed);
        self.0.heard.store(heard, Ordering::Relaxed);
    }

    /// When it rang first since the last call; 0: it did not.
    pub(crate) fn take(&self) -> u64 {
        match self.0.at.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.at.swap(0, Ordering::Relaxed),
        }
    }
}
