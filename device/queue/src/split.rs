// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Header-data split (data sheet, section 8.2): the headers of a received frame go to a buffer of
//! their own.
//!
//! A backend writes a frame before anybody knows how long its headers are. So it is lent the header
//! buffer as far as the headers of the last frame reached, and then the buffers for payload. Most
//! frames have headers of the same length as the one before; the others are moved.

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Room, MAX_FRAME};
use vnet_rss::flow;

use crate::steer::FRAME_START;

/// Headers of TCP over IPv4 with a time stamp: what to expect of the first frame.
const USUAL: usize = 14 + 20 + 32;

/// State of a queue that splits frames.
#[derive(Debug)]
pub(crate) struct Split {
    expected: usize,
    /// A frame that is moved.
    scratch: Box<[u8]>,
}

/// Where a frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Bytes in the header buffer.
    pub(crate) at: usize,
    /// These are the headers, all of them and nothing else.
    pub(crate) split: bool,
}

impl Split {
    pub(crate) fn new() -> Self {
        Self {
            expected: USUAL,
            scratch: vec![0; MAX_FRAME].into_boxed_slice(),
        }
    }

    /// Length of headers to expect.
    pub(crate) fn expected(&self) -> usize {
        self.expected
    }

    /// Expects this frame.
    pub(crate) fn expect(&mut self, frame: &[u8]) {
        let start = &frame[..frame.len().min(FRAME_START)];
        if let Some(headers) = flow::headers(start) {
            self.expected = headers;
        }
    }

    /// Decides where to cut a frame of `len` bytes, of which `start` are the first, when `room`
    /// bytes fit into the header buffer.
    pub(crate) fn cut(&mut self, start: &[u8], len: usize, room: usize) -> Cut {
        match flow::headers(start).filter(|&headers| headers <= room) {
            Some(headers) => {
                self.expected = headers;
                Cut {
                    at: headers,
                    split: true,
                }
            }
            None => Cut {
                at: len.min(room),
                split: false,
            },
        }
    }

    /// Moves a frame that lies elsewhere: its first `at` bytes to `header`, the rest to `payload`,
    /// which are long enough.
    #[cold]
    pub(crate) fn arrange(
        &mut self,
        frame: &Frame<'_>,
        at: usize,
        header: VolatileSlice<'_>,
        payload: &[VolatileSlice<'_>],
    ) {
        // The places overlap.
        let frame = match self.scratch.get_mut(..frame.len) {
            Some(bytes) => {
                let len = frame.read(bytes);
                &bytes[..len]
            }
            None => return,
        };
        let (headers, rest) = frame.split_at(at.min(frame.len()));
        header.copy_from(headers);
        Room { parts: payload }.write(rest);
    }
}
