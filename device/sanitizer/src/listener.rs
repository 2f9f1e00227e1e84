// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Who wants to hear of each finding when it is found.

use std::fmt;

use crate::Finding;

/// Hears of each finding, also of those that are not kept. Called by whoever finds it, who holds the lock of a
/// queue pair: it must not wait.
pub struct Listener(Box<dyn Fn(&Finding) + Send + Sync>);

impl Listener {
    /// Has this called.
    pub fn new(hear: impl Fn(&Finding) + Send + Sync + 'static) -> Self {
        Self(Box::new(hear))
    }

    pub(crate) fn hear(&self, finding: &Finding) {
        (self.0)(finding);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
