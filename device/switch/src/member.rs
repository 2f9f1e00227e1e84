// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A port, as the others see it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::OnceLock;

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Offloads, Queue, RxRing, SharedOffloads};
use vnet_segment::Segmenter;

use crate::head::Outside;
use crate::inbox::Inbox;
use crate::{Config, Mirror};

/// Most queues of a port: a bit of a word for each.
pub(crate) const MAX_QUEUES: u16 = 64;

/// Bytes that are as much work as a frame is.
const BYTES_OF_WORK: usize = 2048;

/// Counters of a port. Frames that the switch lost are counted where they would have come out, and
/// those that it did not let in where they came in.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// The port had no room for a frame.
    pub(crate) full: AtomicU64,
    /// A frame that the port must not send: VLAN, addresses.
    pub(crate) refused: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u32,
    pub(crate) config: Config,
    /// One for each queue, once the port is open.
    inboxes: OnceLock<Vec<Inbox>>,
    /// Queues whose driver receives, a bit for each.
    attached: AtomicU64,
    /// What may come along with frames.
    pub(crate) offloads: SharedOffloads,
    pub(crate) counters: Counters,
}

impl Member {
    pub(crate) fn new(id: u32, config: Config) -> Self {
        Self {
            id,
            config,
            inboxes: OnceLock::new(),
            attached: AtomicU64::new(0),
            offloads: SharedOffloads::default(),
            counters: Counters::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: u32) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self::new(id, Config::default()))
    }

    /// Begins to receive. Once only.
    pub(crate) fn open(&self, queues: u16) -> std::io::Result<()> {
        let inboxes = (0..queues)
            .map(|_| Inbox::new())
            .collect::<Result<_, _>>()?;
        if self.inboxes.set(inboxes).is_ok() {
            (0..queues).for_each(|queue| self.attach(queue, true));
        }
        Ok(())
    }

    pub(crate) fn inbox(&self, queue: u16) -> Option<&Inbox> {
        self.inboxes.get()?.get(usize::from(queue))
    }

    pub(crate) fn attach(&self, queue: u16, attached: bool) {
        let bit = 1 << (queue % MAX_QUEUES);
        match attached {
            true => self.attached.fetch_or(bit, Relaxed),
            false => self.attached.fetch_and(!bit, Relaxed),
        };
    }

    pub(crate) fn mirrors(&self, other: &Member) -> bool {
        match &self.config.mirror {
            None => false,
            Some(Mirror::All) => true,
            Some(Mirror::Port(name)) => other.config.port.as_ref() == Some(name),
        }
    }

    /// Brings a frame to one of the queues that receive. `from` is the queue that it came in by:
    /// the frames of one stay in order.
    pub(crate) fn deliver(&self, frame: &Outside<'_>, from: u16, flooded: bool, way: &mut Way) {
        let attached = self.attached.load(Relaxed);
        if attached == 0 {
            // Nobody listens, so nobody has lost anything.
            return;
        }
        let Some(inbox) = self.inbox(nth_bit(attached, from)) else {
            return;
        };
        way.work += 1 + frame.len / BYTES_OF_WORK;
        let takes = self.offloads.get();
        let mut outlet = Outlet {
            inbox,
            takes,
            flooded,
            counters: &self.counters,
        };
        if takes.cover(&frame.meta) {
            outlet.push(frame.len, frame.meta, |bytes| frame.write(bytes));
            return;
        }
        // The receiver takes less than the sender left undone.
        way.scratch.resize(frame.len, 0);
        frame.write(&mut way.scratch);
        let whole = [Frame {
            meta: frame.meta,
            len: frame.len,
            parts: &[VolatileSlice::from(&mut way.scratch[..])],
        }];
        let taken = way.segmenter.transmit(&mut outlet, &whole);
        self.counters.full.fetch_add(taken.refused as u64, Relaxed);
    }
}

/// What a sender needs to finish frames for others.
#[derive(Debug, Default)]
pub(crate) struct Way {
    segmenter: Segmenter,
    /// What of a frame had to be read.
    pub(crate) scratch: Vec<u8>,
    /// The ports that a frame is for.
    pub(crate) ports: Vec<u32>,
    /// What was done so far: about a microsecond each.
    pub(crate) work: usize,
}

/// The bit at place `n` of those that are set, again from the first after the last.
fn nth_bit(mut bits: u64, n: u16) -> u16 {
    for _ in 0..u32::from(n) % bits.count_ones().max(1) {
        bits &= bits - 1;
    }
    bits.trailing_zeros() as u16
}

/// An inbox with the offloads of its port.
struct Outlet<'m> {
    inbox: &'m Inbox,
    takes: Offloads,
    flooded: bool,
    counters: &'m Counters,
}

impl Outlet<'_> {
    fn push(&mut self, len: usize, meta: vnet_backend::Meta, fill: impl FnOnce(&mut [u8])) {
        if self.inbox.push(len, meta, self.flooded, fill) {
            self.counters.frames_out.fetch_add(1, Relaxed);
            self.counters.bytes_out.fetch_add(len as u64, Relaxed);
        } else {
            self.counters.full.fetch_add(1, Relaxed);
        }
    }
}

impl Queue for Outlet<'_> {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            self.push(frame.len, frame.meta, |bytes| {
                frame.read(bytes);
            });
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.takes
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_receive_take_turns() {
        let turns = |bits| (0..5).map(|n| nth_bit(bits, n)).collect::<Vec<_>>();
        assert_eq!(turns(0b1), [0; 5]);
        assert_eq!(turns(0b1010), [1, 3, 1, 3, 1]);
        assert_eq!(turns(1 << 63 | 0b11), [0, 1, 63, 0, 1]);
    }
}
