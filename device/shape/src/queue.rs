// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue with both of its lines.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{add, create, modify, CreateFlags, EventData, EventFlags};
use vm_memory::VolatileSlice;
use vnet_backend::{
    Attachment, Error, Frame, Losses, Offloads, Queue, Relay, RxRing, Taker, MAX_FRAME,
};
use vnet_segment::Segmenter;

use crate::line::Line;
use crate::shaped::Counters;

/// Frames that one call brings to the backend or fetches from it, and bytes of them.
const MOST_FRAMES: usize = 64;
const MOST_BYTES: usize = 256 << 10;
/// Time after which a backend that was full is tried again while the driver does not receive.
const RETRY: Duration = Duration::from_millis(10);

pub(crate) struct ShapedQueue {
    inner: Box<dyn Queue>,
    send: Line,
    receive: Line,
    /// The backend may take less now than it did when a frame set out.
    segmenter: Segmenter,
    buffer: Box<[u8]>,
    /// Readable when the backend is, while its frames have room on the line.
    epoll: Option<OwnedFd>,
    /// The backend is listened to.
    listens: bool,
    /// A frame has arrived at the backend, which does not take it now.
    blocked: bool,
    /// A frame has arrived at the card, which has no room for it now.
    starved: bool,
    /// The backend may have more than was fetched in the last call.
    unfinished: bool,
    /// Frames that arrived at the backend and are not what they say.
    refused: u64,
    /// Those of the card, with its first queue.
    counters: Option<Counters>,
}

impl ShapedQueue {
    pub(crate) fn new(
        inner: Box<dyn Queue>,
        send: Line,
        receive: Line,
        counters: Option<Counters>,
    ) -> Result<Self, Error> {
        let failed = |error: rustix::io::Errno| Error::Io {
            what: "cannot watch what is behind a shaped line".into(),
            source: error.into(),
        };
        let epoll = match inner.readiness() {
            None => None,
            Some(fd) => {
                let epoll = create(CreateFlags::CLOEXEC).map_err(failed)?;
                add(&epoll, fd, EventData::new_u64(0), EventFlags::IN).map_err(failed)?;
                Some(epoll)
            }
        };
        Ok(Self {
            inner,
            send,
            receive,
            segmenter: Segmenter::default(),
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
            epoll,
            listens: true,
            blocked: false,
            starved: false,
            unfinished: false,
            refused: 0,
            counters,
        })
    }

    /// Brings to the backend what has arrived there. What is left is due, and asked for again.
    fn pump(&mut self, now: Instant, budget: &mut Budget) {
        self.blocked = false;
        while !budget.is_spent() {
            let Some((bytes, meta)) = self.send.front(now) else {
                return;
            };
            let len = bytes.len();
            let frame = [Frame {
                meta,
                len,
                parts: &[VolatileSlice::from(bytes)],
            }];
            let taken = self.segmenter.transmit(self.inner.as_mut(), &frame);
            self.refused += taken.refused as u64;
            if taken.frames == 0 {
                // With a part of its segments sent, if there were too many for a call.
                self.blocked = !taken.spent;
                return;
            }
            budget.spend(len);
            self.send.pop();
        }
    }

    /// Puts on the line what the backend has.
    fn fetch(&mut self, now: Instant) {
        let mut relay = Relay::new(
            &mut self.buffer,
            Entrance {
                line: &mut self.receive,
                now,
                budget: Budget::default(),
            },
        );
        self.inner.receive(&mut relay);
        self.unfinished = relay.into_taker().budget.is_spent();
    }

    /// Brings to the card what has arrived there.
    fn deliver(&mut self, ring: &mut dyn RxRing, now: Instant) {
        self.starved = false;
        while let Some((frame, meta)) = self.receive.front(now) {
            let Some(room) = ring.room(frame.len()) else {
                self.starved = true;
                return;
            };
            let len = room.write(frame);
            ring.commit(len, meta);
            self.receive.pop();
        }
    }

    /// Listens to the backend if that has a reason.
    fn listen(&mut self) {
        let wanted = self.blocked || self.receive.has_room();
        if let (Some(epoll), Some(fd), true) =
            (&self.epoll, self.inner.readiness(), wanted != self.listens)
        {
            let events = match wanted {
                true => EventFlags::IN,
                false => EventFlags::empty(),
            };
            if modify(epoll, fd, EventData::new_u64(0), events).is_ok() {
                self.listens = wanted;
            }
        }
    }
}

/// What may yet pass in this call: the caller holds a lock meanwhile. A line that loses frames has room
/// for any number, and thousands may arrive at once.
struct Budget {
    frames: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            frames: MOST_FRAMES,
            bytes: MOST_BYTES,
        }
    }
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.frames == 0 || self.bytes == 0
    }

    fn spend(&mut self, len: usize) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(len);
    }
}

/// Where frames of the backend get onto the line.
struct Entrance<'l> {
    line: &'l mut Line,
    now: Instant,
    budget: Budget,
}

impl Taker for Entrance<'_> {
    fn is_ready(&mut self) -> bool {
        !self.budget.is_spent() && self.line.has_room()
    }

    fn take(&mut self, frame: &Frame<'_>) {
        self.budget.spend(frame.len);
        self.line.put(frame, self.now);
    }
}

impl Queue for ShapedQueue {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let now = Instant::now();
        let mut budget = Budget::default();
        self.pump(now, &mut budget);
        let mut taken = 0;
        while taken < batch.len() && self.send.has_room() {
            self.send.put(&batch[taken], now);
            taken += 1;
        }
        self.pump(now, &mut budget);
        self.listen();
        taken
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let now = Instant::now();
        self.pump(now, &mut Budget::default());
        self.deliver(ring, now);
        self.fetch(now);
        if !self.starved {
            self.deliver(ring, now);
        }
        self.listen();
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(AsFd::as_fd)
    }

    fn deadline(&self) -> Option<Instant> {
        // What waits for somebody else is not a matter of time.
        let send = self.send.due().filter(|_| !self.blocked);
        let receive = self.receive.due().filter(|_| !self.starved);
        let inner = self.inner.deadline();
        send.into_iter().chain(receive).chain(inner).min()
    }

    fn owes(&self) -> Option<Instant> {
        // The backend says by its descriptor when it takes more, or not at all.
        let send = self.send.due().map(|due| match self.blocked {
            true => Instant::now() + RETRY,
            false => due,
        });
        send.into_iter().chain(self.inner.owes()).min()
    }

    fn has_work(&self) -> bool {
        // Frames for the backend may have come due during the last call or been too many for it, and a
        // deadline that has passed does not always bring the worker back at once.
        let arrived = || self.send.due().is_some_and(|due| due <= Instant::now());
        (self.unfinished || self.inner.has_work()) && self.receive.has_room()
            || !self.blocked && arrived()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        self.inner.attachment()
    }

    fn has_frames(&self) -> bool {
        let arrived = || self.receive.due().is_some_and(|due| due <= Instant::now());
        self.inner.has_frames() && self.receive.has_room() || arrived()
    }

    fn losses(&self) -> Losses {
        // What the line loses is what was asked for, and has a counter of its own.
        let mut losses = self.inner.losses();
        losses.sent += self.refused;
        losses
    }

    fn reset(&mut self) {
        self.send.reset();
        self.receive.reset();
        if let Some(counters) = &self.counters {
            counters.close();
        }
        (self.blocked, self.starved, self.unfinished) = (false, false, false);
        self.inner.reset();
        self.listen();
    }

    fn disconnect(&mut self) {
        self.inner.disconnect();
    }
}
