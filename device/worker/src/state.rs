// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the lock of a pair protects, and one round of service.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use vnet_backend::Queue;
use vnet_contract::queue::{Error, Kind};
use vnet_dma::DmaMap;
use vnet_queue::{
    Budget, Drain, Fault, Observer, Outcome, Position, Rx, RxFilter, Tx, Waits, Written,
};
use vnet_rss::Rss;

use crate::alarm::Reminder;
use crate::captured::Captured;
use crate::counters::Tally;
use crate::drops::Reason;
use crate::mischief::{Lane, Mischief, Service};
use crate::moderation::{Moderation, Verdict};
use crate::pace::Pace;
use crate::parcel::{Inbox, Outbox};
use crate::refill::Refill;
use crate::replace::Rewire;
use crate::slot::Slot;
use crate::steering::Sorter;
use crate::step::Paused;
use crate::unplugged::{self, Nowhere};

/// The queues of a pair and the backend that they serve.
pub(crate) struct State {
    pub(crate) backend: Box<dyn Queue>,
    pub(crate) rx: Slot<Rx>,
    pub(crate) tx: Slot<Tx>,
    pub(crate) filter: RxFilter,
    pub(crate) rx_moderation: Moderation,
    pub(crate) tx_moderation: Moderation,
    pub(crate) pace: Pace,
    refill: Refill,
    /// Frames that other pairs of the card hand over.
    pub(crate) inbox: Option<Inbox>,
    /// Frames that this round hands over to others.
    pub(crate) outbox: Outbox,
    /// In place of a receive queue that does not run.
    drain: Option<Drain>,
    /// The backend's frames come before those of other pairs, the next time that there are both.
    own_first: bool,
    /// The backend panicked: nothing is served until the pair is reset.
    pub(crate) failed: bool,
    /// The backend has frames, or may have, that the driver has posted no buffers for.
    pub(crate) starved: bool,
    pub(crate) losses: Losses,
    /// What the worker sleeps on, or will when it has let go of the lock; `None`: it comes back by
    /// itself.
    pub(crate) sleep: Option<Sleep>,
    /// When somebody else last moved frames while the worker slept.
    pub(crate) served_asleep: Option<Instant>,
    /// When the worker's alarm goes off.
    pub(crate) reminder: Reminder,
    /// The card's cable is pulled: the backend is not reached.
    pub(crate) unplugged: bool,
    /// What the worker thread is to use of another backend.
    pub(crate) rewire: Option<Rewire>,
    /// What is to go wrong, in a card that has faults.
    pub(crate) mischief: Option<Box<Mischief>>,
    /// Who keeps the frames, or sees them, if somebody does.
    pub(crate) captured: Option<Captured>,
    /// Queues that go on a step at a time, if there are any.
    pub(crate) paused: Option<Box<Paused>>,
    /// Those who are to watch the next queues.
    rx_observer: Option<Box<dyn Observer>>,
    tx_observer: Option<Box<dyn Observer>>,
}

/// What ends the sleep of a worker, other than a kick and its alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// The backend's descriptor.
    pub(crate) readiness: bool,
    /// The backend's deadline.
    pub(crate) deadline: Option<Instant>,
}

impl Sleep {
    /// True if a worker that sleeps like this wakes in time for one that should sleep like `due`.
    pub(crate) fn covers(&self, due: &Sleep) -> bool {
        let in_time = match (self.deadline, due.deadline) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(other)) => mine <= other,
        };
        in_time && (self.readiness || !due.readiness)
    }
}

/// What a round did and what comes next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Another round is due at once.
    pub(crate) again: bool,
    /// Else: what to wait for.
    pub(crate) sleep: Sleep,
    /// When the next interrupt is to be judged, if there is one that waits.
    pub(crate) interrupt: Option<Instant>,
    /// When a ring is to be looked at without a doorbell.
    pub(crate) look: Option<Instant>,
    /// Frames moved.
    pub(crate) progress: bool,
    /// So many or such large ones that nobody waits for a single one.
    pub(crate) bulk: bool,
    /// Faults of the receive and the transmit queue, to be reported.
    pub(crate) rx_fault: Option<Fault>,
    pub(crate) tx_fault: Option<Fault>,
    /// The backend panicked in this round.
    pub(crate) panicked: bool,
}

impl Round {
    /// Has a ring looked at, at this time or before.
    fn look_at(&mut self, at: Instant) {
        self.look = self.look.into_iter().chain([at]).min();
    }

    /// One that did nothing, but is to be followed by another.
    pub(crate) fn again() -> Self {
        Self {
            again: true,
            ..Self::default()
        }
    }

    /// Has the pair look again for what it did not find in memory that is shared.
    #[cold]
    fn retry(&mut self, unshared: &AtomicBool) {
        for fault in [&mut self.rx_fault, &mut self.tx_fault] {
            let lacks =
                |fault: &mut Fault| matches!(fault.error, Error::BufferFault | Error::RingFault);
            if fault.take_if(lacks).is_some() {
                unshared.store(true, Ordering::Release);
                self.again = true;
            }
        }
    }
}

/// What a round leaves.
struct Rest {
    /// Frames could be received.
    receives: bool,
    /// Frames wait for the backend.
    blocked: bool,
    /// Frames were taken from the backend.
    received: bool,
}

/// Frames that the backend had lost when it was last asked, and those of them that the driver missed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    lost: u64,
    missed: u64,
}

impl Losses {
    fn of(backend: &dyn Queue) -> Self {
        Self {
            lost: backend.lost(),
            missed: backend.missed(),
        }
    }

    /// Those since then: first the ones that the driver did not miss, then the others.
    pub(crate) fn since(&mut self, backend: &dyn Queue) -> (u64, u64) {
        let since = |before: &mut u64, now: u64| now.saturating_sub(std::mem::replace(before, now));
        let lost = since(&mut self.lost, backend.lost());
        if lost == 0 {
            return (0, 0);
        }
        let missed = since(&mut self.missed, backend.missed()).min(lost);
        (lost - missed, missed)
    }
}

/// The counters of both queues.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    pub(crate) rx: Tally,
    pub(crate) tx: Tally,
}

impl Tallies {
    /// True if they are kept for another process.
    pub(crate) fn survives(&self) -> bool {
        self.rx.legacy().is_some()
    }
}

impl State {
    pub(crate) fn new(backend: Box<dyn Queue>, pace: Pace) -> Self {
        Self {
            backend,
            rx: Slot::Off,
            tx: Slot::Off,
            filter: RxFilter::default(),
            rx_moderation: Moderation::default(),
            tx_moderation: Moderation::default(),
            pace,
            refill: Refill::default(),
            inbox: None,
            outbox: Outbox::default(),
            drain: None,
            own_first: false,
            failed: false,
            starved: false,
            losses: Losses::default(),
            sleep: None,
            served_asleep: None,
            reminder: Reminder::default(),
            unplugged: false,
            rewire: None,
            mischief: None,
            captured: None,
            paused: None,
            rx_observer: None,
            tx_observer: None,
        }
    }

    /// Puts another queue in the place of the backend's, and returns that.
    pub(crate) fn change_backend(
        &mut self,
        new: Box<dyn Queue>,
        tallies: &Tallies,
    ) -> Box<dyn Queue> {
        let (lost, missed) = self.losses.since(self.backend.as_ref());
        tallies.rx.lost(lost, Reason::Backend);
        tallies.rx.missed(missed);
        self.losses = Losses::of(new.as_ref());
        let old = std::mem::replace(&mut self.backend, new);
        // Nobody knows yet whether the new one has frames.
        self.starved = false;
        old
    }

    pub(crate) fn wrap_backend(&mut self, wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue>) {
        let inner = std::mem::replace(&mut self.backend, Box::new(Nowhere));
        self.backend = wrap(inner);
    }

    /// Serves a batch of each queue. `rules`: how received frames are steered, and the index of
    /// this pair. `due`: the backend is to be asked for frames even if it does not say that it has
    /// any. `arm`: the driver is asked to ring when there is more to do. `unshared`: some memory is
    /// out of reach here only because it is not shared; to be set if a queue needs that.
    pub(crate) fn serve(
        &mut self,
        mem: &DmaMap,
        tallies: &Tallies,
        rules: Option<(&Rss, u16)>,
        due: bool,
        arm: bool,
        unshared: Option<&AtomicBool>,
    ) -> Round {
        let mut round = Round::default();
        if self.captured.is_some() {
            self.release_if_over();
        }
        let held = self.held();
        let served = self.withhold(held, &mut round);
        let forced = (round.rx_fault, round.tx_fault);
        let rest = self.carry(mem, tallies, rules, served, (due, arm), &mut round);
        if (round.rx_fault, round.tx_fault) != forced {
            if let Some(unshared) = unshared {
                round.retry(unshared);
            }
        }
        self.interrupt(mem, tallies, held, &mut round);
        self.fail_queues(mem, tallies, &round);
        self.rest(rules, rest, &mut round);
        round
    }

    /// The same in memory that was fetched, as far as the queues are confined to. The driver sees
    /// nothing of it before what was written is pushed, so the interrupt that it wants now is for
    /// what it has seen before.
    pub(crate) fn serve_unshared(
        &mut self,
        mem: &DmaMap,
        tallies: &Tallies,
        rules: Option<(&Rss, u16)>,
        written: &mut [Written; 2],
    ) -> Round {
        let mut round = Round::default();
        let held = self.held();
        let served = self.withhold(held, &mut round);
        self.interrupt(mem, tallies, held, &mut round);
        let rest = self.carry(mem, tallies, rules, served, (true, true), &mut round);
        *written = [self.rx.written(), self.tx.written()];
        self.fail_queues(mem, tallies, &round);
        self.rest(rules, rest, &mut round);
        round
    }

    /// Moves frames: a batch of each queue that is `served`. Each counts as failed only after
    /// [`Self::fail_queues`].
    fn carry(
        &mut self,
        mem: &DmaMap,
        tallies: &Tallies,
        rules: Option<(&Rss, u16)>,
        (receives, transmits): (bool, bool),
        (due, arm): (bool, bool),
        round: &mut Round,
    ) -> Rest {
        let blocked = transmits && self.serve_tx(mem, tallies, arm, round);
        let received = receives && self.serve_both(mem, &tallies.rx, rules, due, arm, round);
        Rest {
            receives,
            blocked,
            received,
        }
    }

    /// Says what comes after a round.
    fn rest(&self, rules: Option<(&Rss, u16)>, rest: Rest, round: &mut Round) {
        let Rest {
            receives,
            blocked,
            received,
        } = rest;
        // A backend that gave frames away may take some again.
        round.again |= blocked && received;

        let receiving = receives && (self.rx.is_running() || spreads(rules));
        round.again |= receiving && self.backend.has_work();
        round.sleep = Sleep {
            readiness: blocked || receiving && !self.starved,
            deadline: if blocked || receiving {
                self.backend.deadline()
            } else {
                None
            },
        };
    }

    /// Returns true if frames wait for the backend.
    fn serve_tx(&mut self, mem: &DmaMap, tallies: &Tallies, arm: bool, round: &mut Round) -> bool {
        let Slot::Running(tx, _) = &mut self.tx else {
            return false;
        };
        let begun = tallies.tx.begin();
        let (outcome, why) = match self.unplugged {
            false => {
                let outcome = tx.run(mem, self.backend.as_mut(), Budget::default());
                (outcome, Reason::Refused)
            }
            true => {
                let outcome = tx.run(mem, &mut Nowhere, Budget::default());
                (unplugged::lost(outcome), Reason::Unplugged)
            }
        };
        if moved(&outcome) {
            tallies.tx.end(begun);
        }
        tallies.tx.batch(&outcome, why);
        let (lost, missed) = self.losses.since(self.backend.as_ref());
        tallies.tx.lost(lost, Reason::Backend);
        tallies.rx.missed(missed);
        round.progress |= moved(&outcome);
        round.bulk |= is_bulk(&outcome);
        round.tx_fault = outcome.fault;
        match outcome.waits {
            _ if outcome.fault.is_some() => false,
            Waits::Nothing => {
                round.again = true;
                false
            }
            Waits::Driver if !arm => false,
            Waits::Driver => {
                let (frames, bytes) = (outcome.frames, outcome.bytes);
                if let Some(at) = self.pace.sent(frames, bytes, Instant::now) {
                    round.look_at(at);
                    return false;
                }
                match tx.rearm(mem) {
                    Ok(news) => round.again |= news,
                    Err(fault) => round.tx_fault = Some(fault),
                }
                false
            }
            Waits::Backend => true,
        }
    }

    /// Serves a batch of the backend's frames and one of those that other pairs handed over. Whoever
    /// comes first may leave no buffers to the other, so they take turns. Returns true if frames
    /// were taken from the backend.
    fn serve_both(
        &mut self,
        mem: &DmaMap,
        tally: &Tally,
        rules: Option<(&Rss, u16)>,
        due: bool,
        arm: bool,
        round: &mut Round,
    ) -> bool {
        let own_first = self.own_first;
        if !own_first && (due || !self.starved) {
            self.take_over(mem, tally, arm, round);
        }
        let received = self.serve_rx(mem, tally, rules, due, arm, round);
        if own_first {
            self.own_first = !received;
            if due || !self.starved {
                self.take_over(mem, tally, arm, round);
            }
        }
        received
    }

    /// Asks which queues are to be served, receive and transmit; those that are `held` are not.
    #[inline]
    fn withhold(&mut self, held: (bool, bool), round: &mut Round) -> (bool, bool) {
        let Some(mischief) = &mut self.mischief else {
            return (!held.0, !held.1);
        };
        let mut ask = |lane: &mut Lane, running, fault: &mut Option<Fault>| {
            let service = match running {
                true => lane.service(Instant::now),
                false => Service::Given,
            };
            match service {
                Service::Given => true,
                Service::Withheld(until) => {
                    round.interrupt = round.interrupt.into_iter().chain([until]).min();
                    false
                }
                Service::Failed(error) => {
                    *fault = Some(error);
                    false
                }
            }
        };
        let (mut rx_fault, mut tx_fault) = (None, None);
        let (rx, tx) = (self.rx.is_running(), self.tx.is_running());
        let receives = !held.0 && ask(&mut mischief.rx, rx, &mut rx_fault);
        let transmits = !held.1 && ask(&mut mischief.tx, tx, &mut tx_fault);
        (round.rx_fault, round.tx_fault) = (rx_fault, tx_fault);
        (receives, transmits)
    }

    /// Serves a batch of frames that other pairs handed over, on one of their threads.
    pub(crate) fn serve_inbox(&mut self, mem: &DmaMap, tallies: &Tallies, arm: bool) -> Round {
        let mut round = Round::default();
        let held = self.held();
        if held.0 {
            return round;
        }
        if let Some(mischief) = &self.mischief {
            // The round that ends a stall sees to them.
            if mischief.rx.is_held(Instant::now) {
                return round;
            }
        }
        self.take_over(mem, &tallies.rx, arm, &mut round);
        self.interrupt(mem, tallies, held, &mut round);
        self.fail_queues(mem, tallies, &round);
        round
    }

    /// Delivers frames that other pairs handed over; the backend's turn is next if there were any.
    fn take_over(&mut self, mem: &DmaMap, tally: &Tally, arm: bool, round: &mut Round) {
        let Some(inbox) = &mut self.inbox else {
            return;
        };
        if round.rx_fault.is_some() || !inbox.has_frames() {
            return;
        }
        match &mut self.rx {
            Slot::Running(rx, _) => {
                let begun = tally.begin();
                let outcome = rx.take_over(mem, inbox, &self.filter, Budget::default());
                self.own_first |= moved(&outcome);
                self.received(mem, tally, (&outcome, Reason::Refused, begun), arm, round);
            }
            Slot::Off | Slot::Failed(_) => tally.lost(inbox.discard(), Reason::Stopped),
        }
    }

    /// Returns true if frames were taken from the backend.
    fn serve_rx(
        &mut self,
        mem: &DmaMap,
        tally: &Tally,
        rules: Option<(&Rss, u16)>,
        due: bool,
        arm: bool,
        round: &mut Round,
    ) -> bool {
        if round.rx_fault.is_some() || !due && (self.starved || !self.backend.has_frames()) {
            return false;
        }
        let backend = self.backend.as_mut();
        let budget = Budget::default();
        let lax = self.mischief.as_ref().and_then(|m| m.filter(&self.filter));
        let filter = lax.as_ref().unwrap_or(&self.filter);
        let mut sorter = rules.map(|(rules, own)| Sorter {
            rules,
            own,
            outbox: &mut self.outbox,
        });
        let begun = tally.begin();
        let (outcome, why) = match (&mut self.rx, &mut sorter) {
            (Slot::Running(..), _) if self.unplugged => {
                let drain = self.drain.get_or_insert_default();
                (unplugged::discard(backend, drain), Reason::Unplugged)
            }
            (Slot::Running(rx, _), None) => {
                let outcome = rx.run(mem, backend, filter, budget);
                (outcome, Reason::Refused)
            }
            (Slot::Running(rx, _), Some(sorter)) => {
                let outcome = rx.run_steered(mem, backend, filter, sorter, budget);
                (outcome, Reason::Refused)
            }
            // Frames for other pairs must not wait for this one to be started.
            (_, Some(sorter)) if spreads(rules) => {
                let drain = self.drain.get_or_insert_default();
                (drain.run(backend, sorter, budget), Reason::Stopped)
            }
            _ => return false,
        };
        let (lost, missed) = self.losses.since(self.backend.as_ref());
        tally.lost(lost, Reason::Backend);
        tally.missed(missed);
        self.received(mem, tally, (&outcome, why, begun), arm, round);
        moved(&outcome)
    }

    /// Takes note of what a batch of received frames did, why frames of it were dropped, and when it
    /// began if that is to be known.
    fn received(
        &mut self,
        mem: &DmaMap,
        tally: &Tally,
        (outcome, why, begun): (&Outcome, Reason, Option<Instant>),
        arm: bool,
        round: &mut Round,
    ) {
        if moved(outcome) {
            tally.end(begun);
        }
        tally.batch(outcome, why);
        self.starved = false;
        round.rx_fault = outcome.fault;
        round.progress |= moved(outcome);
        round.bulk |= is_bulk(outcome);
        if moved(outcome) {
            self.pace.received();
            self.refill.received();
        }
        match outcome.waits {
            _ if outcome.fault.is_some() => {}
            Waits::Nothing => round.again = true,
            Waits::Backend => {}
            Waits::Driver if !arm => {}
            Waits::Driver => {
                let Slot::Running(rx, _) = &mut self.rx else {
                    return;
                };
                let look = self.refill.dry(Instant::now());
                let armed = match look {
                    Some(_) => rx.rearm_late(mem),
                    None => rx.rearm(mem),
                };
                match armed {
                    Ok(true) => round.again = true,
                    Ok(false) => {
                        self.starved = true;
                        look.into_iter().for_each(|at| round.look_at(at));
                    }
                    Err(fault) => round.rx_fault = Some(fault),
                }
            }
        }
    }

    /// Who is to watch the next queue of this kind.
    pub(crate) fn observer(&mut self, kind: Kind) -> &mut Option<Box<dyn Observer>> {
        match kind {
            Kind::Rx => &mut self.rx_observer,
            Kind::Tx => &mut self.tx_observer,
        }
    }

    /// Tells whoever watches the queue of this kind of something, while it runs.
    pub(crate) fn tell(&mut self, kind: Kind, what: impl FnOnce(&mut dyn Observer, Position)) {
        match kind {
            Kind::Rx => self.rx.tell(what),
            Kind::Tx => self.tx.tell(what),
        }
    }

    /// Raises the interrupts that the driver asked for. Those of queues that are held are a step of
    /// their own.
    fn interrupt(
        &mut self,
        mem: &DmaMap,
        tallies: &Tallies,
        held: (bool, bool),
        round: &mut Round,
    ) {
        let rx = match held.0 {
            false => self.rx.judge(mem, self.rx_moderation, &mut round.rx_fault),
            true => Verdict::Idle,
        };
        let tx = match held.1 {
            false => self.tx.judge(mem, self.tx_moderation, &mut round.tx_fault),
            true => Verdict::Idle,
        };
        let one = match (self.rx.vector(), self.tx.vector()) {
            (Some(rx), Some(tx)) => Arc::ptr_eq(rx, tx),
            _ => false,
        };
        if one && (rx == Verdict::Fire || tx == Verdict::Fire) {
            // The usual pair has one vector for both queues, and one interrupt is enough.
            if rx == Verdict::Idle {
                self.raise_tx(tallies);
            } else {
                let lost = self.raise_rx(tallies);
                if !held.1 {
                    self.tx.raised(lost);
                }
            }
        } else {
            for verdict in [rx, tx] {
                if let Verdict::Wait(until) = verdict {
                    let first = round.interrupt.map_or(until, |other| other.min(until));
                    round.interrupt = Some(first);
                }
            }
            if rx == Verdict::Fire {
                self.raise_rx(tallies);
            }
            if tx == Verdict::Fire {
                self.raise_tx(tallies);
            }
        }
        if let Some(mischief) = &mut self.mischief {
            let idle = rx != Verdict::Fire && tx != Verdict::Fire;
            let Mischief { rx, tx } = mischief.as_mut();
            for (lane, vector) in [(rx, self.rx.vector()), (tx, self.tx.vector())] {
                let next = lane.raise_more(vector, idle, Instant::now);
                round.interrupt = round.interrupt.into_iter().chain(next).min();
            }
        }
    }

    /// Stops the queues that failed.
    pub(crate) fn fail_queues(&mut self, mem: &DmaMap, tallies: &Tallies, round: &Round) {
        if let Some(fault) = round.rx_fault {
            tallies.rx.error();
            self.keep_fault(Kind::Rx, fault);
            self.rx.tell(|observer, at| observer.fault(mem, at, fault));
            self.rx.fail();
        }
        if let Some(fault) = round.tx_fault {
            tallies.tx.error();
            self.keep_fault(Kind::Tx, fault);
            self.tx.tell(|observer, at| observer.fault(mem, at, fault));
            self.tx.fail();
        }
    }

    /// True if it got lost.
    pub(crate) fn raise_rx(&mut self, tallies: &Tallies) -> bool {
        let lane = self.mischief.as_mut().map(|m| &mut m.rx);
        self.rx.raise(&tallies.rx, lane)
    }

    /// True if it got lost.
    pub(crate) fn raise_tx(&mut self, tallies: &Tallies) -> bool {
        let lane = self.mischief.as_mut().map(|m| &mut m.tx);
        self.tx.raise(&tallies.tx, lane)
    }
}

/// True if this pair may have frames for others.
fn spreads(rules: Option<(&Rss, u16)>) -> bool {
    rules.is_some_and(|(rules, _)| rules.spreads())
}

/// Frames or bytes of a batch that make it bulk data.
const BULK_FRAMES: u64 = 8;
const BULK_BYTES: u64 = 8 * 1024;

fn is_bulk(outcome: &Outcome) -> bool {
    outcome.frames >= BULK_FRAMES || outcome.bytes >= BULK_BYTES
}

fn moved(outcome: &Outcome) -> bool {
    outcome.frames + outcome.drops + outcome.handed > 0
}
