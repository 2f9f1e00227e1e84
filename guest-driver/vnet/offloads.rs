// SPDX-License-Identifier: GPL-2.0

//! Receive offloads: which of those that were agreed on are in use.
//!
//! A feature cannot be given back without a reset, so the card has a register that says which of
//! them are in use. It follows the user's choice while frames flow.

use netdev::{
    Features,
    Locked, //
};
use vnet_contract::{
    features,
    regs, //
};

use crate::nic::Nic;

/// Frames that stand for many segments.
pub(crate) const LARGE: u64 =
    features::RX_TSO4 | features::RX_TSO6 | features::RX_ECN | features::RX_USO;

/// Value of `RX_OFFLOADS` for a card with these features, if the user wants those offloads.
fn in_use(card: u64, wanted: Features) -> u32 {
    let mut used = card;
    if !wanted.contains(Features::RX_GRO) {
        used &= !LARGE;
    }
    // The others need it.
    if !wanted.contains(Features::RX_CHECKSUM) {
        used = 0;
    }
    used as u32 & regs::RX_OFFLOADS_MASK
}

impl Nic<'_> {
    /// Tells the card which receive offloads are in use. After every reset, and when the user
    /// changes their mind; queues may run. An XDP program wants none.
    pub(crate) fn write_rx_offloads(&self, dev: &Locked<'_, Self>, wanted: Features) {
        let used = match self.shape().program {
            None => in_use(self.identity.features, wanted),
            Some(_) => 0,
        };
        self.regs.write(regs::RX_OFFLOADS, used);
        // Once this is answered, no frame of another kind comes.
        if self.regs.read(regs::STATUS) == u32::MAX && !self.regs.alive() {
            self.card_gone(dev);
        }
    }
}
