// SPDX-License-Identifier: GPL-2.0

//! Interrupts that get lost.
//!
//! A channel that waits for an interrupt has nothing else that would wake it. So a timer has all
//! channels polled now and then, and such a poll looks without touching. If there are used entries,
//! their interrupt may be about to come; if they are still there the next time, it is not: no
//! moderation lasts as long. Then the channel is polled as if it had come, and that is counted.
//!
//! A poll for another reason, or after an interrupt, is one like all others.

use kernel::sync::atomic::Relaxed;
use netdev::{
    Napi,
    NetDevice, //
};

use crate::{
    nic::Nic,
    rx::Rx, //
};

/// What a channel knows of the interrupt that it waits for.
#[derive(Default)]
pub(crate) struct Watch {
    /// The last poll ended with asking for interrupts.
    armed: bool,
    /// Interrupts of the channel when that poll began: more may have caused this one.
    interrupts: u64,
    /// Used entries that were there at the last look are those after so many, of the receive and the
    /// transmit ring.
    seen: Option<(u16, u16)>,
}

impl Watch {
    /// A poll begins that does its work.
    #[inline]
    pub(crate) fn poll(&mut self, interrupts: u64) {
        self.armed = false;
        self.interrupts = interrupts;
    }

    /// The card was asked for interrupts.
    #[inline]
    pub(crate) fn arm(&mut self) {
        self.armed = true;
        self.seen = None;
    }
}

impl<'a> Nic<'a> {
    /// Has the next poll of each channel look for an interrupt that got lost.
    pub(crate) fn look_for_lost(&self, dev: &NetDevice<Self>) {
        for look in &self.looks {
            look.store(true, Relaxed);
        }
        dev.schedule_all();
    }

    /// True if the poll is for looking only, and the channel goes on waiting for its interrupt.
    #[inline]
    pub(crate) fn waits(&self, dev: &NetDevice<Self>, napi: &Napi<'_, Self>, rx: &mut Rx) -> bool {
        match self.looks.get(usize::from(napi.index())) {
            Some(look) if look.load(Relaxed) => {
                look.store(false, Relaxed);
                rx.watch.armed
                    && rx.watch.interrupts == dev.interrupts(napi.index())
                    && !rx.interrupt_lost(napi)
            }
            _ => false,
        }
    }
}

impl Rx {
    fn interrupt_lost(&mut self, napi: &Napi<'_, Nic<'_>>) -> bool {
        let (sent, done) = match napi.lock_tx() {
            Some(mut guard) => {
                let (_, tx) = guard.split();
                tx.look()
            }
            None => (0, false),
        };
        let seen = (self.ring.has_used() || done).then(|| (self.ring.taken(), sent));
        if seen.is_some() && self.watch.seen == seen {
            self.stats.queue.lost_interrupts.add(1);
            return true;
        }
        self.watch.seen = seen;
        false
    }
}
