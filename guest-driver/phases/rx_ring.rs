// SPDX-License-Identifier: GPL-2.0

//! A ring of buffers that a device writes received frames to, in software: what phase 4 is about.

use kernel::prelude::*;

/// Bytes of a buffer: the shortest frame that Ethernet has, without its checksum.
pub(crate) const FRAME: usize = 60;

/// A frame of that length.
pub(crate) type Frame = [u8; FRAME];

/// Buffers; a power of two.
const SIZE: u32 = 256;

/// Buffers that change hands: those from `tail` to `head` hold frames for the driver, the others are the
/// device's to write. Both count on and wrap, as in the transmit ring.
pub(crate) struct RxRing {
    buffers: KVec<Frame>,
    /// The device: where it writes the next frame.
    head: u32,
    /// The driver: where it reads the next one.
    tail: u32,
}

impl RxRing {
    /// An empty ring, with all of its memory: none is allocated in an interrupt.
    pub(crate) fn new() -> Result<Self> {
        let mut buffers = KVec::with_capacity(SIZE as usize, GFP_KERNEL)?;
        for _ in 0..SIZE {
            buffers.push([0; FRAME], GFP_KERNEL)?;
        }
        Ok(Self {
            buffers,
            head: 0,
            tail: 0,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// The device writes a frame. False if the driver has left it no buffer: the frame is lost.
    pub(crate) fn write(&mut self, frame: &Frame) -> bool {
        if self.head.wrapping_sub(self.tail) == SIZE {
            return false;
        }
        let Some(buffer) = self.buffers.get_mut((self.head % SIZE) as usize) else {
            return false;
        };
        *buffer = *frame;
        self.head = self.head.wrapping_add(1);
        true
    }

    /// The same with a frame that is made here: a broadcast with a number in it, of the EtherType that is
    /// for local experiments.
    #[allow(dead_code)] // phase 7 has better ones
    pub(crate) fn write_numbered(&mut self) -> bool {
        let mut frame = [0; FRAME];
        frame[..6].copy_from_slice(&[0xff; 6]);
        frame[6..12].copy_from_slice(&[0x02, 0x76, 0x6e, 0x65, 0x74, 0xfe]);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[14..18].copy_from_slice(&self.head.to_be_bytes());
        self.write(&frame)
    }

    /// The driver takes a frame, and gives its buffer back to the device.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let frame = *self.buffers.get((self.tail % SIZE) as usize)?;
        self.tail = self.tail.wrapping_add(1);
        Some(frame)
    }

    /// Forgets what nobody has taken.
    pub(crate) fn clear(&mut self) {
        self.tail = self.head;
    }
}
