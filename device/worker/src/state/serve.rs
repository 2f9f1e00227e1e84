// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One round of service: a batch of each queue, the interrupts, and what comes next.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use vnet_dma::DmaMap;
use vnet_queue::{Fault, Outcome, Written};
use vnet_rss::Rss;

use super::{State, Tallies};
use crate::mischief::{Lane, Service};
use crate::round::{Round, Sleep};

/// What a round leaves.
struct Rest {
    /// Frames could be received.
    receives: bool,
    /// Frames wait for the backend.
    blocked: bool,
    /// Frames were taken from the backend.
    received: bool,
}

impl State {
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
        if !blocked && !self.receives(rules, receives) && self.owes().is_some() {
            self.backend.transmit(&[]);
        }
        let received = receives && self.serve_both(mem, &tallies.rx, rules, due, arm, round);
        self.count_losses(tallies);
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

        let receiving = self.receives(rules, receives);
        round.again |= receiving && self.backend.has_work();
        let owes = match receiving {
            true => None,
            false => self.owes(),
        };
        round.again |= owes.is_some_and(|due| due <= Instant::now());
        round.sleep = Sleep {
            readiness: blocked || owes.is_some() || receiving && !self.starved,
            // That of frames for the driver may have passed long ago.
            deadline: owes.or_else(|| {
                let asked = blocked || receiving;
                asked.then(|| self.backend.deadline()).flatten()
            }),
        };
    }

    /// True if the backend is asked for frames, and so gets on with those that it took.
    fn receives(&self, rules: Option<(&Rss, u16)>, served: bool) -> bool {
        served && (self.rx.is_running() || spreads(rules))
    }

    /// When the backend is to go on with frames that it took, unless it is not reached.
    fn owes(&self) -> Option<Instant> {
        match self.unplugged {
            true => None,
            false => self.backend.owes(),
        }
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
}

/// True if this pair may have frames for others.
pub(super) fn spreads(rules: Option<(&Rss, u16)>) -> bool {
    rules.is_some_and(|(rules, _)| rules.spreads())
}

/// Frames or bytes of a batch that make it bulk data.
const BULK_FRAMES: u64 = 8;

const BULK_BYTES: u64 = 8 * 1024;

pub(super) fn is_bulk(outcome: &Outcome) -> bool {
    outcome.frames >= BULK_FRAMES || outcome.bytes >= BULK_BYTES
}

pub(super) fn moved(outcome: &Outcome) -> bool {
    outcome.frames + outcome.drops + outcome.handed > 0
}
