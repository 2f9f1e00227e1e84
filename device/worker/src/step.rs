// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that are paused, and go on a step at a time when they are told to.
//!
//! A paused queue is not served by anybody: its frames wait in the ring or in the backend, its doorbells
//! are counted and do nothing. Each step is done by whoever asks for it, under the lock of the pair, which
//! it holds for no longer than a round of one frame would. In between nothing waits for the next step,
//! and nothing is lent: what is in hand is a copy. A queue that is stopped or started meanwhile drops
//! it, and stays paused.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vnet_backend::Queue;
use vnet_contract::queue::{Error, Kind};
use vnet_dma::DmaMap;
use vnet_queue::{Came, Fate, Fault, Held, Look, Moved, Offered, Packet, Source, Wish};
use vnet_rss::Rss;

use crate::drops::Reason;
use crate::gauge::Gauge;
use crate::moderation::Verdict;
use crate::round::Round;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::{State, Tallies};
use crate::steering::Sorter;
use crate::unplugged::{self, Nowhere};

/// What a step did.
#[derive(Clone, Debug)]
pub enum Did {
    /// Looked for a chain in the avail ring.
    Fetched(Look),
    /// Read the chain of a frame to transmit, and its header.
    ReadPacket(Box<Packet>),
    /// Read the chain of a receive buffer.
    ReadBuffer(Box<Held>),
    /// Offered a frame to the backend.
    HandedOver(Box<Offered>),
    /// Asked for a frame to receive.
    Received(Box<Came>),
    /// Wrote used entries and moved the used index.
    Used(Moved),
    /// Decided about the interrupt.
    Decided {
        /// What the driver said about it.
        wish: Wish,
        /// It is due.
        due: bool,
        /// It has to wait for company for so long yet.
        wait: Option<Duration>,
    },
    /// Raised the interrupt.
    Signalled {
        /// The queue has a vector.
        vector: bool,
    },
    /// The driver broke a rule: the queue has stopped.
    Failed(Fault),
}

/// What the next step will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// Look for a chain in the avail ring.
    #[default]
    Fetch,
    /// Read the chain that begins here.
    Read {
        /// The descriptor.
        head: u16,
    },
    /// Hand a frame to the backend, or ask it for one.
    Hand {
        /// Bytes of the frame, or of the buffers that are in hand.
        bytes: usize,
    },
    /// Write used entries.
    Use {
        /// How many.
        entries: usize,
    },
    /// Decide about the interrupt.
    Decide,
    /// Raise it.
    Signal,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it did.
    pub did: Did,
    /// What the next one will do; `None`: nothing, since the queue has stopped.
    pub next: Option<Next>,
}

/// Why there was no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is not paused.
    NotPaused,
    /// The driver has not started it, or it has stopped with an error.
    NotRunning,
    /// The backend of the pair has failed.
    Broken,
    /// The card may not access memory: bus mastering is off.
    NoMemory,
    /// The queue is in memory that the client does not share.
    Unshared,
    /// The queue is kept for a process that takes over.
    Survives,
}

/// Whether a step would get somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// There is nothing to do.
    None,
    /// Something could be begun.
    New,
    /// Something was begun.
    Begun,
}

/// The paused queues of a pair.
#[derive(Debug, Default)]
pub(crate) struct Paused {
    rx: Option<Between<Receiving>>,
    tx: Option<Between<Transmitting>>,
}

/// A queue between two steps.
#[derive(Debug, Default)]
struct Between<T> {
    /// The start of the queue that this is about.
    id: u64,
    at: Next,
    hand: T,
}

/// What is in hand of a transmit queue.
#[derive(Debug, Default)]
struct Transmitting {
    /// The frame that was read.
    packet: Option<Box<Packet>>,
    head: u16,
}

/// The same of a receive queue.
#[derive(Debug, Default)]
struct Receiving {
    /// Buffers that were read, and wait for a frame.
    buffers: Vec<Held>,
    /// Used entries of the frame that was received.
    entries: Vec<(u16, u32)>,
}

impl<T: Default> Between<T> {
    /// Drops what is in hand of another queue.
    fn follow(&mut self, id: u64) {
        if self.id != id {
            *self = Self {
                id,
                ..Self::default()
            };
        }
    }

    fn next(&self, id: u64) -> Next {
        match self.id == id {
            true => self.at,
            false => Next::Fetch,
        }
    }
}

impl Receiving {
    /// What comes before the next frame.
    fn ready(&self) -> Next {
        match self.buffers.is_empty() {
            true => Next::Fetch,
            false => Next::Hand {
                bytes: self.buffers.iter().map(|held| held.bytes).sum(),
            },
        }
    }
}

/// Why a step did not come to its end.
enum End {
    Refused(Refused),
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

type Steered<'r> = Option<(&'r Rss, u16)>;

impl State {
    /// Which queues run and are paused, or are yet to be resumed: receive and transmit.
    #[inline]
    pub(crate) fn held(&self) -> (bool, bool) {
        match &self.paused {
            None => (self.rx_expected, false),
            Some(paused) => (
                self.rx_expected || paused.rx.is_some() && self.rx.is_running(),
                paused.tx.is_some() && self.tx.is_running(),
            ),
        }
    }

    fn pause(&mut self, kind: Kind) {
        let paused = self.paused.get_or_insert_default();
        match kind {
            Kind::Rx => {
                paused.rx.get_or_insert_default();
            }
            Kind::Tx => {
                paused.tx.get_or_insert_default();
            }
        }
    }

    /// Lets a queue run on. A frame that was handed over, or received, is finished first; a chain that
    /// was only read is taken up again.
    fn resume(&mut self, kind: Kind, mem: Option<&DmaMap>) -> Result<(), Fault> {
        let Some(mut paused) = self.paused.take() else {
            return Ok(());
        };
        let mut done = Ok(());
        match kind {
            Kind::Rx => {
                if let (Some(it), Slot::Running(rx, _), Some(mem)) =
                    (paused.rx.take(), &mut self.rx, mem)
                {
                    if matches!(it.next(rx.id()), Next::Use { .. }) {
                        done = rx.finish(mem, &it.hand.entries).map(drop);
                    }
                }
            }
            Kind::Tx => {
                if let (Some(it), Slot::Running(tx, _), Some(mem)) =
                    (paused.tx.take(), &mut self.tx, mem)
                {
                    if matches!(it.next(tx.id()), Next::Use { .. }) {
                        done = tx.finish(mem, it.hand.head).map(drop);
                    }
                }
            }
        }
        if paused.rx.is_some() || paused.tx.is_some() {
            self.paused = Some(paused);
        }
        // Nobody has looked for a while.
        self.starved = false;
        done
    }

    fn next(&self, kind: Kind) -> Option<Next> {
        let paused = self.paused.as_ref()?;
        match kind {
            Kind::Rx => Some(paused.rx.as_ref()?.next(self.rx.running()?.id())),
            Kind::Tx => Some(paused.tx.as_ref()?.next(self.tx.running()?.id())),
        }
    }

    /// True if a look into the avail ring would find something.
    fn has_chains(&self, kind: Kind, mem: &DmaMap) -> bool {
        let paused = self.paused.as_ref();
        let in_hand = paused.and_then(|paused| paused.rx.as_ref());
        let in_hand = in_hand.map_or(0, |it| it.hand.buffers.len());
        match kind {
            Kind::Rx => self
                .rx
                .running()
                .is_some_and(|rx| rx.has_chains(mem, in_hand)),
            Kind::Tx => self.tx.running().is_some_and(|tx| tx.has_chains(mem)),
        }
    }

    fn work(&mut self, kind: Kind, mem: &DmaMap) -> Option<Work> {
        let next = self.next(kind)?;
        Some(match (kind, next) {
            (_, Next::Fetch) if self.has_chains(kind, mem) => Work::New,
            (_, Next::Fetch) => Work::None,
            (Kind::Rx, Next::Hand { .. }) => {
                let inbox = self.inbox.as_mut().is_some_and(|inbox| inbox.has_frames());
                match inbox || self.backend.has_frames() {
                    true => Work::Begun,
                    false => Work::None,
                }
            }
            _ => Work::Begun,
        })
    }

    fn step_tx(&mut self, mem: &DmaMap, tallies: &Tallies) -> Result<Did, End> {
        let paused = self.paused.as_mut().and_then(|paused| paused.tx.as_mut());
        let it = paused.ok_or(Refused::NotPaused)?;
        let Slot::Running(tx, signal) = &mut self.tx else {
            return Err(Refused::NotRunning.into());
        };
        it.follow(tx.id());
        // Where a fault leaves it.
        let at = std::mem::take(&mut it.at);
        Ok(match (at, it.hand.packet.take()) {
            (Next::Read { head }, _) => {
                let packet = Box::new(tx.read_chain(mem, head)?);
                it.at = Next::Hand { bytes: packet.len };
                it.hand.packet = Some(packet.clone());
                Did::ReadPacket(packet)
            }
            (Next::Hand { .. }, Some(packet)) => {
                let mut offered = match self.unplugged {
                    false => tx.hand_over(mem, &packet, self.backend.as_mut())?,
                    true => tx.hand_over(mem, &packet, &mut Nowhere)?,
                };
                let why = match self.unplugged {
                    true => Reason::Unplugged,
                    false => Reason::Refused,
                };
                if self.unplugged {
                    offered.outcome = unplugged::lost(offered.outcome);
                }
                tallies.tx.batch(&offered.outcome, why);
                it.hand.head = packet.chain.head;
                if offered.is_done() {
                    it.at = Next::Use { entries: 1 };
                } else {
                    it.at = at;
                    it.hand.packet = Some(packet);
                }
                Did::HandedOver(Box::new(offered))
            }
            (Next::Use { .. }, _) => {
                let moved = tx.finish(mem, it.hand.head)?;
                it.at = Next::Decide;
                Did::Used(moved)
            }
            (Next::Decide, _) => {
                let wish = tx.wish(mem)?;
                let due = tx.interrupt_due(mem)?;
                let verdict = signal.judge(due, self.tx_moderation);
                it.at = after(verdict, Next::Fetch);
                decided(wish, verdict)
            }
            (Next::Signal, _) => {
                let vector = self.tx.vector().is_some();
                self.raise_tx(tallies);
                Did::Signalled { vector }
            }
            (Next::Fetch | Next::Hand { .. }, _) => {
                let look = tx.look(mem)?;
                if let Look::Chain { head, .. } = look {
                    it.at = Next::Read { head };
                }
                Did::Fetched(look)
            }
        })
    }

    fn step_rx(&mut self, mem: &DmaMap, tallies: &Tallies, rules: Steered<'_>) -> Result<Did, End> {
        let paused = self.paused.as_mut().and_then(|paused| paused.rx.as_mut());
        let it = paused.ok_or(Refused::NotPaused)?;
        let Slot::Running(rx, signal) = &mut self.rx else {
            return Err(Refused::NotRunning.into());
        };
        it.follow(rx.id());
        let at = std::mem::take(&mut it.at);
        Ok(match at {
            Next::Fetch => {
                let look = rx.look(mem, it.hand.buffers.len())?;
                if let Look::Chain { head, .. } = look {
                    it.at = Next::Read { head };
                }
                Did::Fetched(look)
            }
            Next::Read { head } => {
                let held = rx.read_chain(mem, head, it.hand.buffers.len())?;
                it.hand.buffers.push(held.clone());
                it.at = it.hand.ready();
                Did::ReadBuffer(Box::new(held))
            }
            Next::Hand { .. } => {
                let lax = self.mischief.as_ref().and_then(|m| m.filter(&self.filter));
                let filter = lax.as_ref().unwrap_or(&self.filter);
                let handed = self.inbox.as_mut().filter(|_| !self.unplugged);
                let handed = handed.and_then(|inbox| inbox.has_frames().then_some(inbox));
                let mut nowhere = Nowhere;
                let backend: &mut dyn Queue = match self.unplugged {
                    false => self.backend.as_mut(),
                    true => &mut nowhere,
                };
                let mut sorter = rules.map(|(rules, own)| Sorter {
                    rules,
                    own,
                    outbox: &mut self.outbox,
                });
                let source = match (handed, &mut sorter) {
                    (Some(inbox), _) => Source::Handed(inbox),
                    (None, Some(sorter)) => Source::Steered(backend, sorter),
                    (None, None) => Source::Backend(backend),
                };
                let came = rx.take_frame(mem, &it.hand.buffers, source, filter)?;
                it.at = match came.fate {
                    Fate::Delivered => {
                        it.hand.entries.clone_from(&came.entries);
                        it.hand
                            .buffers
                            .drain(..came.entries.len().min(it.hand.buffers.len()));
                        Next::Use {
                            entries: came.entries.len(),
                        }
                    }
                    Fate::Waits { .. } => Next::Fetch,
                    Fate::None | Fate::Elsewhere | Fate::TooLong | Fate::Unwanted => {
                        it.hand.ready()
                    }
                };
                tallies.rx.batch(&came.outcome, Reason::Refused);
                Did::Received(Box::new(came))
            }
            Next::Use { .. } => {
                let moved = rx.finish(mem, &it.hand.entries)?;
                it.hand.entries.clear();
                it.at = Next::Decide;
                Did::Used(moved)
            }
            Next::Decide => {
                let wish = rx.wish(mem)?;
                let due = rx.interrupt_due(mem)?;
                let verdict = signal.judge(due, self.rx_moderation);
                it.at = after(verdict, it.hand.ready());
                decided(wish, verdict)
            }
            Next::Signal => {
                it.at = it.hand.ready();
                let vector = self.rx.vector().is_some();
                self.raise_rx(tallies);
                Did::Signalled { vector }
            }
        })
    }
}

fn after(verdict: Verdict, otherwise: Next) -> Next {
    match verdict {
        Verdict::Fire => Next::Signal,
        // It is judged again.
        Verdict::Wait(_) => Next::Decide,
        Verdict::Idle => otherwise,
    }
}

fn decided(wish: Wish, verdict: Verdict) -> Did {
    Did::Decided {
        wish,
        due: verdict != Verdict::Idle,
        wait: match verdict {
            Verdict::Wait(until) => Some(until.saturating_duration_since(Instant::now())),
            Verdict::Idle | Verdict::Fire => None,
        },
    }
}

impl Shared {
    fn step(&self, kind: Kind) -> Result<Step, Refused> {
        let state = &mut *self.gate.lock();
        if self.tallies.survives() {
            return Err(Refused::Survives);
        }
        if state.failed {
            return Err(Refused::Broken);
        }
        if self.unshared.load(Ordering::Acquire) {
            return Err(Refused::Unshared);
        }
        let snapshot = self.dma.snapshot();
        let mem = snapshot.memory().ok_or(Refused::NoMemory)?;
        let rules = self.rules();
        let rules = rules.as_ref().and_then(|rules| rules.as_deref());
        state.unplugged = self.unplugged.load(Ordering::Relaxed);
        let mut done = Err(End::Refused(Refused::Broken));
        let mut round = state.contain(|state| {
            done = match kind {
                Kind::Rx => state.step_rx(mem, &self.tallies, rules.map(|r| (r, self.index))),
                Kind::Tx => state.step_tx(mem, &self.tallies),
            };
            state.count_losses(&self.tallies);
            Round::default()
        });
        self.dispatch(state);
        let did = match done {
            Ok(did) => did,
            Err(End::Refused(refused)) => {
                self.report(&round);
                return Err(refused);
            }
            Err(End::Fault(fault)) => {
                let lacks = matches!(fault.error, Error::BufferFault | Error::RingFault);
                if lacks && snapshot.has_mirrors() {
                    self.unshared.store(true, Ordering::Release);
                    return Err(Refused::Unshared);
                }
                match kind {
                    Kind::Rx => round.rx_fault = Some(fault),
                    Kind::Tx => round.tx_fault = Some(fault),
                }
                state.fail_queues(mem, &self.tallies, &round);
                Did::Failed(fault)
            }
        };
        self.report(&round);
        let next = state.next(kind);
        Ok(Step { did, next })
    }
}

/// Bit of a kind in [`Shared::paused`](crate::shared::Shared).
fn bit(kind: Kind) -> u8 {
    match kind {
        Kind::Rx => 1,
        Kind::Tx => 2,
    }
}

/// What somebody does who has the pair work step by step. Each waits for the round that runs now.
impl Gauge {
    /// From now on nobody serves the queue, also if it is started anew, until it is resumed.
    pub fn pause(&self, kind: Kind) {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        shared.paused.fetch_or(bit(kind), Ordering::Relaxed);
        state.pause(kind);
    }

    /// Lets a queue run again.
    pub fn resume(&self, kind: Kind) {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        shared.paused.fetch_and(!bit(kind), Ordering::Relaxed);
        let snapshot = shared.dma.snapshot();
        let mem = snapshot.memory();
        if let (Err(fault), Some(mem)) = (state.resume(kind, mem), mem) {
            let mut round = Round::default();
            match kind {
                Kind::Rx => round.rx_fault = Some(fault),
                Kind::Tx => round.tx_fault = Some(fault),
            }
            state.fail_queues(mem, &shared.tallies, &round);
            shared.report(&round);
        }
        drop(state);
        shared.kick.kick();
    }

    /// True if the queue is paused. Does not wait.
    pub fn is_paused(&self, kind: Kind) -> bool {
        self.shared().paused.load(Ordering::Relaxed) & bit(kind) != 0
    }

    /// Does one step with a paused queue.
    pub fn step(&self, kind: Kind) -> Result<Step, Refused> {
        self.shared().step(kind)
    }

    /// What the next step of a queue would do, if it is paused and runs.
    pub fn next(&self, kind: Kind) -> Option<Next> {
        self.shared().gate.lock().next(kind)
    }

    /// Whether a step would get somewhere, if the queue is paused and runs.
    pub fn work(&self, kind: Kind) -> Option<Work> {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        let snapshot = shared.dma.snapshot();
        let mem = snapshot.memory()?;
        match state.failed {
            true => None,
            false => state.work(kind, mem),
        }
    }
}
