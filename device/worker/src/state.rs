// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the lock of a pair protects.

use std::time::Instant;

use vnet_backend::Queue;
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
        // A count that another thread changes may be ahead by now. The rest is for the next time.
        let missed = backend.missed().saturating_sub(self.missed).min(lost);
        self.missed += missed;
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use vnet_backend::{Frame, RxRing};

    /// Has lost so many, of which so many were missed.
    struct Loser(u64, u64);

    impl Queue for Loser {
        fn transmit(&mut self, _: &[Frame<'_>]) -> usize {
            0
        }

        fn receive(&mut self, _: &mut dyn RxRing) {}

        fn lost(&self) -> u64 {
            self.0
        }

        fn missed(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn what_was_missed_is_so_although_it_was_counted_in_between() {
        let mut losses = Losses::default();
        assert_eq!(losses.since(&Loser(5, 3)), (2, 3));
        // Two more were missed after the losses were read.
        assert_eq!(losses.since(&Loser(8, 8)), (0, 3));
        assert_eq!(losses.since(&Loser(10, 8)), (0, 2));
        assert_eq!(losses.since(&Loser(12, 8)), (2, 0));
    }
}
