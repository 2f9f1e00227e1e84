// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The Toeplitz hash.

/// Bytes of a key.
pub const KEY_SIZE: usize = 40;
/// Longest input: two IPv6 addresses and two ports.
pub(crate) const MAX_INPUT: usize = 36;

/// A key, prepared for hashing.
///
/// Bit *i* of the input, if set, adds the 32 bits of the key from bit *i* on, modulo 2. As that is
/// linear, what four bits at a place add can be looked up. A table of the 16 values for each of
/// the 72 half bytes is 4.5 KiB, which stays in the first-level cache beside the frames; whole
/// bytes need half as many look-ups, but 36 KiB. `examples/toeplitz.rs` compares them.
#[derive(Clone)]
pub struct Toeplitz {
    nibbles: Box<[[u32; 16]; 2 * MAX_INPUT]>,
}

impl Toeplitz {
    /// Prepares a key.
    pub fn new(key: &[u8; KEY_SIZE]) -> Self {
        let mut nibbles = Box::new([[0; 16]; 2 * MAX_INPUT]);
        for (place, row) in nibbles.iter_mut().enumerate() {
            // The 40 bits from the byte on in which the half byte starts: the four windows of 32
            // bits that matter are in it.
            let mut bits = 0u64;
            for &byte in &key[place / 2..place / 2 + 5] {
                bits = bits << 8 | u64::from(byte);
            }
            let first = 8 - 4 * (place % 2);
            for (value, sum) in row.iter_mut().enumerate() {
                for bit in (0..4).filter(|bit| value & 8 >> bit != 0) {
                    *sum ^= (bits >> (first - bit)) as u32;
                }
            }
        }
        Self { nibbles }
    }

    /// Hashes up to 36 bytes; what is beyond has no part in it.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let mut sum = 0;
        for (&byte, rows) in input.iter().zip(self.nibbles.chunks_exact(2)) {
            sum ^= rows[0][usize::from(byte >> 4)] ^ rows[1][usize::from(byte & 15)];
        }
        sum
    }
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}
