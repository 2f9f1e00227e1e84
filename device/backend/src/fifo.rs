// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A bounded queue of frames in memory, for backends that have to keep some.

use std::collections::VecDeque;

use crate::Meta;

/// Frames in order of arrival. All memory is allocated at the start: neither the number of frames
/// nor their sizes make it grow, and no frame costs an allocation.
#[derive(Debug)]
pub struct Fifo {
    /// Frames lie one after the other, each in one piece; one that does not fit before the end
    /// of the buffer starts at its beginning.
    bytes: Box<[u8]>,
    records: VecDeque<Record>,
    max_frames: usize,
}

#[derive(Debug)]
struct Record {
    start: usize,
    len: usize,
    meta: Meta,
}

impl Fifo {
    /// A queue of at most `max_frames` frames and about `max_bytes` bytes.
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self {
            bytes: vec![0; max_bytes].into_boxed_slice(),
            records: VecDeque::with_capacity(max_frames),
            max_frames,
        }
    }

    /// True if a frame of `len` bytes would be taken now.
    pub fn has_room(&self, len: usize) -> bool {
        self.place(len).is_some()
    }

    /// The `len` bytes where the next frame goes, or `None` if there is no room for it now. They
    /// hold whatever an earlier frame left and are to be overwritten, all of them.
    pub fn grant(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.place(len)?;
        Some(&mut self.bytes[start..start + len])
    }

    /// Adds the frame that was written to the bytes of the last [`Self::grant`]; `len` is the one
    /// that was granted. False, and nothing is added, if no such grant can have been given.
    pub fn commit(&mut self, len: usize, meta: Meta) -> bool {
        let Some(start) = self.place(len) else {
            return false;
        };
        self.records.push_back(Record { start, len, meta });
        true
    }

    /// Adds a frame of `len` bytes that `fill` writes. False, and `fill` is not called, if there
    /// is no room for it.
    pub fn push(&mut self, len: usize, meta: Meta, fill: impl FnOnce(&mut [u8])) -> bool {
        match self.grant(len) {
            Some(bytes) => fill(bytes),
            None => return false,
        }
        self.commit(len, meta)
    }

    /// The oldest frame.
    pub fn front(&mut self) -> Option<(&mut [u8], Meta)> {
        let record = self.records.front()?;
        let frame = &mut self.bytes[record.start..record.start + record.len];
        Some((frame, record.meta))
    }

    /// Removes the oldest frame.
    pub fn pop(&mut self) {
        self.records.pop_front();
    }

    /// Removes all frames.
    pub fn clear(&mut self) {
        self.records.clear();
    }

    /// True if there is no frame.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Where a frame of `len` bytes goes.
    fn place(&self, len: usize) -> Option<usize> {
        if len == 0 || self.records.len() == self.max_frames {
            return None;
        }
        let (Some(first), Some(last)) = (self.records.front(), self.records.back()) else {
            return (len <= self.bytes.len()).then_some(0);
        };
        let end = last.start + last.len;
        if last.start < first.start {
            // Free: from the end of the newest to the oldest.
            return (len <= first.start - end).then_some(end);
        }
        if len <= self.bytes.len() - end {
            return Some(end);
        }
        (len <= first.start).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_bounded_in_frames_and_bytes() {
        let mut fifo = Fifo::new(3, 100);
        assert!(fifo.grant(0).is_none());
        assert!(!fifo.push(101, Meta::default(), |_| ()));
        assert!(!fifo.commit(101, Meta::default()));
        assert!(fifo.push(100, Meta::default(), |_| ()));
        assert!(!fifo.has_room(1));
        fifo.pop();
        for _ in 0..3 {
            assert!(fifo.push(1, Meta::default(), |_| ()));
        }
        assert!(!fifo.has_room(1));
        assert_eq!(fifo.len(), 3);
    }

    proptest! {
        /// Against a queue of vectors: `Some(len)` pushes, `None` pops.
        #[test]
        fn gives_back_what_was_put_in(ops in prop::collection::vec(
            prop::option::weighted(0.6, 1usize..40), 0..300,
        )) {
            let mut fifo = Fifo::new(8, 100);
            let mut model = VecDeque::new();
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Some(len) => {
                        let had_room = fifo.has_room(len);
                        let taken = fifo.push(len, Meta::default(), |b| b.fill(n as u8));
                        prop_assert_eq!(had_room, taken);
                        // An empty queue takes every frame that its buffer holds.
                        prop_assert!(taken || !model.is_empty());
                        if taken {
                            model.push_back(vec![n as u8; len]);
                        }
                    }
                    None => {
                        prop_assert_eq!(
                            fifo.front().map(|(frame, _)| frame.to_vec()),
                            model.pop_front()
                        );
                        fifo.pop();
                    }
                }
                prop_assert_eq!(fifo.len(), model.len());
                prop_assert_eq!(fifo.is_empty(), model.is_empty());
            }
        }
    }
}
