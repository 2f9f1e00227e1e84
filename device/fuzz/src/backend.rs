// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A backend behind the queue engine, in whose calls the guest changes its memory.

use std::collections::VecDeque;

use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing, MAX_FRAME};

use crate::guest::Guest;

pub(crate) struct Backend<'g> {
    pub(crate) guest: &'g mut Guest,
    /// What the guest writes while the backend works.
    pub(crate) writes: Vec<(u64, Vec<u8>)>,
    /// What the device may change; see [`Guest::accept`].
    pub(crate) allowed: Option<(u64, u64)>,
    pub(crate) offloads: Offloads,
    /// Frames that it takes in one call.
    pub(crate) takes: usize,
    /// Bytes that it asks room for, beyond the length of the frame.
    pub(crate) asks: usize,
    pub(crate) frames: VecDeque<(Vec<u8>, Meta)>,
    pub(crate) sent: usize,
}

impl Backend<'_> {
    fn meddle(&mut self) {
        if let Some((at, bytes)) = self.writes.pop() {
            self.guest.accept(self.allowed);
            self.guest.write(at, &bytes);
        }
    }
}

impl Queue for Backend<'_> {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.meddle();
        let n = self.takes.min(batch.len());
        let mut bytes = vec![0; MAX_FRAME];
        for frame in &batch[..n] {
            assert!(self.offloads.cover(&frame.meta), "{:?}", frame.meta);
            assert!((14..=MAX_FRAME).contains(&frame.len));
            assert!(frame.parts.iter().all(|p| !p.is_empty()));
            let parts: usize = frame.parts.iter().map(|p| p.len()).sum();
            assert_eq!(parts, frame.len);
            assert_eq!(frame.read(&mut bytes), frame.len);
            self.sent += 1;
        }
        n
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some((frame, meta)) = self.frames.front() {
            let len = frame.len() + self.asks;
            let Some(room) = ring.room(len) else {
                return;
            };
            let parts: usize = room.parts.iter().map(|p| p.len()).sum();
            assert!(parts >= len && room.parts.iter().all(|p| !p.is_empty()));
            assert_eq!(room.write(frame), frame.len());
            ring.commit(frame.len(), *meta);
            self.frames.pop_front();
            self.meddle();
        }
    }

    fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }
}
