// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers that say which frames the driver wants.

use vnet_contract::regs::{
    mac_from_regs, mac_to_regs, MAC_FILTER_VALID, RX_MODE_ALLMULTI, RX_MODE_BROADCAST,
    RX_MODE_MASK, RX_MODE_PROMISC,
};
use vnet_state::records::{Fields, Writer};
use vnet_worker::RxFilter;

use crate::config::is_station_address;

/// Entries of the MAC filter table: as many as the contract has registers for.
pub(crate) const TABLE_SIZE: usize = 64;

/// MTU after reset.
const DEFAULT_MTU: u16 = 1500;

/// Smallest MTU: what every IPv4 link must carry.
pub(crate) const MIN_MTU: u16 = 68;

/// MAC address, MTU, receive mode and the filter table.
#[derive(Clone, Debug)]
pub(crate) struct FilterRegs {
    max_mtu: u16,
    mac: [u8; 6],
    /// What was last written to `MAC_LO`, and waits for `MAC_HI`.
    mac_lo: u32,
    mtu: u16,
    mode: u32,
    table: Box<[Entry; TABLE_SIZE]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// What was last written to the low register, and waits for the high one.
    lo: u32,
    hi: u32,
    address: Option<[u8; 6]>,
}

impl FilterRegs {
    pub(crate) fn new(permanent_mac: [u8; 6], max_mtu: u16) -> Self {
        Self {
            max_mtu,
            mac: permanent_mac,
            mac_lo: mac_to_regs(permanent_mac).0,
            mtu: DEFAULT_MTU,
            mode: 0,
            table: Box::new([Entry::default(); TABLE_SIZE]),
        }
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.put(&self.mac)
            .u32(self.mac_lo)
            .u16(self.mtu)
            .u32(self.mode);
        for entry in self.table.iter() {
            let (valid, address) = match entry.address {
                Some(address) => (true, address),
                None => (false, [0; 6]),
            };
            to.u32(entry.lo).u32(entry.hi).bool(valid).put(&address);
        }
    }

    /// What another process saved of a card with this limit.
    pub(crate) fn load(max_mtu: u16, from: &mut Fields<'_>) -> Self {
        let mut filter = Self::new(from.array(), max_mtu);
        filter.mac_lo = from.u32();
        filter.mtu = from.u16();
        filter.mode = from.u32();
        for entry in filter.table.iter_mut() {
            (entry.lo, entry.hi) = (from.u32(), from.u32());
            let (valid, address) = (from.bool(), from.array());
            entry.address = valid.then_some(address);
        }
        filter
    }

    pub(crate) fn mac_lo(&self) -> u32 {
        self.mac_lo
    }

    pub(crate) fn mac_hi(&self) -> u32 {
        mac_to_regs(self.mac).1
    }

    pub(crate) fn set_mac_lo(&mut self, value: u32) {
        self.mac_lo = value;
    }

    /// Takes the address into use; false if no station can have it.
    #[must_use]
    pub(crate) fn set_mac_hi(&mut self, value: u32) -> bool {
        let mac = mac_from_regs(self.mac_lo, value);
        let legal = is_station_address(mac);
        if legal {
            self.mac = mac;
        }
        self.mac_lo = mac_to_regs(self.mac).0;
        legal
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu.into()
    }

    /// False if the MTU is outside the limits.
    #[must_use]
    pub(crate) fn set_mtu(&mut self, value: u32) -> bool {
        match u16::try_from(value) {
            Ok(mtu) if (MIN_MTU..=self.max_mtu).contains(&mtu) => {
                self.mtu = mtu;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }

    pub(crate) fn set_mode(&mut self, value: u32) {
        self.mode = value & RX_MODE_MASK;
    }

    /// Both registers of a table entry, low first.
    pub(crate) fn entry(&self, index: usize) -> (u32, u32) {
        self.table.get(index).map_or((0, 0), |e| (e.lo, e.hi))
    }

    pub(crate) fn set_entry_lo(&mut self, index: usize, value: u32) {
        if let Some(entry) = self.table.get_mut(index) {
            entry.lo = value;
        }
    }

    pub(crate) fn set_entry_hi(&mut self, index: usize, value: u32) {
        if let Some(entry) = self.table.get_mut(index) {
            entry.hi = value & (MAC_FILTER_VALID | 0xffff);
            entry.address = (value & MAC_FILTER_VALID != 0).then(|| mac_from_regs(entry.lo, value));
        }
    }

    /// What the workers apply; the table only if the driver accepted it.
    pub(crate) fn filter(&self, with_table: bool) -> RxFilter {
        let entries = if with_table { &self.table[..] } else { &[] };
        RxFilter {
            mac: self.mac,
            promisc: self.mode & RX_MODE_PROMISC != 0,
            allmulti: self.mode & RX_MODE_ALLMULTI != 0,
            broadcast: self.mode & RX_MODE_BROADCAST != 0,
            mtu: self.mtu,
            table: entries.iter().filter_map(|e| e.address).collect(),
            withheld: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_address_takes_effect_with_its_high_half() {
        let mut regs = FilterRegs::new(MAC, 9000);
        let (lo, hi) = mac_to_regs([2, 1, 2, 3, 4, 5]);
        regs.set_mac_lo(lo);
        assert_eq!(regs.filter(true).mac, MAC);
        assert!(regs.set_mac_hi(hi | 0xabcd_0000));
        assert_eq!(regs.filter(true).mac, [2, 1, 2, 3, 4, 5]);
        assert_eq!((regs.mac_lo(), regs.mac_hi()), (lo, hi));

        for illegal in [[3, 0, 0, 0, 0, 1], [0; 6], [0xff; 6]] {
            let (bad_lo, bad_hi) = mac_to_regs(illegal);
            regs.set_mac_lo(bad_lo);
            assert!(!regs.set_mac_hi(bad_hi));
            assert_eq!((regs.mac_lo(), regs.mac_hi()), (lo, hi));
        }
    }

    #[test]
    fn mtu_stays_within_its_limits() {
        let mut regs = FilterRegs::new(MAC, 9000);
        for (value, legal) in [(67, false), (68, true), (9000, true), (9001, false)] {
            assert_eq!(regs.set_mtu(value), legal, "{value}");
        }
        assert!(!regs.set_mtu(u32::MAX) && !regs.set_mtu(0x1_0000 + 1500));
        assert_eq!(regs.filter(true).mtu, 9000);
    }

    #[test]
    fn entries_count_while_they_are_valid() {
        let mut regs = FilterRegs::new(MAC, 1500);
        let group = [0x33, 0x33, 0, 0, 0, 1];
        let (lo, hi) = mac_to_regs(group);
        regs.set_entry_lo(63, lo);
        regs.set_entry_hi(63, hi);
        assert!(regs.filter(true).table.is_empty());
        regs.set_entry_hi(63, hi | MAC_FILTER_VALID);
        assert_eq!(regs.filter(true).table, [group]);
        assert!(regs.filter(false).table.is_empty());
        // A new low half waits for its high half.
        regs.set_entry_lo(63, 0);
        assert_eq!(regs.filter(true).table, [group]);
        regs.set_entry_hi(63, 0);
        assert!(regs.filter(true).table.is_empty());
        regs.set_entry_hi(64, MAC_FILTER_VALID);
        assert_eq!(regs.entry(64), (0, 0));
    }

    #[test]
    fn mode_keeps_defined_bits() {
        let mut regs = FilterRegs::new(MAC, 1500);
        regs.set_mode(u32::MAX);
        assert_eq!(regs.mode(), RX_MODE_MASK);
        let f = regs.filter(true);
        assert!(f.promisc && f.allmulti && f.broadcast);
    }
}
