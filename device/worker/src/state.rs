// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the lock of a pair protects.

use std::time::Instant;

use vnet_backend::{Losses, Queue};
use vnet_contract::queue::Kind;
use vnet_queue::{Drain, Observer, Position, Rx, RxFilter, Tx};

use crate::alarm::Reminder;
use crate::captured::Captured;
use crate::counters::Tally;
use crate::drops::Reason;
use crate::mischief::Mischief;
use crate::moderation::Moderation;
use crate::pace::Pace;
use crate::parcel::{Inbox, Outbox};
use crate::refill::Refill;
use crate::replace::Rewire;
use crate::round::Sleep;
use crate::slot::Slot;
use crate::step::Paused;
use crate::unplugged::Nowhere;

mod interrupt;
mod receive;
mod serve;
mod transmit;

/// The queues of a pair and the backend that they serve.
pub(crate) struct State {
    pub(crate) backend: Box<dyn Queue>,
    pub(crate) rx: Slot<Rx>,
    pub(crate) tx: Slot<Tx>,
    /// The receive queue is yet to be resumed: what is for it waits.
    pub(crate) rx_expected: bool,
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
    /// What the backend had lost when it was last asked.
    losses: Losses,
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
            rx_expected: false,
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
        self.count_losses(tallies);
        self.losses = new.losses();
        let old = std::mem::replace(&mut self.backend, new);
        // Nobody knows yet whether the new one has frames.
        self.starved = false;
        old
    }

    /// Has the backend forget what waits, and counts what it loses from here on.
    pub(crate) fn reset_backend(&mut self) {
        self.backend.reset();
        self.losses = self.backend.losses();
    }

    /// Counts what the backend has lost since it was last asked, each frame for the queue that it
    /// was of.
    pub(crate) fn count_losses(&mut self, tallies: &Tallies) {
        let losses = self.backend.losses();
        let Losses {
            sent,
            missed,
            received,
        } = losses.since(&self.losses);
        self.losses = losses;
        tallies.tx.lost(sent, Reason::Backend);
        tallies.rx.lost(received, Reason::Backend);
        tallies.rx.missed(missed);
    }

    pub(crate) fn wrap_backend(&mut self, wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue>) {
        let inner = std::mem::replace(&mut self.backend, Box::new(Nowhere));
        self.backend = wrap(inner);
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
}
