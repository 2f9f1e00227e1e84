// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the handle of a pair and its thread share.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use vnet_capture::Bell;
use vnet_contract::queue::{rx_index, tx_index, Kind};
use vnet_dma::{AddressSpace, DmaMap};
use vnet_queue::{Observer, Position, Written};

use crate::alarm::Alarm;
use crate::gate::Gate;
use crate::handover::{serve_or_kick, Rest};
use crate::kick::Kick;
use crate::parcel::{Inbox, Parcel, Slit};
use crate::round::Round;
use crate::state::{State, Tallies};
use crate::steering::{Hub, Rules};
use crate::Report;

/// One queue pair. On cache lines of its own, two of which processors may fetch together: pairs are
/// allocated one after the other and served on different CPUs.
#[repr(align(128))]
pub(crate) struct Shared {
    pub(crate) index: u16,
    pub(crate) gate: Gate<State>,
    pub(crate) kick: Kick,
    pub(crate) alarm: Alarm,
    pub(crate) stop: AtomicBool,
    /// Somebody watches a queue of the pair, or has.
    pub(crate) watched: AtomicBool,
    /// The card's cable is pulled.
    pub(crate) unplugged: AtomicBool,
    /// Which queues are paused, for those who only want to know: see `step`.
    pub(crate) paused: AtomicU8,
    /// A queue of the pair is in memory that is not shared: only the worker serves rounds.
    pub(crate) unshared: AtomicBool,
    /// What the queues have written is on its way there.
    pub(crate) rx_pushing: AtomicBool,
    pub(crate) tx_pushing: AtomicBool,
    pub(crate) tallies: Tallies,
    /// For who keeps frames.
    pub(crate) rx_bell: Bell,
    pub(crate) tx_bell: Bell,
    pub(crate) dma: AddressSpace,
    pub(crate) report: Arc<dyn Report>,
    /// The way to the other pairs of the card, and from them.
    pub(crate) link: OnceLock<Link>,
}

/// What makes a pair one of several.
pub(crate) struct Link {
    hub: Arc<Hub>,
    slit: Slit,
}

impl Shared {
    /// Serves a round under the lock. A panic of the backend is contained here.
    pub(crate) fn serve(&self, state: &mut State, due: bool, arm: bool) -> Round {
        if state.failed {
            return Round::default();
        }
        if self.unshared.load(Ordering::Acquire) {
            // Only the worker can go on, see `unshared::round`.
            return Round::again();
        }
        // The snapshot is taken under the lock: after a change of the address space, whoever
        // gets the lock knows that no round works on the old one.
        let snapshot = self.dma.snapshot();
        let Some(mem) = snapshot.memory() else {
            return Round::default();
        };
        let link = self.link.get();
        let rules = link.map(|link| link.hub.rules());
        let rules = rules.as_ref().and_then(|rules| rules.as_deref());
        state.unplugged = self.unplugged.load(Ordering::Relaxed);
        let elsewhere = snapshot.has_mirrors().then_some(&self.unshared);
        let round = state.contain(|state| {
            let rules = rules.map(|r| (r, self.index));
            state.serve(mem, &self.tallies, rules, due, arm, elsewhere)
        });
        if let Some(link) = link {
            link.hub.dispatch(&mut state.outbox);
        }
        round
    }

    /// The same in memory that was fetched. Also returns what is to be pushed.
    pub(crate) fn serve_unshared(&self, state: &mut State, mem: &DmaMap) -> (Round, [Written; 2]) {
        let mut written = Default::default();
        if state.failed {
            return (Round::default(), written);
        }
        let link = self.link.get();
        let rules = link.map(|link| link.hub.rules());
        let rules = rules.as_ref().and_then(|rules| rules.as_deref());
        state.unplugged = self.unplugged.load(Ordering::Relaxed);
        let round = state.contain(|state| {
            let rules = rules.map(|r| (r, self.index));
            state.serve_unshared(mem, &self.tallies, rules, &mut written)
        });
        if let Some(link) = link {
            link.hub.dispatch(&mut state.outbox);
        }
        (round, written)
    }

    /// The doorbell of a queue.
    pub(crate) fn bell(&self, kind: Kind) -> &Bell {
        match kind {
            Kind::Rx => &self.rx_bell,
            Kind::Tx => &self.tx_bell,
        }
    }

    /// Whether something that a queue has written is on its way.
    pub(crate) fn pushing(&self, kind: Kind) -> &AtomicBool {
        match kind {
            Kind::Rx => &self.rx_pushing,
            Kind::Tx => &self.tx_pushing,
        }
    }

    /// Tells whoever watches a queue of something, unless the card may not look at its memory.
    pub(crate) fn tell(
        &self,
        state: &mut State,
        kind: Kind,
        what: impl FnOnce(&mut dyn Observer, &DmaMap, Position),
    ) {
        let snapshot = self.dma.snapshot();
        if let (Some(mem), false) = (snapshot.memory(), state.failed) {
            state.tell(kind, |observer, at| what(observer, mem, at));
        }
    }

    /// Sees to it that an interrupt which waits, or a look at the ring, is not forgotten while
    /// nobody serves the pair.
    pub(crate) fn remind(&self, state: &mut State, round: &Round, now: impl FnOnce() -> Instant) {
        let times = round.interrupt.into_iter().chain(round.look);
        if let Some(due) = times.min() {
            state.reminder.ensure(&self.alarm, due, now());
        }
    }

    /// How received frames are steered, if the pair is one of several.
    pub(crate) fn rules(&self) -> Option<Rules> {
        self.link.get().map(|link| link.hub.rules())
    }

    /// Sends frames for other pairs on their way.
    pub(crate) fn dispatch(&self, state: &mut State) {
        if let Some(link) = self.link.get() {
            link.hub.dispatch(&mut state.outbox);
        }
    }

    /// Connects the pair with the others of its card.
    pub(crate) fn join(&self, hub: Arc<Hub>, slit: Slit, inbox: Inbox) {
        let mut state = self.gate.lock();
        if self.link.set(Link { hub, slit }).is_ok() {
            state.inbox = Some(inbox);
        }
    }

    /// Takes frames from another pair, and brings them to the driver at once if nobody is at it.
    /// Never waits.
    pub(crate) fn deliver(&self, parcel: Parcel) {
        let Some(link) = self.link.get() else {
            return;
        };
        if let Err(refused) = link.slit.send(parcel) {
            // Those that wait already have somebody who sees to it that they are served.
            self.tallies.rx.missed(refused.len() as u64);
            return;
        }
        if self.unshared.load(Ordering::Acquire) {
            return self.kick.kick();
        }
        serve_or_kick(&self.gate, &self.kick, |state| {
            let round = self.unpack(state);
            self.remind(state, &round, Instant::now);
            self.report(&round);
            // A queue that has failed is the worker's to detach.
            match round.again || round.rx_fault.is_some() {
                true => Rest::Work,
                false => Rest::Nothing,
            }
        });
    }

    /// Serves a round of frames from other pairs, and nothing else.
    fn unpack(&self, state: &mut State) -> Round {
        let snapshot = self.dma.snapshot();
        match snapshot.memory() {
            Some(_) if self.unshared.load(Ordering::Acquire) => Round::again(),
            Some(mem) if !state.failed => {
                // A worker that comes back by itself needs no doorbells.
                let arm = state.sleep.is_some();
                state.contain(|state| state.serve_inbox(mem, &self.tallies, arm))
            }
            _ => Round::default(),
        }
    }

    /// Reports what went wrong in a round. Called with the lock held, so that a
    /// queue that was stopped or reset meanwhile is not blamed for what went wrong before.
    pub(crate) fn report(&self, round: &Round) {
        if let Some(fault) = round.rx_fault {
            self.report.queue_failed(rx_index(self.index), fault);
        }
        if let Some(fault) = round.tx_fault {
            self.report.queue_failed(tx_index(self.index), fault);
        }
        if round.panicked {
            self.report.pair_failed(self.index);
        }
    }
}

impl State {
    /// Serves a round. If it panics, nothing is served until the pair is reset.
    pub(crate) fn contain(&mut self, serve: impl FnOnce(&mut Self) -> Round) -> Round {
        let round = catch_unwind(AssertUnwindSafe(|| serve(self)));
        round.unwrap_or_else(|_| {
            self.failed = true;
            self.rx.fail();
            self.tx.fail();
            Round {
                panicked: true,
                ..Round::default()
            }
        })
    }
}
