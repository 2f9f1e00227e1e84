// SPDX-License-Identifier: GPL-2.0

//! Own address, receive mode and MAC filters.

use netdev::{
    AddressList,
    RxMode, //
};
use vnet_contract::regs;

use crate::nic::Nic;

/// Most MAC filters that any card has.
pub(crate) const MAX_FILTERS: usize = 64;

/// What the card is to receive beside its own address.
pub(crate) struct Filter {
    /// `RX_MODE`.
    mode: u32,
    addresses: [[u8; 6]; MAX_FILTERS],
    len: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            mode: regs::RX_MODE_BROADCAST,
            addresses: [[0; 6]; MAX_FILTERS],
            len: 0,
        }
    }
}

impl Filter {
    /// Adds addresses; false, and none added, if there is not room for all.
    fn add(&mut self, list: &AddressList<'_>, room: usize) -> bool {
        if list.len() > room - self.len {
            return false;
        }
        for (slot, address) in self.addresses[self.len..room].iter_mut().zip(list.iter()) {
            *slot = address;
            self.len += 1;
        }
        true
    }
}

impl Nic<'_> {
    /// Takes a new receive mode, and tells the card.
    ///
    /// Addresses that do not fit into the card's table widen the mode.
    pub(crate) fn change_filter(
        &self,
        mode: RxMode,
        unicast: &AddressList<'_>,
        multicast: &AddressList<'_>,
    ) {
        let room = usize::from(self.identity.mac_filters);
        let mut filter = self.filter.lock();
        *filter = Filter::default();
        if mode.promiscuous || !filter.add(unicast, room) {
            filter.mode |= regs::RX_MODE_PROMISC;
        }
        if mode.all_multicast || !filter.add(multicast, room) {
            filter.mode |= regs::RX_MODE_ALLMULTI;
        }
        self.write_filter(&filter);
    }

    /// Tells the card the receive mode that the stack last asked for.
    pub(crate) fn restore_filter(&self) {
        self.write_filter(&self.filter.lock());
    }

    fn write_filter(&self, filter: &Filter) {
        // First the table, then the mode: in between, the card receives rather too much than too
        // little if the old mode was the wider one.
        let room = usize::from(self.identity.mac_filters).min(MAX_FILTERS);
        for i in 0..room {
            let mac = filter.addresses[..filter.len].get(i).copied();
            self.regs.write_mac_filter(i as u32, mac);
        }
        self.regs.write(regs::RX_MODE, filter.mode);
    }

    /// Tells the card its address.
    pub(crate) fn write_mac(&self, mac: [u8; 6]) {
        let (lo, hi) = regs::mac_to_regs(mac);
        self.regs.write(regs::MAC_LO, lo);
        self.regs.write(regs::MAC_HI, hi);
    }
}
