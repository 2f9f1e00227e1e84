// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backends that behave in one special way each.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use vnet_backend::{Attachment, Frame, Losses, Meta, Queue, RxRing};

/// Returns every frame to its sender; holds at most `limit` of them.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) limit: usize,
    pub(crate) frames: VecDeque<Vec<u8>>,
}

impl Echo {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            frames: VecDeque::new(),
        }
    }
}

impl Queue for Echo {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let n = batch.len().min(self.limit - self.frames.len());
        for frame in &batch[..n] {
            let mut bytes = vec![0; frame.len];
            frame.read(&mut bytes);
            self.frames.push_back(bytes);
        }
        n
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some(frame) = self.frames.front() {
            let Some(room) = ring.room(frame.len()) else {
                return;
            };
            room.write(frame);
            ring.commit(frame.len(), Meta::default());
            self.frames.pop_front();
        }
    }

    fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    fn reset(&mut self) {
        self.frames.clear();
    }
}

/// What a test shares with its backend.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Frames that another thread sends to the guest.
    pub(crate) inbox: Mutex<VecDeque<Vec<u8>>>,
    ready: OwnedFd,
    /// Frames that the guest sent.
    pub(crate) sent: AtomicU64,
    /// What it lost.
    pub(crate) losses: Mutex<Losses>,
    /// `transmit` takes nothing.
    pub(crate) full: AtomicBool,
    /// `transmit` panics.
    pub(crate) broken: AtomicBool,
    /// `transmit` takes this many microseconds.
    pub(crate) slow: AtomicU64,
    /// Something that takes such time is under way.
    pub(crate) busy: AtomicBool,
    /// How often something like that began.
    pub(crate) began: AtomicU64,
    /// Calls of `receive`.
    pub(crate) received: AtomicU64,
    /// The descriptor stays readable whatever is done.
    pub(crate) noisy: AtomicBool,
    /// A round, which asks for the deadline last, takes this many microseconds more.
    pub(crate) lingers: AtomicU64,
    pub(crate) deadline: Mutex<Option<Instant>>,
    /// A batch without frames is due then, for some that `transmit` took.
    pub(crate) owes: Mutex<Option<Instant>>,
    /// Batches without frames.
    pub(crate) empty: AtomicU64,
    /// The deadline stays when it has passed.
    pub(crate) insists: AtomicBool,
    /// Calls of `receive` that the backend has work for, without frames.
    pub(crate) work: AtomicU64,
    /// Its queues wait for each other.
    pub(crate) shared: AtomicBool,
    /// Frames for the card are sent to this queue.
    pub(crate) attached: AtomicBool,
    /// Calls of `transmit` on another thread than the worker's.
    pub(crate) inline: AtomicU64,
}

impl Wire {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap(),
            sent: AtomicU64::new(0),
            losses: Mutex::default(),
            full: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            slow: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            began: AtomicU64::new(0),
            received: AtomicU64::new(0),
            noisy: AtomicBool::new(false),
            lingers: AtomicU64::new(0),
            deadline: Mutex::default(),
            owes: Mutex::default(),
            empty: AtomicU64::new(0),
            insists: AtomicBool::new(false),
            work: AtomicU64::new(0),
            shared: AtomicBool::new(false),
            attached: AtomicBool::new(true),
            inline: AtomicU64::new(0),
        })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn take_time(&self, micros: &AtomicU64) {
        let micros = micros.load(Ordering::SeqCst);
        if micros > 0 {
            self.busy.store(true, Ordering::SeqCst);
            self.began.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(micros));
            self.busy.store(false, Ordering::SeqCst);
        }
    }

    /// Makes the descriptor readable.
    pub(crate) fn ready(&self) {
        rustix::io::write(&self.ready, &1u64.to_ne_bytes()).unwrap();
    }

    /// Sends a frame to the guest.
    pub(crate) fn deliver(&self, frame: Vec<u8>) {
        self.inbox.lock().unwrap().push_back(frame);
        self.ready();
    }
}

/// The backend at the other end.
#[derive(Debug)]
pub(crate) struct Tap(pub(crate) Arc<Wire>);

impl Queue for Tap {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let wire = &self.0;
        assert!(!wire.broken.load(Ordering::SeqCst), "as the test wants it");
        if batch.is_empty() {
            wire.empty.fetch_add(1, Ordering::SeqCst);
            let _ = rustix::io::read(&wire.ready, &mut [0; 8]);
            let mut owes = wire.owes.lock().unwrap();
            owes.take_if(|due| *due <= Instant::now());
            return 0;
        }
        if wire.full.load(Ordering::SeqCst) {
            let _ = rustix::io::read(&wire.ready, &mut [0; 8]);
            return 0;
        }
        let by_worker = std::thread::current().name() == Some("vnet-q3");
        wire.inline
            .fetch_add(u64::from(!by_worker), Ordering::SeqCst);
        wire.take_time(&wire.slow);
        wire.sent.fetch_add(batch.len() as u64, Ordering::SeqCst);
        batch.len()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let wire = &self.0;
        wire.received.fetch_add(1, Ordering::SeqCst);
        if self.has_work() {
            wire.work.fetch_sub(1, Ordering::SeqCst);
        }
        let mut inbox = wire.inbox.lock().unwrap();
        while let Some(frame) = inbox.front() {
            let Some(room) = ring.room(frame.len()) else {
                return;
            };
            room.write(frame);
            ring.commit(frame.len(), Meta::default());
            inbox.pop_front();
        }
        if !wire.noisy.load(Ordering::SeqCst) {
            let _ = rustix::io::read(&wire.ready, &mut [0; 8]);
        }
        let mut deadline = wire.deadline.lock().unwrap();
        if deadline.is_some_and(|d| d <= Instant::now()) && !wire.insists.load(Ordering::SeqCst) {
            *deadline = None;
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.ready.as_fd())
    }

    fn owes(&self) -> Option<Instant> {
        *self.0.owes.lock().unwrap()
    }

    fn has_work(&self) -> bool {
        self.0.work.load(Ordering::SeqCst) > 0
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        Some(Box::new(Plug(self.0.clone())))
    }

    fn is_shared(&self) -> bool {
        self.0.shared.load(Ordering::SeqCst)
    }

    fn losses(&self) -> Losses {
        *self.0.losses.lock().unwrap()
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.take_time(&self.0.lingers);
        *self.0.deadline.lock().unwrap()
    }
}

/// Connects a [`Tap`] with the traffic.
struct Plug(Arc<Wire>);

impl Attachment for Plug {
    fn set_attached(&mut self, attached: bool) {
        let before = self.0.attached.swap(attached, Ordering::SeqCst);
        assert_ne!(before, attached, "told twice");
    }
}
