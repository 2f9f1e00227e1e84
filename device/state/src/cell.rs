// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Single numbers.

use std::sync::atomic::{compiler_fence, AtomicU64, Ordering};
use std::sync::Arc;

use crate::memory::{Memory, CELLS_AT};

/// Blocks of cells; one for each queue that a card can have, and as many again.
pub const BLOCKS: usize = 64;
/// Cells of a block, of which a version may use some. All are zero at first.
pub const CELLS: usize = 16;

/// The block of the connection to the client, behind those of the queues.
pub const SESSION: usize = 32;

const WORD: usize = size_of::<u64>();
pub(crate) const CELLS_SIZE: usize = BLOCKS * CELLS * WORD;

/// The cells of one queue, on cache lines of their own.
#[derive(Clone, Debug)]
pub struct Block {
    memory: Arc<Memory>,
    at: usize,
}

impl Block {
    /// The block with this index; `None` from [`BLOCKS`] on.
    pub fn new(memory: &Arc<Memory>, index: usize) -> Option<Self> {
        (index < BLOCKS).then(|| Self {
            memory: Arc::clone(memory),
            at: CELLS_AT + index * CELLS * WORD,
        })
    }

    /// The cell with this index.
    ///
    /// # Panics
    ///
    /// If it is not below [`CELLS`].
    pub fn cell(&self, index: usize) -> Cell {
        Cell {
            memory: Arc::clone(&self.memory),
            at: self.offset(index),
        }
    }

    /// Where in the memory that is.
    pub(crate) fn offset(&self, index: usize) -> usize {
        assert!(index < CELLS);
        self.at + index * WORD
    }
}

/// One number.
#[derive(Clone, Debug)]
pub struct Cell {
    memory: Arc<Memory>,
    at: usize,
}

impl Cell {
    /// Reads it.
    pub fn get(&self) -> u64 {
        self.word().load(Ordering::Acquire)
    }

    /// Writes it, after all that was written before: not even a process that is killed in between
    /// leaves the number without that.
    #[inline]
    pub fn set(&self, value: u64) {
        self.word().store(value, Ordering::Release);
    }

    /// Adds to it, also while somebody else does.
    #[inline]
    pub fn add(&self, n: u64) {
        self.word().fetch_add(n, Ordering::Release);
    }

    /// Writes it, before all that is written from then on, in the same sense.
    #[inline]
    pub fn set_first(&self, value: u64) {
        self.set(value);
        // Only the compiler could turn them round: a process is killed between two instructions.
        compiler_fence(Ordering::SeqCst);
    }

    fn word(&self) -> &AtomicU64 {
        self.memory.word(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_its_own() {
        let memory = Memory::create().unwrap();
        let cells: Vec<_> = (0..BLOCKS)
            .flat_map(|b| (0..CELLS).map(move |c| (b, c)))
            .map(|(b, c)| Block::new(&memory, b).unwrap().cell(c))
            .collect();
        for (cell, n) in cells.iter().zip(1..) {
            assert_eq!(cell.get(), 0);
            cell.set(n);
        }
        for (cell, n) in cells.iter().zip(1..) {
            assert_eq!(cell.get(), n);
        }
        assert!(Block::new(&memory, BLOCKS).is_none());
    }
}
