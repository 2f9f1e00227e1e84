// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Bytes that are replaced as a whole.

use std::sync::atomic::Ordering;

use crate::memory::{Memory, SNAPSHOTS_AT};

/// Room for a snapshot with its head: many times what a card needs.
const PLACE: usize = 64 << 10;
const PLACES: usize = 2;
pub(crate) const SNAPSHOTS_SIZE: usize = PLACES * PLACE;

/// Offsets in a place.
const SEQUENCE: usize = 0;
const LENGTH: usize = 8;
const SUM: usize = 16;
const BYTES: usize = 64;

/// Most bytes of a snapshot.
const MAX: usize = PLACE - BYTES;

impl Memory {
    /// Puts a snapshot in the place of the former one. Whoever reads gets the one or the other,
    /// whenever the writer dies. There is one writer at a time. False if it is too long.
    #[must_use]
    pub fn commit(&self, bytes: &[u8]) -> bool {
        if bytes.len() > MAX {
            return false;
        }
        let (newest, last) = self.newest().unwrap_or((PLACES - 1, 0));
        let at = place((newest + 1) % PLACES);
        // While it is written, this place has no snapshot.
        self.word(at + SEQUENCE).store(0, Ordering::SeqCst);
        self.bytes(at + BYTES, bytes.len()).copy_from(bytes);
        self.word(at + LENGTH)
            .store(bytes.len() as u64, Ordering::Relaxed);
        self.word(at + SUM).store(sum(bytes), Ordering::Relaxed);
        self.word(at + SEQUENCE)
            .store(last.wrapping_add(1), Ordering::Release);
        true
    }

    /// The snapshot in force; `None` before the first.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let (newest, _) = self.newest()?;
        self.read(newest)
    }

    /// The place of the newest snapshot that is whole, and its sequence number.
    fn newest(&self) -> Option<(usize, u64)> {
        (0..PLACES)
            .map(|n| (n, self.word(place(n) + SEQUENCE).load(Ordering::Acquire)))
            .filter(|(n, sequence)| *sequence != 0 && self.read(*n).is_some())
            .max_by_key(|(_, sequence)| *sequence)
    }

    fn read(&self, n: usize) -> Option<Vec<u8>> {
        let at = place(n);
        let len = self.word(at + LENGTH).load(Ordering::Relaxed);
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX)?;
        let mut bytes = vec![0; len];
        self.bytes(at + BYTES, len).copy_to(&mut bytes[..]);
        (sum(&bytes) == self.word(at + SUM).load(Ordering::Relaxed)).then_some(bytes)
    }
}

fn place(n: usize) -> usize {
    SNAPSHOTS_AT + n * PLACE
}

/// A check against mistakes, not against malice: whoever can write the memory is the card.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(bytes.len() as u64 ^ 0x9e37_79b9_7f4a_7c15, |sum, word| {
        (sum ^ word)
            .wrapping_mul(0x2545_f491_4f6c_dd1d)
            .rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts() {
        let memory = Memory::create().unwrap();
        assert_eq!(memory.snapshot(), None);
        for n in 0..7u8 {
            let bytes = vec![n; 100 * usize::from(n)];
            assert!(memory.commit(&bytes));
            assert_eq!(memory.snapshot(), Some(bytes));
        }
        assert!(!memory.commit(&vec![0; MAX + 1]));
        assert_eq!(memory.snapshot(), Some(vec![6; 600]));
        assert!(memory.commit(&vec![1; MAX]));
        assert_eq!(memory.snapshot().map(|b| b.len()), Some(MAX));
    }

    #[test]
    fn one_that_was_not_finished_does_not_count() {
        let memory = Memory::create().unwrap();
        assert!(memory.commit(b"one"));
        assert!(memory.commit(b"two"));
        let whole = |m: &Memory| m.snapshot().map(|b| String::from_utf8(b).unwrap());
        // The third would go where the first is. At each step the second is in force.
        let at = place(0);
        memory.word(at + SEQUENCE).store(0, Ordering::SeqCst);
        assert_eq!(whole(&memory).as_deref(), Some("two"));
        memory.bytes(at + BYTES, 5).copy_from(&b"three"[..]);
        assert_eq!(whole(&memory).as_deref(), Some("two"));
        memory.word(at + LENGTH).store(5, Ordering::SeqCst);
        memory.word(at + SUM).store(sum(b"three"), Ordering::SeqCst);
        assert_eq!(whole(&memory).as_deref(), Some("two"));
        memory.word(at + SEQUENCE).store(3, Ordering::SeqCst);
        assert_eq!(whole(&memory).as_deref(), Some("three"));
        // One that is damaged does not count either.
        memory.bytes(at + BYTES, 1).copy_from(&b"T"[..]);
        assert_eq!(whole(&memory).as_deref(), Some("two"));
        assert!(memory.commit(b"four"));
        assert_eq!(whole(&memory).as_deref(), Some("four"));
    }
}
