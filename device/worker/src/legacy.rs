// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a queue leaves to the next process that serves it.

use vnet_queue::Progress;
use vnet_state::{Block, Cell};

/// The cells of one queue: its progress, then its counters. New ones are added behind these.
#[derive(Clone, Debug)]
pub struct Legacy {
    progress: Cell,
    counters: [Cell; Legacy::COUNTERS],
}

impl Legacy {
    pub(crate) const COUNTERS: usize = 6;

    /// What is left in this block.
    pub fn new(block: &Block) -> Self {
        Self {
            progress: block.cell(0),
            counters: std::array::from_fn(|n| block.cell(1 + n)),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.progress.clone())
    }

    pub(crate) fn counters(&self) -> [u64; Self::COUNTERS] {
        std::array::from_fn(|n| self.counters[n].get())
    }

    pub(crate) fn count(&self, values: [u64; Self::COUNTERS]) {
        for (cell, value) in self.counters.iter().zip(values) {
            cell.set(value);
        }
    }
}
