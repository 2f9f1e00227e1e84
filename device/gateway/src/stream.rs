// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The byte streams that services send.

/// Characters per line of the character generator (RFC 864).
const LINE: usize = 72;
/// The printable ASCII characters, space included.
const FIRST: u8 = b' ';
const CHARACTERS: usize = 95;
/// A line and its end.
const STRIDE: usize = LINE + 2;

/// Writes the character generator's stream from byte `position` on.
pub(crate) fn characters(position: u64, out: &mut [u8]) {
    const PERIOD: u64 = (STRIDE * CHARACTERS) as u64;
    let mut at = (position % PERIOD) as usize;
    for byte in out {
        let (line, column) = (at / STRIDE, at % STRIDE);
        *byte = match column {
            LINE => b'\r',
            column if column > LINE => b'\n',
            column => FIRST + ((line + column) % CHARACTERS) as u8,
        };
        at = (at + 1) % PERIOD as usize;
    }
}

/// Writes the pseudo-random stream of `seed` from byte `position` on: the outputs of SplitMix64,
/// each as eight bytes, the lowest first.
pub(crate) fn random(seed: u64, position: u64, out: &mut [u8]) {
    let mut index = position / 8;
    let mut out = out;
    let skip = (position % 8) as usize;
    if skip != 0 {
        let word = split_mix_64(seed, index).to_le_bytes();
        let n = out.len().min(8 - skip);
        out[..n].copy_from_slice(&word[skip..skip + n]);
        out = &mut out[n..];
        index = index.wrapping_add(1);
    }
    let mut words = out.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&split_mix_64(seed, index).to_le_bytes());
        index = index.wrapping_add(1);
    }
    let rest = words.into_remainder();
    let word = split_mix_64(seed, index).to_le_bytes();
    rest.copy_from_slice(&word[..rest.len()]);
}

/// Output number `index` of the generator that starts at `seed`.
fn split_mix_64(seed: u64, index: u64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(STEP.wrapping_mul(index.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_72_characters_and_each_begins_one_later() {
        let mut text = vec![0; 3 * STRIDE];
        characters(0, &mut text);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == LINE));
        assert!(lines[0].starts_with(" !\"#"));
        assert!(lines[1].starts_with("!\"#$"));
    }

    #[test]
    fn split_mix_64_gives_the_published_outputs() {
        // The first outputs for seed 1234567, as in other implementations' tests.
        assert_eq!(split_mix_64(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(split_mix_64(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_stream_does_not_depend_on_how_it_is_cut() {
        for write in [characters as fn(u64, &mut [u8]), |at, out: &mut [u8]| {
            random(7, at, out)
        }] {
            let mut whole = vec![0; 20_000];
            write(0, &mut whole);
            let mut at = 0;
            for len in (1..200).cycle() {
                let len = len.min(whole.len() - at);
                let mut part = vec![0; len];
                write(at as u64, &mut part);
                assert_eq!(part, whole[at..at + len]);
                at += len;
                if at == whole.len() {
                    break;
                }
            }
        }
    }
}
