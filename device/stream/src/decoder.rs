// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames out of a stream of bytes.

use vnet_backend::MAX_FRAME;

use crate::{MAX_RECORD, PREFIX};

/// Bytes that are read at once, at most.
const CAPACITY: usize = 256 * 1024;
/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// The peer has named a length that no frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub u32);

/// Takes bytes as they come and gives whole frames. The memory is allocated at the start, and no
/// length that the peer names makes it grow.
#[derive(Debug)]
pub struct Decoder {
    bytes: Box<[u8]>,
    /// What was read and not yet taken out is at `start..end`.
    start: usize,
    end: usize,
    /// The next frame is of no interest any more.
    stale: bool,
    runts: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            bytes: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            stale: false,
            runts: 0,
        }
    }
}

impl Decoder {
    /// Where the next bytes go. Not empty if [`Self::front`] has just said that there is no frame.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.start < MAX_RECORD {
            // What has begun must fit as a whole.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `count` bytes were written to the start of [`Self::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The next frame, if all of it is there. Frames that are too short to be any are passed over
    /// and counted.
    pub fn front(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let waiting = &self.bytes[self.start..self.end];
            let Some((prefix, behind)) = waiting.split_first_chunk::<PREFIX>() else {
                return Ok(None);
            };
            let named = u32::from_be_bytes(*prefix);
            let len = match usize::try_from(named) {
                Ok(len) if len <= MAX_FRAME => len,
                _ => return Err(TooLong(named)),
            };
            if behind.len() < len {
                return Ok(None);
            }
            if len < MIN_FRAME {
                self.runts += 1;
            } else if !self.stale {
                let at = self.start + PREFIX;
                return Ok(Some(&self.bytes[at..at + len]));
            }
            self.stale = false;
            self.start += PREFIX + len;
        }
    }

    /// Removes the frame that [`Self::front`] gave.
    pub fn pop(&mut self) {
        if let Ok(Some(frame)) = self.front() {
            self.start += PREFIX + frame.len();
        }
    }

    /// Removes the frames that are there, and the one that has begun as soon as all of it is.
    /// Returns how many there were.
    pub fn discard(&mut self) -> u64 {
        let mut frames = 0;
        while let Ok(Some(_)) = self.front() {
            self.pop();
            frames += 1;
        }
        self.stale = self.start < self.end;
        frames
    }

    /// Forgets all bytes: what comes next is another stream.
    pub fn restart(&mut self) {
        (self.start, self.end, self.stale) = (0, 0, false);
    }

    /// Frames that were too short, so far.
    pub fn runts(&self) -> u64 {
        self.runts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(frame: &[u8]) -> Vec<u8> {
        let len = u32::try_from(frame.len()).unwrap();
        [&len.to_be_bytes()[..], frame].concat()
    }

    /// Puts bytes in as far as they fit.
    fn feed<'b>(decoder: &mut Decoder, bytes: &'b [u8]) -> &'b [u8] {
        let space = decoder.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        decoder.filled(n);
        &bytes[n..]
    }

    fn drain(decoder: &mut Decoder) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.front()? {
            frames.push(frame.to_vec());
            decoder.pop();
        }
        Ok(frames)
    }

    #[test]
    fn a_length_that_no_frame_has_ends_it() {
        for len in [MAX_FRAME as u32 + 1, 1 << 20, 1 << 31, u32::MAX] {
            let mut decoder = Decoder::default();
            feed(&mut decoder, &record(&[7; 60]));
            feed(&mut decoder, &len.to_be_bytes());
            assert_eq!(decoder.front(), Ok(Some(&[7; 60][..])));
            decoder.pop();
            assert_eq!(decoder.front(), Err(TooLong(len)));
            decoder.pop();
            decoder.discard();
            assert_eq!(decoder.front(), Err(TooLong(len)));
            decoder.restart();
            assert_eq!(decoder.front(), Ok(None));
        }
    }

    #[test]
    fn what_is_there_is_discarded_and_what_has_begun() {
        let mut decoder = Decoder::default();
        let stream = [1, 2, 3, 4].map(|n| record(&[n; 60])).concat();
        feed(&mut decoder, &stream[..150]);
        decoder.discard();
        assert_eq!(decoder.front(), Ok(None));
        feed(&mut decoder, &stream[150..]);
        assert_eq!(drain(&mut decoder), Ok(vec![vec![4; 60]]));
        decoder.discard();
        feed(&mut decoder, &stream[..64]);
        assert_eq!(drain(&mut decoder), Ok(vec![vec![1; 60]]));
    }

    proptest! {
        /// In pieces of any size, with a taker that is sometimes slow.
        #[test]
        fn frames_come_out_as_they_went_in(
            lens in prop::collection::vec(prop_oneof![
                4 => 0usize..100,
                2 => 1400usize..1600,
                1 => MAX_FRAME - 2..=MAX_FRAME,
            ], 1..40),
            pieces in prop::collection::vec((1usize..200_000, any::<bool>()), 1..20),
        ) {
            let frames: Vec<_> = lens.iter().zip(0u8..).map(|(&len, n)| vec![n; len]).collect();
            let stream = frames.iter().map(|f| record(f)).collect::<Vec<_>>().concat();
            let mut decoder = Decoder::default();
            let mut left = &stream[..];
            let mut got = Vec::new();
            for (size, take) in pieces.into_iter().cycle() {
                let (now, later) = left.split_at(size.min(left.len()));
                let refused = feed(&mut decoder, now).len();
                left = &left[now.len() - refused..];
                prop_assert!(refused == 0 || !later.is_empty() || now.len() >= refused);
                if take || refused > 0 {
                    got.extend(drain(&mut decoder).unwrap());
                    // There is room now, or the peer could never go on.
                    prop_assert!(!decoder.space().is_empty());
                }
                if left.is_empty() {
                    break;
                }
            }
            got.extend(drain(&mut decoder).unwrap());
            let short = frames.iter().filter(|f| f.len() < MIN_FRAME).count() as u64;
            prop_assert_eq!(decoder.runts(), short);
            let whole: Vec<_> = frames.into_iter().filter(|f| f.len() >= MIN_FRAME).collect();
            prop_assert_eq!(got, whole);
        }
    }
}
