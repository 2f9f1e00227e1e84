// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that the guest does not take as the kernel has them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use vnet_backend::{Fifo, Frame, Losses, Meta, Offloads, Queue, Room, RxRing, MAX_FRAME};
use vnet_segment::{Segmenter, MAX_SEGMENTS};
use vnet_tap::{Port, Shared};

use crate::sys;
use crate::wire::Socket;

/// Room for the segments of a frame.
const MAX_BYTES: usize = 4 * MAX_FRAME;

/// A queue that finishes them.
pub(crate) struct Finisher {
    inner: Port<Socket>,
    shared: Arc<Shared>,
    segmenter: Segmenter,
    finished: Finished,
    /// Frames that the socket had no room for.
    missed: u64,
}

/// Frames that are ready for the guest.
struct Finished {
    frames: Fifo,
    takes: Offloads,
    lost: u64,
}

impl Finisher {
    pub(crate) fn new(inner: Port<Socket>, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            segmenter: Segmenter::default(),
            finished: Finished {
                frames: Fifo::new(MAX_SEGMENTS, MAX_BYTES),
                takes: Offloads::default(),
                lost: 0,
            },
            missed: 0,
        }
    }
}

impl Finished {
    /// Delivers them; false if there is no room for the next one.
    fn deliver(&mut self, ring: &mut dyn RxRing) -> bool {
        while let Some((frame, meta)) = self.frames.front() {
            let Some(room) = ring.room(frame.len()) else {
                return false;
            };
            let len = room.write(frame);
            ring.commit(len, meta);
            self.frames.pop();
        }
        true
    }
}

impl Queue for Finished {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            let taken = self.frames.push(frame.len, frame.meta, |bytes| {
                frame.read(bytes);
            });
            self.lost += u64::from(!taken);
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.takes
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

/// Lends the guest's buffers, and keeps back what has to be finished first.
struct Sieve<'r> {
    ring: &'r mut dyn RxRing,
    segmenter: &'r mut Segmenter,
    finished: &'r mut Finished,
    /// A frame was kept back: the next one has to wait for it.
    caught: bool,
}

impl RxRing for Sieve<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        match self.caught {
            true => None,
            false => self.ring.room(len),
        }
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        if self.finished.takes.cover(&meta) {
            return self.ring.commit(len, meta);
        }
        // Asked for once more, the room is the same, with the frame in it.
        let Some(room) = self.ring.room(len) else {
            self.finished.lost += 1;
            return;
        };
        let frame = [Frame {
            meta,
            len,
            parts: room.parts,
        }];
        let taken = self.segmenter.transmit(self.finished, &frame);
        self.finished.lost += taken.refused as u64;
        self.caught = true;
    }
}

impl Queue for Finisher {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.inner.transmit(batch)
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        self.finished.takes = self.shared.offloads.get();
        while self.finished.deliver(ring) {
            let mut sieve = Sieve {
                ring,
                segmenter: &mut self.segmenter,
                finished: &mut self.finished,
                caught: false,
            };
            self.inner.receive(&mut sieve);
            if !sieve.caught {
                break;
            }
        }
        if let Some(socket) = self.inner.readiness() {
            self.missed += u64::from(sys::lost(socket));
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readiness()
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn has_frames(&self) -> bool {
        self.inner.has_frames() || !self.finished.frames.is_empty()
    }

    fn losses(&self) -> Losses {
        let mut losses = self.inner.losses();
        losses.received += self.finished.lost;
        losses.missed += self.missed;
        losses
    }

    fn reset(&mut self) {
        self.finished.frames.clear();
        self.inner.reset();
        if let Some(socket) = self.inner.readiness() {
            // Nobody has missed what there was no room for until now.
            sys::lost(socket);
        }
    }
}
