// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A receive ring for who stands before a backend instead of a card.

use vm_memory::VolatileSlice;

use crate::{Frame, Meta, Room, RxRing};

/// Takes the frames that a backend delivers.
pub trait Taker {
    /// True if it takes one more.
    fn is_ready(&mut self) -> bool;

    /// Takes a frame. Only after [`Self::is_ready`].
    fn take(&mut self, frame: &Frame<'_>);
}

/// Lends a buffer for one frame after the other, and passes each on.
#[derive(Debug)]
pub struct Relay<'b, T> {
    buffer: [VolatileSlice<'b>; 1],
    taker: T,
}

impl<'b, T: Taker> Relay<'b, T> {
    /// Lends this buffer, of [`MAX_FRAME`](crate::MAX_FRAME) bytes so that any frame fits.
    pub fn new(buffer: &'b mut [u8], taker: T) -> Self {
        Self {
            buffer: [VolatileSlice::from(&mut buffer[..])],
            taker,
        }
    }

    /// Gives back who has taken the frames.
    pub fn into_taker(self) -> T {
        self.taker
    }
}

impl<T: Taker> RxRing for Relay<'_, T> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        (len <= self.buffer[0].len() && self.taker.is_ready()).then_some(Room {
            parts: &self.buffer,
        })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        if let Ok(bytes) = self.buffer[0].subslice(0, len) {
            self.taker.take(&Frame {
                meta,
                len,
                parts: &[bytes],
            });
        }
    }
}
