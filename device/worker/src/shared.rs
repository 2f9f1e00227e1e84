// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the handle of a pair and its thread share.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Instant;

use vnet_contract::queue::{rx_index, tx_index};
use vnet_dma::AddressSpace;

use crate::alarm::Alarm;
use crate::gate::Gate;
use crate::kick::Kick;
use crate::state::{Round, State, Tallies};
use crate::Report;

/// One queue pair.
pub(crate) struct Shared {
    pub(crate) index: u16,
    pub(crate) gate: Gate<State>,
    pub(crate) kick: Kick,
    pub(crate) alarm: Alarm,
    pub(crate) stop: AtomicBool,
    pub(crate) tallies: Tallies,
    pub(crate) dma: AddressSpace,
    pub(crate) report: Arc<dyn Report>,
}

impl Shared {
    /// Serves a round under the lock. A panic of the backend is contained here.
    pub(crate) fn serve(&self, state: &mut State, due: bool) -> Round {
        if state.failed {
            return Round::default();
        }
        // The snapshot is taken under the lock: after a change of the address space, whoever
        // gets the lock knows that no round works on the old one.
        let Some(mem) = self.dma.memory() else {
            return Round::default();
        };
        let result = catch_unwind(AssertUnwindSafe(|| state.serve(&mem, &self.tallies, due)));
        result.unwrap_or_else(|_| {
            state.fail();
            Round {
                panicked: true,
                ..Round::default()
            }
        })
    }

    /// Sees to it that an interrupt which waits is not forgotten while nobody serves the pair.
    pub(crate) fn remind(&self, state: &mut State, round: &Round, now: impl FnOnce() -> Instant) {
        if let Some(due) = round.interrupt {
            state.reminder.ensure(&self.alarm, due, now());
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
    /// Takes note that the backend panicked.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.rx.fail();
        self.tx.fail();
    }
}
