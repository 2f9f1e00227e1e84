// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The backend that gives every frame back.

use std::sync::Arc;

use vnet_backend::{
    Capabilities, Endpoint, Error, Fifo, Frame, Losses, Offloads, Queue, RxRing, SharedOffloads,
};

use crate::MAX_QUEUES;

/// Frames that wait for the guest, per queue. Enough for the bursts of a batching driver; with
/// more, only the delay grows.
const MAX_FRAMES: usize = 1024;
/// The same in bytes. Room for a few frames of the largest size.
const MAX_BYTES: usize = 1 << 20;

/// Returns each transmitted frame on the queue that sent it. A queue whose guest does not receive
/// loses the newest frames.
#[derive(Debug, Default)]
pub struct Loopback {
    /// What the driver accepts with received frames, and so what it can be sent back.
    offloads: Arc<SharedOffloads>,
}

impl Loopback {
    /// The endpoint.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Endpoint for Loopback {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::ALL,
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|_| {
                Box::new(Mirror {
                    waiting: Fifo::new(MAX_FRAMES, MAX_BYTES),
                    offloads: self.offloads.clone(),
                    missed: 0,
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.offloads.set(receive);
    }
}

struct Mirror {
    waiting: Fifo,
    offloads: Arc<SharedOffloads>,
    missed: u64,
}

impl Queue for Mirror {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            let taken = self.waiting.push(frame.len, frame.meta, |bytes| {
                frame.read(bytes);
            });
            self.missed += u64::from(!taken);
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.offloads.get()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some((frame, meta)) = self.waiting.front() {
            let Some(room) = ring.room(frame.len()) else {
                break;
            };
            let len = room.write(frame);
            ring.commit(len, meta);
            self.waiting.pop();
        }
    }

    fn has_frames(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn losses(&self) -> Losses {
        Losses {
            missed: self.missed,
            ..Losses::default()
        }
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }
}
