// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card's side of a [`Queue`], for the tests of backends. Feature `mock`.

use vm_memory::VolatileSlice;

use crate::{Frame, Meta, Queue, Room, RxRing};

/// Lends `bytes` to `queue` as one frame in two buffers; true if the queue took it.
pub fn transmit(queue: &mut dyn Queue, bytes: &[u8], meta: Meta) -> bool {
    let mut bytes = bytes.to_vec();
    let len = bytes.len();
    let (a, b) = bytes.split_at_mut(len / 3);
    let taken = queue.transmit(&[Frame {
        meta,
        len,
        parts: &[VolatileSlice::from(a), VolatileSlice::from(b)],
    }]);
    taken == 1
}

/// Calls [`Queue::receive`] with a ring of `buffers` buffers of `size` bytes, one frame each, and
/// returns what was delivered.
pub fn receive(queue: &mut dyn Queue, buffers: usize, size: usize) -> Vec<(Vec<u8>, Meta)> {
    let mut memory = vec![0; size];
    let (a, b) = memory.split_at_mut(size / 3);
    let mut ring = Ring {
        buffers,
        size,
        parts: [VolatileSlice::from(a), VolatileSlice::from(b)],
        frames: Vec::new(),
    };
    queue.receive(&mut ring);
    ring.frames
}

struct Ring<'a> {
    buffers: usize,
    size: usize,
    parts: [VolatileSlice<'a>; 2],
    frames: Vec<(Vec<u8>, Meta)>,
}

impl RxRing for Ring<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        (self.buffers > 0 && len <= self.size).then_some(Room { parts: &self.parts })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        assert!(self.buffers > 0 && len <= self.size, "commit without room");
        self.buffers -= 1;
        let mut bytes = vec![0; len];
        Frame {
            meta,
            len,
            parts: &self.parts,
        }
        .read(&mut bytes);
        self.frames.push((bytes, meta));
    }
}
