// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames from the backend and from other pairs, to the driver.

use std::time::Instant;

use vnet_dma::DmaMap;
use vnet_queue::{Budget, Outcome, Waits};
use vnet_rss::Rss;

use super::serve::{is_bulk, moved, spreads};
use super::{State, Tallies};
use crate::counters::Tally;
use crate::drops::Reason;
use crate::round::Round;
use crate::slot::Slot;
use crate::steering::Sorter;
use crate::unplugged;

impl State {
    /// Serves a batch of the backend's frames and one of those that other pairs handed over. Whoever
    /// comes first may leave no buffers to the other, so they take turns. Returns true if frames
    /// were taken from the backend.
    pub(super) fn serve_both(
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
        let lax = self.mischief.as_ref().and_then(|m| m.filter(&self.filter));
        let filter = lax.as_ref().unwrap_or(&self.filter);
        match &mut self.rx {
            Slot::Running(rx, _) => {
                let begun = tally.begin();
                let outcome = rx.take_over(mem, inbox, filter, Budget::default());
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
}
