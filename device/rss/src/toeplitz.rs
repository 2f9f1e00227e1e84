// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The Toeplitz hash.

/// Bytes of a key.
pub const KEY_SIZE: usize = 40;
/// Longest input: two IPv6 addresses and two ports.
pub(crate) const MAX_INPUT: usize = 36;

/// A key, prepared for hashing.
///
/// Bit *i* of the input, if set, adds the 32 bits of the key from bit *i* on, modulo 2. As that is
/// linear, what a byte at a place adds can be looked up. The tables take 36 KiB in all, 12 KiB of
/// which serve IPv4. `examples/toeplitz.rs` measures this against look-ups of half bytes (4.5 KiB)
/// and against masks: 11, 20 and 70 ns for an IPv4 flow with ports, 29, 48 and 150 ns for IPv6, on
/// a machine with other load.
#[derive(Clone)]
pub struct Toeplitz {
    places: Box<[[u32; 256]]>,
}

impl Toeplitz {
    /// Prepares a key.
    pub fn new(key: &[u8; KEY_SIZE]) -> Self {
        let place = |at: usize| {
            // The 40 bits of the key from this byte on: all that its eight bits can add.
            let bits = key[at..at + 5]
                .iter()
                .fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            let mut sums = [0u32; 256];
            for value in 1..256usize {
                // One bit more than a value whose sum is known.
                let low = value.trailing_zeros();
                sums[value] = sums[value & (value - 1)] ^ (bits >> (low + 1)) as u32;
            }
            sums
        };
        Self {
            places: (0..MAX_INPUT).map(place).collect(),
        }
    }

    /// Hashes up to 36 bytes; what is beyond has no part in it.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let each = input.iter().zip(&self.places);
        each.fold(0, |sum, (&byte, sums)| sum ^ sums[usize::from(byte)])
    }
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}
