// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers and config space of a broken card: see [`vnet_faults`].

use std::sync::Arc;

use vnet_faults::{Faults, Kind, Site};

/// What goes wrong with the card as a whole.
#[derive(Debug)]
pub(crate) struct Mischief(Site);

impl Mischief {
    pub(crate) fn new(faults: &Arc<Faults>) -> Self {
        Self(Site::card(Arc::clone(faults)))
    }

    /// An access to the registers, before it takes effect. True: the card resets itself first.
    ///
    /// This is the one place where the message thread sleeps, and with it the virtual machine:
    /// which is what a slow register does.
    pub(crate) fn access(&self) -> bool {
        if let Some(hit) = self.0.hit(Kind::SlowMmio) {
            std::thread::sleep(hit.delay);
        }
        self.0.hit(Kind::Reset).is_some()
    }

    /// What a read of the register at this offset gives.
    pub(crate) fn read_registers(&self, offset: u64, data: &mut [u8]) {
        if let Some(hit) = self.0.hit_at(Kind::RegisterFlip, Some(offset)) {
            let bit = hit.random as usize % (8 * data.len()).max(1);
            if let Some(byte) = data.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        if self.0.hit_at(Kind::RegisterOnes, Some(offset)).is_some() {
            data.fill(0xff);
        }
    }

    /// What a read of config space gives.
    pub(crate) fn read_config(&self, data: &mut [u8]) {
        if self.0.hit(Kind::ConfigOnes).is_some() {
            data.fill(0xff);
        }
    }
}
