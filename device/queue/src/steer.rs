// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Receive side scaling, as the engine sees it: frames that belong to another queue leave through
//! [`Steer`], and come in there through [`Handed`].

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta, Queue, Room, RxRing, MAX_FRAME};
use vnet_contract::hdr::FlowHash;

use crate::{Budget, Outcome, Waits};

/// Bytes of a frame that are looked at to choose its queue, at most: the headers of all but the
/// strangest frames.
pub const FRAME_START: usize = 128;

/// Chooses the queue of received frames.
pub trait Steer {
    /// Decides about a frame whose first bytes, [`FRAME_START`] at most, are `start`: returns its
    /// hash if it belongs to the queue that it came from. Else takes the frame, or drops it if
    /// that is its fate, and counts it.
    ///
    /// `frame.parts` may be longer than the frame. `start` was copied from it once and for all;
    /// the guest may change the rest while it is copied.
    fn steer(&mut self, start: &[u8], frame: &Frame<'_>) -> Option<FlowHash>;
}

/// Frames that came from elsewhere, and are for this queue.
pub trait Handed {
    /// The oldest frame.
    fn front(&mut self) -> Option<(&[u8], Meta, FlowHash)>;

    /// Removes the oldest frame.
    fn pop(&mut self);
}

/// Stands in for a receive queue that does not run, so that frames for others get past it.
#[derive(Debug)]
pub struct Drain {
    bytes: Box<[u8]>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            bytes: vec![0; MAX_FRAME].into_boxed_slice(),
        }
    }
}

impl Drain {
    /// Takes one batch of frames from the backend. Those that do not belong elsewhere are dropped.
    pub fn run(
        &mut self,
        backend: &mut dyn Queue,
        steer: &mut dyn Steer,
        budget: Budget,
    ) -> Outcome {
        let mut pass = Pass {
            parts: [VolatileSlice::from(&mut self.bytes[..])],
            steer,
            budget,
            lent: false,
            outcome: Outcome::new(Waits::Backend),
        };
        backend.receive(&mut pass);
        pass.outcome
    }
}

struct Pass<'b> {
    parts: [VolatileSlice<'b>; 1],
    steer: &'b mut dyn Steer,
    budget: Budget,
    lent: bool,
    outcome: Outcome,
}

impl RxRing for Pass<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        self.lent = false;
        if len > MAX_FRAME {
            return None;
        }
        if self.budget.is_spent() {
            self.outcome.waits = Waits::Nothing;
            return None;
        }
        self.lent = true;
        Some(Room { parts: &self.parts })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        if !std::mem::take(&mut self.lent) {
            return;
        }
        self.budget.spend(1, len, 1);
        let frame = Frame {
            meta,
            len,
            parts: &self.parts,
        };
        let mut start = [0; FRAME_START];
        let n = if len <= MAX_FRAME { len } else { 0 };
        let n = frame.read(&mut start[..n.min(FRAME_START)]);
        if n > 0 && self.steer.steer(&start[..n], &frame).is_none() {
            self.outcome.handed += 1;
        } else {
            self.outcome.drops += 1;
        }
    }
}
