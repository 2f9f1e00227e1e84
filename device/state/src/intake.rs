// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How many frames a receive queue has taken from where they come from.
//!
//! A frame is out of the host's queue when the system call that reads it is done, and a process that
//! is killed then has not executed one more instruction. So the call itself has to leave a trace: it
//! writes the start of the frame to a place that another process can look at, and that nothing but a
//! frame makes what it is then. There are two such places, used by turns, so that one store counts
//! the frame of the one and begins with the other.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::cell::{Block, Cell};
use crate::memory::Memory;

/// Cells of a block that are used here: the count, and two for each place.
const COUNT: usize = 7;
const PLACES: [usize; 2] = [8, 10];
/// Bytes of a place.
const PLACE: usize = 16;

/// No frame begins like this: it would have flags that do not exist.
const EMPTY: u64 = u64::MAX;

/// The count of one queue. Clones count the same.
#[derive(Clone, Debug)]
pub struct Intake {
    memory: Arc<Memory>,
    /// One more than there were frames; zero: nobody counts.
    count: Cell,
    places: [Place; 2],
}

#[derive(Clone, Debug)]
struct Place {
    first: Cell,
    at: usize,
}

impl Intake {
    /// That of the queue whose block has this index; `None` if there is none.
    pub fn new(memory: &Arc<Memory>, index: usize) -> Option<Self> {
        let block = Block::new(memory, index)?;
        let place = |n| Place {
            first: block.cell(n),
            at: block.offset(n),
        };
        Some(Self {
            memory: Arc::clone(memory),
            count: block.cell(COUNT),
            places: PLACES.map(place),
        })
    }

    /// Counts from now on, or goes on with that.
    pub fn begin(&self) {
        if self.count.get() == 0 {
            self.restart(0);
        }
    }

    /// True if somebody counts.
    pub fn is_kept(&self) -> bool {
        self.count.get() != 0
    }

    /// Where the first bytes of the next frame go: up to 16.
    pub fn place(&self, len: usize) -> VolatileSlice<'_> {
        self.memory.bytes(self.next().at, len.min(PLACE))
    }

    /// Counts the frame that was written to the place, if one was.
    pub fn take(&self) -> bool {
        let count = self.count.get();
        let filled = count != 0 && self.next().first.get() != EMPTY;
        if filled {
            self.places[other(count)].first.set(EMPTY);
            self.count.set(count + 1);
        }
        filled
    }

    /// Frames so far.
    pub fn count(&self) -> u64 {
        self.count.get().saturating_sub(1)
    }

    /// Begins at this count, with no frame in a place.
    pub fn restart(&self, count: u64) {
        for place in &self.places {
            place.first.set(EMPTY);
        }
        self.count.set(count + 1);
    }

    fn next(&self) -> &Place {
        &self.places[1 - other(self.count.get())]
    }
}

/// The place after the one that is next at this count.
fn other(count: u64) -> usize {
    usize::from(count.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_from_the_moment_that_it_is_there() {
        let memory = Memory::create().unwrap();
        let mine = Intake::new(&memory, 4).unwrap();
        assert!(!mine.is_kept() && !mine.take());
        mine.begin();
        for n in 0..5u8 {
            // As another process finds it, before the frame has come and after.
            let next = || Intake::new(&memory, 4).unwrap();
            assert!(next().is_kept() && !next().take());
            assert_eq!(next().count(), u64::from(n));
            // The first byte of a header has flags.
            mine.place(12).copy_from(&[n; 12]);
            if n % 2 == 0 {
                assert!(mine.take());
            } else {
                assert!(next().take());
            }
            assert_eq!(mine.count(), u64::from(n) + 1);
        }
        mine.begin();
        assert_eq!(mine.count(), 5);
        mine.place(12).copy_from(&[0; 12]);
        mine.restart(9);
        assert!(!mine.take());
        assert_eq!(mine.count(), 9);
    }

    #[test]
    fn places_are_apart_from_other_cells() {
        let memory = Memory::create().unwrap();
        let intake = Intake::new(&memory, 0).unwrap();
        intake.begin();
        for _ in 0..2 {
            intake.place(99).copy_from(&[7; PLACE]);
            intake.take();
        }
        let block = Block::new(&memory, 0).unwrap();
        let others = (0..crate::CELLS).filter(|n| !(COUNT..COUNT + 5).contains(n));
        assert!(others.map(|n| block.cell(n).get()).all(|value| value == 0));
    }
}
