// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};

use crate::chance::Chance;
use crate::line::{Clock, Line};
use crate::queue::ShapedQueue;
use crate::Config;

/// An endpoint behind a line.
pub struct Shaped {
    inner: Box<dyn Endpoint>,
    config: Config,
    counters: Counters,
}

/// Counts what became of frames in each direction.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    send: Arc<Tally>,
    receive: Arc<Tally>,
}

/// What became of the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames that came to the line.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames that were lost.
    pub lost: u64,
    /// Frames that went on twice.
    pub duplicated: u64,
    /// Frames that were put behind the next one.
    pub reordered: u64,
}

impl Counters {
    /// What the card has sent since it was reset, and what it was to receive.
    pub fn report(&self) -> [Report; 2] {
        [self.send.report(), self.receive.report()]
    }

    /// The same since the line was made. Never decreases.
    pub fn totals(&self) -> [Report; 2] {
        [self.send.totals(), self.receive.totals()]
    }

    /// Says what it came to, and begins anew.
    pub(crate) fn close(&self) {
        let [send, receive] = self.report();
        if send.frames + receive.frames > 0 {
            info!("shape: sent {send}; received {receive}");
        }
        self.send.clear();
        self.receive.clear();
    }
}

/// The counters of one direction.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    frames: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    /// What they came to before they were last cleared; locked by who clears them or adds them up.
    before: Mutex<Report>,
}

impl Tally {
    pub(crate) fn seen(&self, bytes: usize) {
        self.frames.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    pub(crate) fn twice(&self) {
        self.duplicated.fetch_add(1, Relaxed);
    }

    pub(crate) fn late(&self) {
        self.reordered.fetch_add(1, Relaxed);
    }

    fn clear(&self) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, sum) in self.all().into_iter().zip(before.all()) {
            *sum += counter.swap(0, Relaxed);
        }
    }

    fn totals(&self) -> Report {
        // Locked until the end, so that nothing counts twice or not at all.
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = *before;
        for (counter, sum) in self.all().into_iter().zip(sum.all()) {
            *sum += counter.load(Relaxed);
        }
        drop(before);
        sum
    }

    fn all(&self) -> [&AtomicU64; 5] {
        [
            &self.frames,
            &self.bytes,
            &self.lost,
            &self.duplicated,
            &self.reordered,
        ]
    }

    fn report(&self) -> Report {
        Report {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.lost.load(Relaxed),
            duplicated: self.duplicated.load(Relaxed),
            reordered: self.reordered.load(Relaxed),
        }
    }
}

impl Report {
    /// In the order of [`Tally::all`].
    fn all(&mut self) -> [&mut u64; 5] {
        [
            &mut self.frames,
            &mut self.bytes,
            &mut self.lost,
            &mut self.duplicated,
            &mut self.reordered,
        ]
    }
}

impl Shaped {
    /// Puts a line before an endpoint.
    pub fn new(inner: Box<dyn Endpoint>, config: Config) -> Self {
        Self {
            inner,
            config,
            counters: Counters::default(),
        }
    }

    /// What becomes of frames.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            frames,
            bytes,
            lost,
            duplicated,
            reordered,
        } = self;
        write!(
            f,
            "{frames} frames, {bytes} bytes, {lost} lost, {duplicated} twice, {reordered} late"
        )
    }
}

impl Endpoint for Shaped {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn link(&self) -> Link {
        self.inner.link()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let Config {
            send,
            receive,
            seed,
        } = self.config;
        let (sending, receiving) = (Clock::default(), Clock::default());
        let queues = (0u64..).zip(self.inner.open(queues)?);
        queues
            .map(|(index, inner)| -> Result<Box<dyn Queue>, Error> {
                let line = |lane, number, clock: &Clock, tally: &Arc<Tally>| {
                    let chance = Chance::new(seed, 2 * index + number);
                    Line::new(lane, chance, Arc::clone(clock), Arc::clone(tally))
                };
                let send = line(send, 1, &sending, &self.counters.send);
                let receive = line(receive, 0, &receiving, &self.counters.receive);
                let counters = (index == 0).then(|| self.counters.clone());
                Ok(Box::new(ShapedQueue::new(inner, send, receive, counters)?))
            })
            .collect()
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.inner.set_offloads(receive);
    }

    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}
