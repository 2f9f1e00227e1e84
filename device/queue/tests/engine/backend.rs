// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A backend that keeps what it is sent and delivers what it is told to.

use std::collections::VecDeque;

use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing};
use vnet_queue::mock::{Driver, Memory};
use vnet_queue::RxFilter;

/// Where the ring of a test lies.
pub(crate) const RING: u64 = 0x1_0000;
/// Where its buffers lie; the memory from here on has [`BUFFER_BYTES`].
pub(crate) const BUFFERS: u64 = 0x10_0000;
pub(crate) const BUFFER_BYTES: u64 = 0x10_0000;

/// Memory with room for a ring, a hole, and buffers.
pub(crate) fn memory() -> Memory {
    Memory::new(&[(RING, 0x4_0000), (BUFFERS, BUFFER_BYTES)])
}

pub(crate) fn driver(mem: &Memory, size: u16, features: u64) -> Driver {
    assert!(Driver::bytes(size) < 0x4_0000);
    Driver::new(mem, RING, size, features)
}

/// A frame of `len` bytes that is easy to tell from others.
pub(crate) fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i as u8) ^ seed).collect();
    if len >= 14 {
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
    }
    frame
}

pub(crate) fn everything() -> RxFilter {
    RxFilter {
        promisc: true,
        mtu: 9000,
        ..RxFilter::default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Backend {
    /// Frames that were transmitted.
    pub(crate) sent: Vec<(Vec<u8>, Meta)>,
    /// Frames that it takes before it is full; `None`: any number.
    pub(crate) takes: Option<usize>,
    /// Sizes of the batches that it was offered.
    pub(crate) batches: Vec<usize>,
    /// Frames to deliver.
    pub(crate) waiting: VecDeque<(Vec<u8>, Meta)>,
    /// Asks for this much room, as one does who does not know the length of the next frame.
    pub(crate) asks: Option<usize>,
    /// Takes no offload metadata.
    pub(crate) plain: bool,
}

impl Backend {
    pub(crate) fn with_frames(frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            waiting: frames.into_iter().map(|f| (f, Meta::default())).collect(),
            ..Self::default()
        }
    }
}

impl Queue for Backend {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.batches.push(batch.len());
        let n = self.takes.map_or(batch.len(), |t| t.min(batch.len()));
        for frame in &batch[..n] {
            let parts: usize = frame.parts.iter().map(|p| p.len()).sum();
            assert_eq!(parts, frame.len);
            assert!(frame.parts.iter().all(|p| !p.is_empty()));
            let mut bytes = vec![0; frame.len];
            assert_eq!(frame.read(&mut bytes), frame.len);
            self.sent.push((bytes, frame.meta));
        }
        if let Some(t) = &mut self.takes {
            *t -= n;
        }
        n
    }

    fn offloads(&self) -> Offloads {
        match self.plain {
            true => Offloads::default(),
            false => Offloads::ALL,
        }
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some((frame, meta)) = self.waiting.front() {
            let len = frame.len().max(self.asks.unwrap_or(0));
            let Some(room) = ring.room(len) else {
                return;
            };
            let parts: usize = room.parts.iter().map(|p| p.len()).sum();
            assert!(parts >= len && room.parts.iter().all(|p| !p.is_empty()));
            assert_eq!(room.write(frame), frame.len());
            ring.commit(frame.len(), *meta);
            self.waiting.pop_front();
        }
    }

    fn has_frames(&self) -> bool {
        !self.waiting.is_empty()
    }
}
