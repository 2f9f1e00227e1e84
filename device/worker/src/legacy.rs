// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a queue leaves to the next process that serves it.

use std::sync::Arc;

use vnet_queue::Progress;
use vnet_state::{Block, Cell, Intake, Memory};

/// Cells of the counters, in the order of [`crate::Counters`]. Those from 7 to 11 are [`Intake`]'s.
const AT: [usize; Legacy::COUNTERS] = [1, 2, 3, 4, 5, 6, 12];

/// The cells of one queue: its progress, then counters, then those of the backend's queue; see
/// [`Intake`]. New ones are added behind all of them.
#[derive(Clone, Debug)]
pub struct Legacy {
    progress: Cell,
    counters: [Cell; Legacy::COUNTERS],
    intake: Intake,
}

impl Legacy {
    pub(crate) const COUNTERS: usize = 7;

    /// What is left of the queue with this index; `None` if there cannot be one.
    pub fn new(memory: &Arc<Memory>, queue: usize) -> Option<Self> {
        let block = Block::new(memory, queue)?;
        Some(Self {
            progress: block.cell(0),
            counters: AT.map(|n| block.cell(n)),
            intake: Intake::new(memory, queue)?,
        })
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.progress.clone())
    }

    pub(crate) fn counters(&self) -> [u64; Self::COUNTERS] {
        std::array::from_fn(|n| self.counters[n].get())
    }

    pub(crate) fn add(&self, values: [u64; Self::COUNTERS]) {
        for (cell, value) in self.counters.iter().zip(values) {
            if value != 0 {
                cell.add(value);
            }
        }
    }

    pub(crate) fn count(&self, values: [u64; Self::COUNTERS]) {
        for (cell, value) in self.counters.iter().zip(values) {
            cell.set(value);
        }
    }
}
