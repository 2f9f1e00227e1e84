// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How far a queue is, for the next process that serves it.
//!
//! Chains are used in the order in which they are made available, so the used index in guest memory
//! says almost everything: chains beyond it are the card's, and are taken up again. What it does not
//! say is which of those are done with, but not shown to the driver yet. A batch is shown as a
//! whole, and a process that dies before that must not have its frames sent again, or lose those
//! that were received. So the index of what is done is kept frame by frame.
//!
//! Of a frame that is handed to the backend when the process dies, nobody can tell whether it left.
//! It counts as done, and as dropped: networks lose frames, but do not double them.
//!
//! The same store counts the frames that were carried, so that the count is right at any instruction.

use vnet_state::Cell;

/// The used index that the queue would show now, whether the last entry before it is in doubt, and
/// the number of frames that were carried.
#[derive(Clone, Debug)]
pub struct Progress(Cell);

/// The last entry before the index is in doubt.
const IN_HAND: u64 = 1 << 16;
/// Frames are counted. Versions that do not count them leave zeros from here on.
const COUNTED: u64 = 1 << 17;
/// Where the number of frames begins, which has so many bits less than the cell.
const FRAMES: u32 = 18;

/// What the last process left unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Chains that were done with, and that the driver was shown now.
    pub shown: u16,
    /// Frames among them that were dropped, since they may have left or not. One at most.
    pub dropped: u16,
}

impl Progress {
    /// Progress that is kept in this cell.
    pub fn new(cell: Cell) -> Self {
        Self(cell)
    }

    /// All entries before `index` are done with, and with that so many more frames were carried.
    #[inline]
    pub(crate) fn done(&self, index: u16, frames: u64) {
        let count = self.0.get() >> FRAMES;
        let count = count.wrapping_add(frames) << FRAMES;
        self.0.set(u64::from(index) | COUNTED | count);
    }

    /// The entry before `index` is on its way, all before that are done with.
    #[inline]
    pub(crate) fn in_hand(&self, index: u16) {
        let count = self.0.get() >> FRAMES << FRAMES;
        self.0.set(u64::from(index) | IN_HAND | COUNTED | count);
    }

    /// Frames that were carried; `None` if the last process did not count them.
    pub fn frames(&self) -> Option<u64> {
        let value = self.0.get();
        (value & COUNTED != 0).then_some(value >> FRAMES)
    }

    /// Counts frames from here on. What the cell says of the index stays.
    pub fn count_from(&self, frames: u64) {
        let index = self.0.get() & (COUNTED - 1);
        self.0.set(index | COUNTED | frames << FRAMES);
    }

    /// Forgets what the cell says of another queue, before one is started whose first used entry
    /// has this index.
    pub fn begin(&self, index: u16) {
        self.done(index, 0);
    }

    /// Where a queue of this size goes on, if `shown` is the used index in guest memory.
    pub(crate) fn rest(&self, shown: u16, size: u16) -> Rest {
        let value = self.0.get();
        let done = value as u16;
        let count = done.wrapping_sub(shown);
        // What is in guest memory the driver can write, too.
        if count > size {
            return Rest {
                used: done,
                count: 0,
                in_doubt: false,
            };
        }
        Rest {
            used: shown,
            count,
            in_doubt: count > 0 && value & IN_HAND != 0,
        }
    }
}

/// What is left to do of the last process's work.
pub(crate) struct Rest {
    /// The used index that the driver sees.
    pub(crate) used: u16,
    /// Entries from there on that are done with.
    pub(crate) count: u16,
    /// The last of them is in doubt.
    pub(crate) in_doubt: bool,
}
