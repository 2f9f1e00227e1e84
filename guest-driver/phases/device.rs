// SPDX-License-Identifier: GPL-2.0

//! What stands in for hardware from phase 5 on: a receive ring, and an interrupt that can be off.

use kernel::prelude::*;

use crate::rx_ring::RxRing;

pub(crate) struct Device {
    pub(crate) ring: RxRing,
    /// The device may interrupt.
    armed: bool,
}

impl Device {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            ring: RxRing::new()?,
            armed: false,
        })
    }

    /// The interface comes up: nothing is in the ring, and the first frame is to interrupt.
    pub(crate) fn start(&mut self) {
        self.ring.clear();
        self.armed = true;
    }

    /// True if the device interrupts now: it does so once, until it is armed again.
    pub(crate) fn interrupts(&mut self) -> bool {
        core::mem::replace(&mut self.armed, false)
    }

    /// Lets the device interrupt again. False if it has written a frame since the driver looked last: for
    /// that one there would be no interrupt, so the driver has to look again instead.
    pub(crate) fn arm(&mut self) -> bool {
        self.armed = self.ring.is_empty();
        self.armed
    }
}
