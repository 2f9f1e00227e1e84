// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! MSI-X vectors, raised through eventfds.
//!
//! The client keeps the MSI-X table; the card never sees an address or a mask bit. What it gets is
//! an eventfd for every vector that may fire, and the removal of that eventfd. A [`Vector`] that
//! is raised with nothing attached remembers it in its pending bit, and fires once as soon as an
//! eventfd arrives. So does one that is held back, because the card may not write to memory.
//!
//! Workers hold an `Arc<Vector>` and raise it; the message thread attaches and detaches.

#![forbid(unsafe_code)]

mod eventfd;
#[cfg(all(loom, test))]
mod model;
mod release;
mod sync;
mod vector;

pub use eventfd::EventFd;
pub use vector::Vector;

use std::io;
use std::sync::Arc;

use release::Release;

/// All vectors of one card.
#[derive(Debug)]
pub struct Vectors {
    vectors: Arc<[Arc<Vector>]>,
    _release: Release,
}

/// A range of vectors that does not lie within the card's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such MSI-X vector")
    }
}

impl std::error::Error for OutOfRange {}

impl Vectors {
    /// `count` vectors with nothing attached. Fails if there is no thread to see to it that no
    /// client holds up who raises them.
    pub fn new(count: u16) -> io::Result<Self> {
        let vectors: Arc<[_]> = (0..count).map(|_| Arc::default()).collect();
        let release = Release::spawn(Arc::clone(&vectors))?;
        Ok(Self {
            vectors,
            _release: release,
        })
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        // Made from a `u16`.
        self.vectors.len() as u16
    }

    /// The vector with this index.
    pub fn get(&self, index: u16) -> Option<&Arc<Vector>> {
        self.vectors.get(usize::from(index))
    }

    /// Says whether `count` vectors from `start` exist.
    pub fn check(&self, start: u32, count: usize) -> Result<(), OutOfRange> {
        self.range(start, count).map(drop)
    }

    /// Attaches the eventfds to consecutive vectors from `start`. Checked as a whole: either
    /// every vector exists and gets its eventfd, or nothing changes.
    pub fn attach(&self, start: u32, fds: Vec<EventFd>) -> Result<(), OutOfRange> {
        for (vector, fd) in self.range(start, fds.len())?.iter().zip(fds) {
            vector.attach(fd);
        }
        Ok(())
    }

    /// Detaches `count` vectors from `start`.
    pub fn detach(&self, start: u32, count: u32) -> Result<(), OutOfRange> {
        for vector in self.range(start, count as usize)? {
            vector.detach();
        }
        Ok(())
    }

    /// Detaches every vector.
    pub fn detach_all(&self) {
        self.vectors.iter().for_each(|v| v.detach());
    }

    /// Holds every vector back, or stops to: an interrupt is a write to memory, and a function
    /// that is no bus master makes none.
    pub fn hold(&self, held: bool) {
        self.vectors.iter().for_each(|v| v.hold(held));
    }

    /// Raises `count` vectors from `start`.
    pub fn raise(&self, start: u32, count: u32) -> Result<(), OutOfRange> {
        for vector in self.range(start, count as usize)? {
            vector.raise();
        }
        Ok(())
    }

    /// Forgets every pending interrupt; for a reset of the card.
    pub fn clear_pending(&self) {
        self.vectors.iter().for_each(|v| v.clear_pending());
    }

    /// The pending bit array as it stands in the BAR: bit `n` of the little-endian array belongs
    /// to vector `n`. Bytes past the last vector read as zero.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (index, vector) in (0u64..).zip(&*self.vectors) {
            let Some(at) = (index / 8).checked_sub(offset) else {
                continue;
            };
            let byte = usize::try_from(at).ok().and_then(|at| data.get_mut(at));
            if let Some(byte) = byte {
                *byte |= u8::from(vector.is_pending()) << (index % 8);
            }
        }
    }

    fn range(&self, start: u32, count: usize) -> Result<&[Arc<Vector>], OutOfRange> {
        let start = start as usize;
        let end = start.checked_add(count).ok_or(OutOfRange)?;
        self.vectors.get(start..end).ok_or(OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::tests::{count, eventfd};

    #[test]
    fn a_range_is_attached_as_a_whole_or_not_at_all() {
        let vectors = Vectors::new(3).unwrap();
        let (fd, reader) = eventfd();
        let (other, _keep) = eventfd();
        assert_eq!(vectors.attach(2, vec![fd, other]), Err(OutOfRange));
        vectors.raise(2, 1).unwrap();
        assert_eq!(count(&reader), None);
        assert!(vectors.get(2).unwrap().is_pending());
    }

    #[test]
    fn consecutive_vectors_get_consecutive_fds() {
        let vectors = Vectors::new(4).unwrap();
        let (first, first_reader) = eventfd();
        let (second, second_reader) = eventfd();
        vectors.attach(1, vec![first, second]).unwrap();
        vectors.raise(2, 1).unwrap();
        assert_eq!(
            (count(&first_reader), count(&second_reader)),
            (None, Some(1))
        );
        vectors.detach(1, 2).unwrap();
        vectors.raise(1, 2).unwrap();
        assert_eq!((count(&first_reader), count(&second_reader)), (None, None));
    }

    #[test]
    fn all_are_held_at_once() {
        let vectors = Vectors::new(2).unwrap();
        let (first, first_reader) = eventfd();
        let (second, second_reader) = eventfd();
        vectors.attach(0, vec![first, second]).unwrap();
        vectors.hold(true);
        vectors.raise(0, 2).unwrap();
        assert_eq!((count(&first_reader), count(&second_reader)), (None, None));
        vectors.hold(false);
        assert_eq!(
            (count(&first_reader), count(&second_reader)),
            (Some(1), Some(1))
        );
    }

    #[test]
    fn ranges_are_overflow_safe() {
        let vectors = Vectors::new(2).unwrap();
        for (start, count) in [(0, 3), (2, 1), (3, 0), (u32::MAX, 1), (1, u32::MAX)] {
            assert_eq!(vectors.raise(start, count), Err(OutOfRange));
            assert_eq!(vectors.detach(start, count), Err(OutOfRange));
        }
        assert_eq!(vectors.detach(2, 0), Ok(()));
        assert!(vectors.get(2).is_none());
    }

    #[test]
    fn pending_bits_are_readable_at_any_offset_and_width() {
        let vectors = Vectors::new(17).unwrap();
        for v in [0, 9, 16] {
            vectors.raise(v, 1).unwrap();
        }
        let mut data = [0xff; 8];
        vectors.read_pending(0, &mut data);
        assert_eq!(data, [0x01, 0x02, 0x01, 0, 0, 0, 0, 0]);
        let mut data = [0xff; 2];
        vectors.read_pending(1, &mut data);
        assert_eq!(data, [0x02, 0x01]);
        vectors.read_pending(u64::MAX, &mut data);
        assert_eq!(data, [0, 0]);
        vectors.clear_pending();
        vectors.read_pending(0, &mut data);
        assert_eq!(data, [0, 0]);
    }
}
