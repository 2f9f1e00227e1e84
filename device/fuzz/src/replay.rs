// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A file of frames to replay, that may be anything.

use std::io::{self, Read};
use std::time::Duration;

use vnet_backend::MAX_FRAME;
use vnet_replay::{BadCapture, Capture};

/// Header of an Ethernet frame.
const MIN_FRAME: usize = 14;

/// A file of one of the formats, or not. What is taken for frames could be some: each has a length
/// that a card can receive, none comes before the one before it, and all of them together are no
/// longer than the file. What is refused is so in one line. A file that arrives in pieces is the same.
pub fn replay(data: &[u8]) {
    let whole = Capture::read(data);
    let pieces = Capture::read(Pieces(data));
    match (whole, pieces) {
        (Ok(capture), Ok(other)) => {
            assert_eq!(format!("{capture:?}"), format!("{other:?}"));
            look_at(&capture, data.len());
        }
        (Err(e), Err(_)) => {
            assert!(!e.to_string().contains('\n'));
            assert!(!matches!(e, BadCapture::TooLarge));
        }
        (whole, pieces) => panic!("at once {whole:?}, in pieces {pieces:?}"),
    }
}

fn look_at(capture: &Capture, most: usize) {
    let (mut bytes, mut last) = (0, Duration::ZERO);
    assert!(!capture.is_empty());
    for index in 0..capture.len() {
        let (frame, time) = capture.frame(index).expect("as many as it says");
        assert!((MIN_FRAME..=MAX_FRAME).contains(&frame.len()));
        assert!(time >= last);
        bytes += frame.len();
        last = time;
    }
    assert!(capture.frame(capture.len()).is_none());
    assert!(bytes <= most);
}

/// Gives no more than some bytes at a time, as a pipe does.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = to.len().min(100);
        self.0.read(&mut to[..most])
    }
}
