// SPDX-License-Identifier: GPL-2.0

//! What stands in for hardware from phase 5 on: a receive ring, and an interrupt that can be off.

use kernel::prelude::*;
use netdev::{
    new_spinlock_irq,
    prelude::*,
    Received,
    SpinLockIrq, //
};

use crate::rx_ring::{
    Frame,
    RxRing, //
};

/// The device; interrupt and poll share it, so every step of theirs is one under its lock.
pub(crate) struct Device(Pin<KBox<SpinLockIrq<State>>>);

struct State {
    ring: RxRing,
    /// The device may interrupt.
    armed: bool,
}

impl Device {
    pub(crate) fn new() -> Result<Self> {
        let state = State {
            ring: RxRing::new()?,
            armed: false,
        };
        Ok(Self(KBox::pin_init(new_spinlock_irq!(state), GFP_KERNEL)?))
    }

    /// The interface comes up: nothing is in the ring, and the first frame is to interrupt.
    pub(crate) fn start(&self) {
        let mut state = self.0.lock();
        state.ring.clear();
        state.armed = true;
    }

    /// Receives a frame from the wire. False if there is no buffer for it: it is missed.
    #[allow(dead_code)] // from phase 7 on
    pub(crate) fn write(&self, frame: &Frame) -> bool {
        self.0.lock().ring.write(frame)
    }

    /// The same with a frame that is made here.
    #[allow(dead_code)] // up to phase 6
    pub(crate) fn write_numbered(&self) -> bool {
        self.0.lock().ring.write_numbered()
    }

    /// True if the device interrupts now: it does so once, until it is armed again.
    pub(crate) fn interrupts(&self) -> bool {
        core::mem::replace(&mut self.0.lock().armed, false)
    }

    /// The driver takes a frame, and gives its buffer back.
    pub(crate) fn read(&self) -> Option<Frame> {
        self.0.lock().ring.read()
    }

    /// Hands the stack at most `budget` frames, as phase 5 does, and says of each what it was taken for,
    /// if it was taken.
    #[allow(dead_code)] // from phase 6 on
    pub(crate) fn receive<N: Operations>(
        &self,
        napi: &Napi<'_, N>,
        budget: u32,
        mut taken: impl FnMut(Option<Received>),
    ) -> u32 {
        for done in 0..budget {
            let Some(frame) = self.read() else {
                return done;
            };
            taken(RxSkb::new(napi.device(), &frame).and_then(|skb| skb.receive(napi)));
        }
        budget
    }

    /// Lets the device interrupt again. False if it has written a frame since the driver looked last: for
    /// that one there would be no interrupt, so the driver has to look again instead.
    pub(crate) fn arm(&self) -> bool {
        let mut state = self.0.lock();
        state.armed = state.ring.is_empty();
        state.armed
    }
}
