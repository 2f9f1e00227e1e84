// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue of which all that passes is written down.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use vnet_backend::{Attachment, Frame, Losses, Meta, Offloads, Queue, Room, RxRing};
use vnet_capture::Recorder;

pub(crate) struct RecordedQueue {
    inner: Box<dyn Queue>,
    rx: Option<Recorder>,
    tx: Option<Recorder>,
}

impl RecordedQueue {
    pub(crate) fn new(inner: Box<dyn Queue>, rx: Option<Recorder>, tx: Option<Recorder>) -> Self {
        Self { inner, rx, tx }
    }
}

/// Looks at what is committed.
struct Ring<'r> {
    ring: &'r mut dyn RxRing,
    recorder: &'r mut Recorder,
}

impl RxRing for Ring<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        self.ring.room(len)
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        // Asked again, it is the same buffers.
        if let Some(room) = self.ring.room(len) {
            self.recorder.passed(&Frame {
                meta,
                len,
                parts: room.parts,
            });
        }
        self.ring.commit(len, meta);
    }
}

impl Queue for RecordedQueue {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let taken = self.inner.transmit(batch);
        if let Some(recorder) = &mut self.tx {
            for frame in &batch[..taken.min(batch.len())] {
                recorder.passed(frame);
            }
            recorder.hand_over();
        }
        taken
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        match &mut self.rx {
            Some(recorder) => {
                self.inner.receive(&mut Ring { ring, recorder });
                recorder.hand_over();
            }
            None => self.inner.receive(ring),
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readiness()
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn owes(&self) -> Option<Instant> {
        self.inner.owes()
    }

    fn has_work(&self) -> bool {
        self.inner.has_work()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        self.inner.attachment()
    }

    fn has_frames(&self) -> bool {
        self.inner.has_frames()
    }

    fn losses(&self) -> Losses {
        self.inner.losses()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn disconnect(&mut self) {
        self.inner.disconnect();
    }
}
