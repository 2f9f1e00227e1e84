// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair whose card has its cable pulled: frames are taken from both sides, and lost.

use vnet_backend::{Frame, Offloads, Queue, RxRing};
use vnet_contract::hdr::FlowHash;
use vnet_queue::{Budget, Drain, Outcome, Steer, Waits};

/// Where frames go that are sent.
pub(crate) struct Nowhere;

impl Queue for Nowhere {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        // Nothing is to be finished before it is lost.
        Offloads::ALL
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

/// What a batch did that went [`Nowhere`].
pub(crate) fn lost(outcome: Outcome) -> Outcome {
    Outcome {
        frames: 0,
        bytes: 0,
        drops: outcome.drops + outcome.frames,
        ..outcome
    }
}

/// Takes a batch of frames that the backend has for the driver, and loses them.
pub(crate) fn discard(backend: &mut dyn Queue, drain: &mut Drain) -> Outcome {
    drain.run(backend, &mut Nobody, Budget::default())
}

/// Says of every frame that it belongs to the queue that it came from, which does not run.
struct Nobody;

impl Steer for Nobody {
    fn steer(&mut self, _: &[u8], _: &Frame<'_>) -> Option<FlowHash> {
        Some(FlowHash {
            value: 0,
            report: 0,
        })
    }
}

/// Batches that are taken from a backend that goes, at most: one that makes frames by itself never
/// runs out of them.
const LAST_BATCHES: usize = 64;

/// Counts the frames that a backend has for the driver, as far as that can be.
pub(crate) fn leftovers(backend: &mut dyn Queue) -> u64 {
    let mut drain = Drain::default();
    let mut frames = 0;
    for _ in 0..LAST_BATCHES {
        let outcome = discard(backend, &mut drain);
        frames += outcome.drops;
        if outcome.waits != Waits::Nothing {
            break;
        }
    }
    frames
}
