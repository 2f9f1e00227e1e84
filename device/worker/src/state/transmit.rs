// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames from the driver, to the backend.

use std::time::Instant;

use vnet_dma::DmaMap;
use vnet_queue::{Budget, Waits};

use super::serve::{is_bulk, moved};
use super::{State, Tallies};
use crate::drops::Reason;
use crate::round::Round;
use crate::slot::Slot;
use crate::unplugged::{self, Nowhere};

impl State {
    /// Returns true if frames wait for the backend.
    pub(super) fn serve_tx(
        &mut self,
        mem: &DmaMap,
        tallies: &Tallies,
        arm: bool,
        round: &mut Round,
    ) -> bool {
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
}
