// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Vectors that are kept from batch to batch.

use std::mem;

use vm_memory::VolatileSlice;
use vnet_backend::Frame;

/// The allocation of an empty vector, put away while no batch runs.
///
/// What a batch collects borrows from the batch's snapshot of guest memory, so a vector of it
/// cannot be stored. Its allocation can: collecting an emptied vector into one of another element
/// type with the same layout reuses the allocation (a property of the standard library that is
/// tested here, and costs no more than an allocation a batch where it does not hold).
#[derive(Debug, Default)]
pub(crate) struct Shelf<const WORDS: usize>(Vec<[usize; WORDS]>);

/// A shelf for pieces of guest memory.
pub(crate) type Parts = Shelf<{ words::<VolatileSlice<'static>>() }>;
/// A shelf for frames.
pub(crate) type Frames = Shelf<{ words::<Frame<'static>>() }>;

const fn words<T>() -> usize {
    size_of::<T>() / size_of::<usize>()
}

impl<const WORDS: usize> Shelf<WORDS> {
    /// Takes the vector down, empty.
    pub(crate) fn take<T>(&mut self) -> Vec<T> {
        emptied(mem::take(&mut self.0))
    }

    /// Empties a vector and puts it away.
    pub(crate) fn put<T>(&mut self, vec: Vec<T>) {
        self.0 = emptied(vec);
    }
}

fn emptied<T, U>(mut vec: Vec<T>) -> Vec<U> {
    vec.clear();
    vec.into_iter()
        .map(|_| unreachable!("the vector is empty"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocation_survives() {
        let mut shelf = Parts::default();
        let mut parts: Vec<VolatileSlice<'_>> = shelf.take();
        parts.reserve(100);
        let (at, capacity) = (parts.as_ptr() as usize, parts.capacity());
        shelf.put(parts);
        let parts: Vec<VolatileSlice<'_>> = shelf.take();
        assert_eq!((parts.as_ptr() as usize, parts.capacity()), (at, capacity));

        let mut shelf = Frames::default();
        let mut frames: Vec<Frame<'_>> = shelf.take();
        frames.reserve(100);
        let (at, capacity) = (frames.as_ptr() as usize, frames.capacity());
        shelf.put(frames);
        let frames: Vec<Frame<'_>> = shelf.take();
        assert_eq!(
            (frames.as_ptr() as usize, frames.capacity()),
            (at, capacity)
        );
    }
}
