// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Data whose every byte the receiver can tell.
//!
//! A stream repeats a block of [`BLOCK`] bytes, so that in a timed transfer the sender has nothing
//! to compute; the receiver then looks at both ends of each piece it reads ([`spot_check`]), which
//! finds lost, doubled and exchanged bytes. A transfer of its own, which is not timed, has no
//! period and every byte of it is compared ([`fill`], [`check`]). A datagram holds its number, and
//! its words follow from that.

use crate::error::{Error, Result};

/// Period of a timed stream, and the size of the reads and writes.
pub const BLOCK: usize = 128 * 1024;

/// Payload of a datagram.
pub const DATAGRAM: usize = 64;

const WORD: usize = 8;

/// A word that depends on every bit of `n` (the finalizer of the splitmix64 generator).
fn scramble(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The byte at `position` of a stream without period.
fn byte_at(position: u64) -> u8 {
    scramble(position / WORD as u64).to_le_bytes()[(position % WORD as u64) as usize]
}

/// Writes a stream's bytes from `position` on.
pub fn fill(data: &mut [u8], position: u64) {
    let mut word = scramble(position / WORD as u64).to_le_bytes();
    for (at, byte) in (position..).zip(data) {
        let within = (at % WORD as u64) as usize;
        if within == 0 {
            word = scramble(at / WORD as u64).to_le_bytes();
        }
        *byte = word[within];
    }
}

/// Compares every byte of a stream from `position` on.
pub fn check(data: &[u8], position: u64) -> Result<()> {
    let mut expected = vec![0; data.len()];
    fill(&mut expected, position);
    match data.iter().zip(&expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(Error::Corrupt(format!(
            "byte {} of the stream",
            position + at as u64
        ))),
    }
}

/// The block that a timed stream repeats.
pub fn block() -> Vec<u8> {
    let mut data = vec![0; BLOCK];
    fill(&mut data, 0);
    data
}

/// Compares both ends of a piece of a timed stream that starts at `position`.
pub fn spot_check(data: &[u8], position: u64) -> Result<()> {
    let expected = |at: usize| byte_at((position + at as u64) % BLOCK as u64);
    let ends = (0..data.len().min(WORD)).chain(data.len().saturating_sub(WORD)..data.len());
    for at in ends {
        if data[at] != expected(at) {
            return Err(Error::Corrupt(format!(
                "byte {} of the stream",
                position + at as u64
            )));
        }
    }
    Ok(())
}

/// The datagram with number `n`.
pub fn datagram(n: u64) -> [u8; DATAGRAM] {
    let mut data = [0; DATAGRAM];
    for (i, word) in (0..).zip(data.chunks_exact_mut(WORD)) {
        let value = if i == 0 { n } else { scramble(n ^ (i << 56)) };
        word.copy_from_slice(&value.to_le_bytes());
    }
    data
}

/// The number of a datagram; none if it is not as it was sent.
pub fn number_of(data: &[u8]) -> Option<u64> {
    let n = u64::from_le_bytes(*data.first_chunk()?);
    (data == datagram(n)).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_checked_to_the_byte() {
        let mut data = vec![0; 1000];
        fill(&mut data, 12345);
        check(&data, 12345).unwrap();
        check(&data[3..], 12348).unwrap();
        assert!(check(&data, 12346).is_err());
        for at in [0, 1, 500, 999] {
            data[at] ^= 1;
            assert!(check(&data, 12345).is_err());
            data[at] ^= 1;
        }
    }

    #[test]
    fn pieces_that_are_lost_or_exchanged_are_seen_at_their_ends() {
        let stream = [block(), block()].concat();
        let start = BLOCK - 100;
        spot_check(&stream[start..start + 5000], start as u64).unwrap();
        spot_check(&stream[..3], 0).unwrap();
        spot_check(&[], 7).unwrap();
        for shift in [1, 8, 1448, 4096, BLOCK / 2] {
            let moved = start - shift;
            assert!(spot_check(&stream[moved..moved + 5000], start as u64).is_err());
        }
        let mut cut = stream[..1000].to_vec();
        cut.extend(&stream[1448..2000]);
        assert!(spot_check(&cut, 0).is_err());
    }

    #[test]
    fn a_datagram_tells_its_number_only_when_intact() {
        for n in [0, 1, 77, u64::MAX] {
            let mut data = datagram(n);
            assert_eq!(number_of(&data), Some(n));
            for bit in 0..DATAGRAM * 8 {
                data[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(number_of(&data), None, "bit {bit}");
                data[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert_eq!(number_of(&datagram(5)[..63]), None);
        assert_eq!(number_of(&[]), None);
    }
}
