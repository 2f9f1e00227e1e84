// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What workers and the monitor tell the registers.
//!
//! Everything here is atomic: a worker that finds a broken ring notes it, raises the control
//! interrupt and goes on, and the message thread reads the note when the driver asks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use vnet_backend::Link;
use vnet_contract::queue::NO_VECTOR;
use vnet_contract::regs::{self, EVENT_FAILED, EVENT_LINK, EVENT_QUEUE_ERROR};
use vnet_irq::Vectors;
use vnet_state::records::{Fields, Writer};
use vnet_worker::{Fault, Report};

use crate::monitor::Note;

/// Events of the card, and the state that they are about.
///
/// All orderings are `SeqCst`: none of this is on the packet path, and the rule "set the cause,
/// then look at the enable bits" against "set the enable bits, then look at the cause" needs it.
#[derive(Debug)]
pub(crate) struct Events {
    cause: AtomicU32,
    enable: AtomicU32,
    vector: AtomicU32,
    vectors: Arc<Vectors>,
    /// Per queue: [`Error`](vnet_contract::queue::Error) code in bits 7:0, info in bits 63:32;
    /// zero: no error.
    faults: Box<[AtomicU64]>,
    /// Per queue: times it stopped with an error since reset.
    errors: Box<[AtomicU64]>,
    /// A backend failed.
    failed: AtomicBool,
    /// What the driver is told.
    link: AtomicU64,
    /// Where that comes from. Locked while `link` changes.
    sources: Mutex<Sources>,
    notes: SyncSender<Note>,
    lost_notes: AtomicU64,
}

impl Events {
    pub(crate) fn new(
        queues: u16,
        vectors: Arc<Vectors>,
        link: Link,
        notes: SyncSender<Note>,
    ) -> Self {
        let zeros = || (0..queues).map(|_| AtomicU64::new(0)).collect();
        Self {
            cause: AtomicU32::new(0),
            enable: AtomicU32::new(0),
            vector: AtomicU32::new(NO_VECTOR),
            vectors,
            faults: zeros(),
            errors: zeros(),
            failed: AtomicBool::new(false),
            link: AtomicU64::new(pack_link(link)),
            sources: Mutex::new(Sources {
                backend: link,
                forced: Forced::default(),
            }),
            notes,
            lost_notes: AtomicU64::new(0),
        }
    }

    /// Back to reset values. The link stays as it is; nothing else may be running.
    pub(crate) fn reset(&self) {
        self.enable.store(0, SeqCst);
        self.vector.store(NO_VECTOR, SeqCst);
        self.failed.store(false, SeqCst);
        for counter in self.faults.iter().chain(&self.errors[..]) {
            counter.store(0, SeqCst);
        }
        self.cause.store(0, SeqCst);
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.u32(self.cause())
            .u32(self.enable())
            .u32(self.vector())
            .bool(self.has_failed())
            .u64(self.link.load(SeqCst));
    }

    /// Takes over what another process saved. What it was about to tell the driver, this one does;
    /// a link that has changed since will be noticed.
    pub(crate) fn load(&self, from: &mut Fields<'_>) {
        self.cause.store(from.u32(), SeqCst);
        self.enable.store(from.u32(), SeqCst);
        self.set_vector(from.u32());
        self.failed.store(from.bool(), SeqCst);
        self.link.store(from.u64(), SeqCst);
    }

    pub(crate) fn save_queue(&self, queue: u16, to: &mut Writer) {
        let queue = usize::from(queue);
        to.u64(self.faults[queue].load(SeqCst))
            .u64(self.errors[queue].load(SeqCst));
    }

    pub(crate) fn load_queue(&self, queue: u16, from: &mut Fields<'_>) {
        let queue = usize::from(queue);
        self.faults[queue].store(from.u64(), SeqCst);
        self.errors[queue].store(from.u64(), SeqCst);
    }

    /// Interrupts again for what is set and enabled.
    pub(crate) fn remind(&self) {
        self.interrupt(self.cause());
    }

    pub(crate) fn cause(&self) -> u32 {
        self.cause.load(SeqCst)
    }

    pub(crate) fn clear_cause(&self, bits: u32) {
        self.cause.fetch_and(!bits, SeqCst);
    }

    pub(crate) fn enable(&self) -> u32 {
        self.enable.load(SeqCst)
    }

    /// Sets the enable bits. A cause that was waiting for its bit interrupts at once.
    pub(crate) fn set_enable(&self, bits: u32) {
        let before = self.enable.swap(bits & regs::EVENT_MASK, SeqCst);
        self.interrupt(self.cause() & !before);
    }

    pub(crate) fn vector(&self) -> u32 {
        self.vector.load(SeqCst)
    }

    /// Sets the vector, [`NO_VECTOR`] if there is none such.
    pub(crate) fn set_vector(&self, vector: u32) {
        let exists = vector < u32::from(self.vectors.count());
        self.vector
            .store(if exists { vector } else { NO_VECTOR }, SeqCst);
    }

    /// Code and info of the error that stopped a queue; the code is zero if there is none.
    pub(crate) fn fault(&self, queue: u16) -> (u8, u32) {
        let word = self.faults[usize::from(queue)].load(SeqCst);
        (word as u8, (word >> 32) as u32)
    }

    pub(crate) fn clear_fault(&self, queue: u16) {
        self.faults[usize::from(queue)].store(0, SeqCst);
    }

    /// Bit mask of the queues that stopped with an error.
    pub(crate) fn faulty_queues(&self) -> u32 {
        (0u16..)
            .zip(&self.faults)
            .filter(|(_, word)| word.load(SeqCst) != 0)
            .fold(0, |mask, (queue, _)| mask | 1 << queue)
    }

    /// Times that a queue stopped with an error since reset.
    pub(crate) fn errors(&self, queue: u16) -> u64 {
        self.errors[usize::from(queue)].load(SeqCst)
    }

    /// True if a backend failed since reset.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(SeqCst)
    }

    /// True if a backend or a queue failed, and that stands.
    pub(crate) fn is_any_failed(&self) -> bool {
        self.has_failed() || self.faulty_queues() != 0
    }

    pub(crate) fn link(&self) -> Link {
        unpack_link(self.link.load(SeqCst))
    }

    /// Notes the state of the backend's link. Returns the state of the card's if that changed.
    pub(crate) fn set_link(&self, backend: Link) -> Option<Link> {
        self.change_link(|sources| sources.backend = backend)
    }

    /// Has an operator's say about the link. The same.
    pub(crate) fn force_link(&self, forced: Forced) -> Option<Link> {
        self.change_link(|sources| sources.forced = forced)
    }

    /// What an operator has said about the link, and what the backend does.
    pub(crate) fn sources(&self) -> Sources {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_link(&self, change: impl FnOnce(&mut Sources)) -> Option<Link> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let link = sources.link();
        let new = pack_link(link);
        let changed = self.link.swap(new, SeqCst) != new;
        if changed {
            self.raise(EVENT_LINK);
        }
        changed.then_some(link)
    }

    /// Number of notes that did not fit the monitor's queue since last asked.
    pub(crate) fn take_lost_notes(&self) -> u64 {
        self.lost_notes.swap(0, SeqCst)
    }

    /// A cause interrupts when it is set anew. While it stays set, the driver knows already.
    fn raise(&self, cause: u32) {
        let before = self.cause.fetch_or(cause, SeqCst);
        self.interrupt(cause & !before);
    }

    fn interrupt(&self, causes: u32) {
        if causes & self.enable() == 0 {
            return;
        }
        let vector = u16::try_from(self.vector()).ok();
        if let Some(vector) = vector.and_then(|v| self.vectors.get(v)) {
            vector.raise();
        }
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.lost_notes.fetch_add(1, SeqCst);
        }
    }
}

impl Report for Events {
    fn queue_failed(&self, queue: u16, fault: Fault) {
        let (Some(word), Some(count)) = (
            self.faults.get(usize::from(queue)),
            self.errors.get(usize::from(queue)),
        ) else {
            return;
        };
        word.store(u64::from(fault.info) << 32 | fault.error as u64, SeqCst);
        count.fetch_add(1, SeqCst);
        self.raise(EVENT_QUEUE_ERROR);
        self.note(Note::QueueFailed { queue, fault });
    }

    fn pair_failed(&self, pair: u16) {
        self.failed.store(true, SeqCst);
        self.raise(EVENT_FAILED);
        self.note(Note::PairFailed { pair });
    }
}

/// What an operator says about the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// The cable is pulled.
    pub down: bool,
    /// In place of the backend's speed, in Mbit/s.
    pub speed: Option<u32>,
}

/// What makes the link what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    pub(crate) backend: Link,
    pub(crate) forced: Forced,
}

impl Sources {
    fn link(&self) -> Link {
        Link {
            up: self.backend.up && !self.forced.down,
            speed: self.forced.speed.or(self.backend.speed),
        }
    }
}

/// Bit 63: up; bit 62: the speed is known; bits 31:0: the speed.
fn pack_link(link: Link) -> u64 {
    let speed = link.speed.map_or(0, |s| 1 << 62 | u64::from(s));
    u64::from(link.up) << 63 | speed
}

fn unpack_link(word: u64) -> Link {
    Link {
        up: word >> 63 != 0,
        speed: (word & 1 << 62 != 0).then_some(word as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{sync_channel, Receiver};
    use vnet_contract::queue::Error;

    const UP: Link = Link {
        up: true,
        speed: None,
    };

    fn events() -> (Events, Arc<Vectors>, Receiver<Note>) {
        let vectors = Arc::new(Vectors::new(2).unwrap());
        let (notes, receiver) = sync_channel(1);
        let events = Events::new(4, Arc::clone(&vectors), UP, notes);
        (events, vectors, receiver)
    }

    fn raised(vectors: &Vectors) -> u64 {
        vectors.get(1).unwrap().raised()
    }

    #[test]
    fn a_fault_is_shown_counted_and_interrupts() {
        let (events, vectors, _receiver) = events();
        events.set_vector(1);
        events.set_enable(EVENT_QUEUE_ERROR);
        let fault = Fault::new(Error::ChainLength, 7u16);
        events.queue_failed(3, fault);
        assert_eq!(events.fault(3), (Error::ChainLength as u8, 7));
        assert_eq!(events.faulty_queues(), 1 << 3);
        assert_eq!(events.errors(3), 1);
        assert_eq!(events.cause(), EVENT_QUEUE_ERROR);
        assert_eq!(raised(&vectors), 1);
        events.clear_fault(3);
        assert_eq!((events.fault(3), events.faulty_queues()), ((0, 0), 0));
        assert_eq!(events.errors(3), 1);
        // No such queue.
        events.queue_failed(4, fault);
    }

    #[test]
    fn a_cause_interrupts_once_when_set_and_enabled() {
        let (events, vectors, _receiver) = events();
        events.pair_failed(1);
        assert!(events.has_failed());
        events.set_vector(2);
        assert_eq!(events.vector(), NO_VECTOR);
        events.set_enable(EVENT_FAILED);
        events.set_vector(1);
        assert_eq!(raised(&vectors), 0);
        events.set_enable(0);
        events.set_enable(u32::MAX);
        assert_eq!((events.enable(), raised(&vectors)), (regs::EVENT_MASK, 1));
        // The bits were enabled and the cause was set before: nothing is new.
        events.set_enable(EVENT_FAILED);
        events.pair_failed(0);
        assert_eq!(raised(&vectors), 1);
        events.clear_cause(EVENT_FAILED);
        events.pair_failed(0);
        assert_eq!(raised(&vectors), 2);
        events.reset();
        assert!(!events.has_failed());
        assert_eq!((events.enable(), events.vector()), (0, NO_VECTOR));
    }

    #[test]
    fn only_a_change_of_the_link_is_an_event() {
        let (events, _, _receiver) = events();
        assert_eq!(events.set_link(UP), None);
        assert_eq!(events.cause(), 0);
        for link in [
            Link { up: false, ..UP },
            Link {
                up: false,
                speed: Some(0),
            },
            Link {
                up: true,
                speed: Some(u32::MAX - 1),
            },
        ] {
            events.clear_cause(EVENT_LINK);
            assert_eq!(events.set_link(link), Some(link));
            assert_eq!((events.link(), events.cause()), (link, EVENT_LINK));
        }
    }

    #[test]
    fn an_operator_pulls_the_cable_and_says_how_fast_it_is() {
        let (events, _, _receiver) = events();
        let pulled = Forced {
            down: true,
            ..Forced::default()
        };
        let down = Link { up: false, ..UP };
        assert_eq!(events.force_link(pulled), Some(down));
        assert_eq!((events.link(), events.cause()), (down, EVENT_LINK));
        // What the backend finds meanwhile shows when the cable is back.
        assert_eq!(events.set_link(UP), None);
        let fast = Link {
            speed: Some(10_000),
            ..UP
        };
        assert_eq!(events.set_link(fast), Some(Link { up: false, ..fast }));
        assert_eq!(events.force_link(Forced::default()), Some(fast));
        let slowed = Forced {
            down: false,
            speed: Some(10),
        };
        let slow = Link {
            speed: Some(10),
            ..UP
        };
        assert_eq!(events.force_link(slowed), Some(slow));
        assert_eq!(events.sources().backend, fast);
    }

    #[test]
    fn notes_that_do_not_fit_are_counted() {
        let (events, _, _receiver) = events();
        for _ in 0..3 {
            events.queue_failed(0, Fault::new(Error::AvailIndex, 1u16));
        }
        assert_eq!((events.take_lost_notes(), events.take_lost_notes()), (2, 0));
    }
}
