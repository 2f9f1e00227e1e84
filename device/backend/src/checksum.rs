// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The Internet checksum (RFC 1071), for backends whose peer cannot complete or verify it.

/// One's complement sum of `data` as big-endian 16-bit words, an odd last byte padded with zero.
///
/// The result is folded to 16 bits and not inverted: a range whose checksum field is right sums
/// to `0xffff`.
pub fn sum(data: &[u8]) -> u16 {
    // The sum does not depend on the byte order of the words, nor on their width as long as
    // carries are kept (RFC 1071, section 2). Widening 32-bit words leaves room for the carries of
    // 16 GiB, and is a loop that the compiler turns into vector code.
    let mut words = data.chunks_exact(4);
    let mut sum: u64 = words
        .by_ref()
        .map(|w| u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    sum += u64::from(u32::from_ne_bytes(tail));
    u16::from_be(fold(sum))
}

/// One's complement sum of two folded sums.
pub fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Completes the checksum of a frame whose metadata says [`Checksum::Partial`]: sums from `start`
/// to the end, over the sum of the pseudo header that stands in the field at `start + offset`,
/// and stores the complement there.
///
/// Returns false and leaves the frame as it is if the field does not lie within it.
///
/// [`Checksum::Partial`]: crate::Checksum::Partial
#[must_use]
pub fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    if field + 2 > frame.len() {
        return false;
    }
    // Zero means "no checksum" to UDP; its other form, all ones, is right for every protocol.
    let value = match !sum(&frame[start..]) {
        0 => 0xffff,
        value => value,
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Word by word, carry by carry.
    fn naive(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in data.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }

    #[test]
    fn a_field_outside_the_frame_is_refused() {
        let mut frame = [1; 20];
        assert!(!complete(&mut frame, 14, 5));
        assert!(!complete(&mut frame, u16::MAX, u16::MAX));
        assert_eq!(frame, [1; 20]);
        assert!(complete(&mut frame, 14, 4));
    }

    #[test]
    fn a_zero_checksum_is_written_as_all_ones() {
        let mut frame = [0xff, 0xff, 0, 0];
        assert!(complete(&mut frame, 0, 2));
        assert_eq!(frame, [0xff; 4]);
    }

    proptest! {
        #[test]
        fn sum_equals_the_reference(data: Vec<u8>, skip in 0usize..8) {
            let data = &data[skip.min(data.len())..];
            prop_assert_eq!(sum(data), naive(data));
        }

        #[test]
        fn sums_of_even_parts_add_up(data: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(data.len() + 1) & !1;
            prop_assert_eq!(add(sum(&data[..at]), sum(&data[at..])), sum(&data));
        }

        #[test]
        fn a_completed_range_verifies(
            mut frame in prop::collection::vec(any::<u8>(), 2..200),
            start: prop::sample::Index,
            offset: prop::sample::Index,
        ) {
            let start = start.index(frame.len() - 1);
            let offset = offset.index(frame.len() - start - 1) & !1;
            let pseudo = u16::from_be_bytes([frame[start + offset], frame[start + offset + 1]]);
            let before = frame.clone();
            prop_assert!(complete(&mut frame, start as u16, offset as u16));
            // What the receiver sums: the pseudo header, and the range with the field filled in.
            prop_assert_eq!(add(pseudo, sum(&frame[start..])), 0xffff);
            frame[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
            prop_assert_eq!(frame, before);
        }
    }
}
