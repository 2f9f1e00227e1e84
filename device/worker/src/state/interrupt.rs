// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Interrupts, and the end of queues that failed.

use std::sync::Arc;
use std::time::Instant;

use vnet_contract::queue::Kind;
use vnet_dma::DmaMap;

use super::{State, Tallies};
use crate::mischief::Mischief;
use crate::moderation::Verdict;
use crate::round::Round;

impl State {
    /// Raises the interrupts that the driver asked for. Those of queues that are held are a step of
    /// their own.
    pub(super) fn interrupt(
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
            for (lane, vector, tally) in [
                (rx, self.rx.vector(), &tallies.rx),
                (tx, self.tx.vector(), &tallies.tx),
            ] {
                let next = lane.raise_more(vector, tally, idle, Instant::now);
                round.interrupt = round.interrupt.into_iter().chain(next).min();
            }
        }
    }

    /// Stops the queues that failed.
    pub(crate) fn fail_queues(&mut self, mem: &DmaMap, tallies: &Tallies, round: &Round) {
        if let Some(fault) = round.rx_fault {
            tallies.rx.error();
            self.keep_fault(Kind::Rx, fault);
            self.rx.accuse(mem, fault);
            self.rx.fail();
        }
        if let Some(fault) = round.tx_fault {
            tallies.tx.error();
            self.keep_fault(Kind::Tx, fault);
            self.tx.accuse(mem, fault);
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
