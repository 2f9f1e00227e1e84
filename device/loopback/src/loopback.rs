// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The backend that gives every frame back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use vnet_backend::{
    checksum, Capabilities, Checksum, Endpoint, Error, Fifo, Frame, Offloads, Queue, RxRing,
};

use crate::MAX_QUEUES;

/// Frames that wait for the guest, per queue. Enough for the bursts of a batching driver; with
/// more, only the delay grows.
const MAX_FRAMES: usize = 1024;
/// The same in bytes. Room for a few frames of the largest size.
const MAX_BYTES: usize = 1 << 20;

const CHECKSUM: Offloads = Offloads {
    checksum: true,
    tso4: false,
    tso6: false,
    ecn: false,
    uso: false,
};

/// Returns each transmitted frame on the queue that sent it. A queue whose guest does not receive
/// loses the newest frames.
#[derive(Debug, Default)]
pub struct Loopback {
    /// True while the driver accepts checksum metadata. Independent of everything else that the
    /// queues see, so relaxed accesses do.
    takes_checksum: Arc<AtomicBool>,
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
            transmit: CHECKSUM,
            receive: CHECKSUM,
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|_| {
                Box::new(Mirror {
                    waiting: Fifo::new(MAX_FRAMES, MAX_BYTES),
                    takes_checksum: self.takes_checksum.clone(),
                    lost: 0,
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.takes_checksum
            .store(receive.checksum, Ordering::Relaxed);
    }
}

struct Mirror {
    waiting: Fifo,
    takes_checksum: Arc<AtomicBool>,
    lost: u64,
}

impl Queue for Mirror {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            // Segmentation is not offered, so a frame that asks for it is the driver's mistake.
            let taken = frame.meta.gso.is_none()
                && self.waiting.push(frame.len, frame.meta, |bytes| {
                    frame.read(bytes);
                });
            self.lost += u64::from(!taken);
        }
        batch.len()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let takes_checksum = self.takes_checksum.load(Ordering::Relaxed);
        while let Some((frame, mut meta)) = self.waiting.front() {
            let Some(room) = ring.room(frame.len()) else {
                break;
            };
            if !takes_checksum {
                if let Checksum::Partial { start, offset } = meta.checksum {
                    if !checksum::complete(frame, start, offset) {
                        self.waiting.pop();
                        self.lost += 1;
                        continue;
                    }
                }
                meta.checksum = Checksum::Unverified;
            }
            let len = room.write(frame);
            ring.commit(len, meta);
            self.waiting.pop();
        }
    }

    fn has_frames(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }
}
