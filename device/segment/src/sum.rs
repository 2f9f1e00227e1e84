// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The Internet checksum over bytes that lie in several pieces.

use vm_memory::VolatileSlice;
use vnet_backend::checksum;

/// Bytes of guest memory that are copied to be summed. A segment of an ordinary size in one go.
const CHUNK: usize = 2048;

/// A sum that grows piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: u16,
    /// An odd number of bytes lies behind: the next one is the lower half of its word.
    odd: bool,
}

impl Sum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let sum = checksum::sum(bytes);
        // The sum of bytes that are all at the other half of their words.
        let sum = if self.odd { sum.swap_bytes() } else { sum };
        self.sum = checksum::add(self.sum, sum);
        self.odd ^= bytes.len() % 2 == 1;
    }

    pub(crate) fn add_memory(&mut self, memory: VolatileSlice<'_>) {
        let mut chunk = [0; CHUNK];
        let mut done = 0;
        while let Ok(rest) = memory.offset(done) {
            let n = rest.copy_to(&mut chunk[..]);
            if n == 0 {
                break;
            }
            self.add(&chunk[..n]);
            done += n;
        }
    }

    /// What goes into the checksum field. Zero means "no checksum" to UDP; its other form, all
    /// ones, is right for every protocol.
    pub(crate) fn finish(self) -> [u8; 2] {
        match !self.sum {
            0 => [0xff; 2],
            value => value.to_be_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_pieces(
            mut bytes in prop::collection::vec(any::<u8>(), 0..6000),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = checksum::sum(&bytes);
            let mut at: Vec<usize> = cuts.drain(..).map(|i| i.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let (mut plain, mut memory) = (Sum::default(), Sum::default());
            let mut start = 0;
            for end in at.into_iter().chain([bytes.len()]) {
                plain.add(&bytes[start..end]);
                memory.add_memory(VolatileSlice::from(&mut bytes[start..end]));
                start = end;
            }
            prop_assert_eq!(plain.sum, whole);
            prop_assert_eq!(memory.sum, whole);
        }
    }
}
