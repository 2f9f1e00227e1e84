// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The addresses of the virtual LAN. This is the one place that says what they are, if the user does not
//! say otherwise ([`Lan`]).
//!
//! | who | Ethernet | IPv4 | IPv6 |
//! |---|---|---|---|
//! | gateway | `02:76:6e:65:74:01` | `10.77.0.1/24` | `fe80::1`, `fd76:6e65:7400::1/64` |
//! | first guest | its own | `10.77.0.2` by DHCP | prefix `fd76:6e65:7400::/64` by router advertisement |

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

/// The gateway's Ethernet address: locally administered, and "vnet" in ASCII.
pub const MAC: EthernetAddress = EthernetAddress([0x02, 0x76, 0x6e, 0x65, 0x74, 0x01]);

/// The gateway's IPv4 address; also what DHCP names as router and name server.
pub const IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of the IPv4 prefix.
pub const IPV4_PREFIX_LEN: u8 = 24;
/// The IPv4 netmask, for DHCP.
pub const IPV4_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The address that the first DHCP client gets; the next ones get those that follow.
pub const IPV4_FIRST_GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The gateway's link-local IPv6 address.
pub const IPV6_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The IPv6 prefix of the LAN, a unique local one.
pub const IPV6_PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 0, 0);
/// Length of [`IPV6_PREFIX`].
pub const IPV6_PREFIX_LEN: u8 = 64;
/// The gateway's IPv6 address within the prefix.
pub const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 0, 1);

/// Most addresses that DHCP gives out, and thus leases that it remembers.
pub const MAX_STATIONS: u32 = 1024;
/// Fewest.
const MIN_STATIONS: u32 = 32;

/// The addresses of one LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The gateway's IPv4 address.
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv4_prefix_len: u8,
    /// The gateway's IPv6 address; the prefix has the length that SLAAC needs.
    pub(crate) ipv6: Ipv6Addr,
}

impl Default for Lan {
    fn default() -> Self {
        Self {
            ipv4: IPV4,
            ipv4_prefix_len: IPV4_PREFIX_LEN,
            ipv6: IPV6,
        }
    }
}

impl Lan {
    /// The gateway's address as `10.1.0.1/16`. `None`: no private or global address, or there is no room
    /// behind it for 32 guests.
    pub fn set_ipv4(&mut self, text: &str) -> Option<()> {
        let (address, len) = text.split_once('/')?;
        let (address, len): (Ipv4Addr, u8) = (address.parse().ok()?, len.parse().ok()?);
        if !(8..=30).contains(&len) {
            return None;
        }
        let room =
            address.to_bits() & (u32::MAX >> len) > 0 && behind(address, len) >= MIN_STATIONS;
        let usable = !(address.is_loopback() || address.is_multicast() || address.octets()[0] == 0);
        (room && usable && !address.is_broadcast()).then(|| {
            (self.ipv4, self.ipv4_prefix_len) = (address, len);
        })
    }

    /// The same as `fd00::1/64`. `None`: it is none of one station, or the prefix is not 64 bits long.
    pub fn set_ipv6(&mut self, text: &str) -> Option<()> {
        let (address, len) = text.split_once('/')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let reserved = address.is_multicast() || address.is_loopback();
        let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
        let host = address.to_bits() as u64 != 0 && address.to_bits() >> 64 != 0;
        (len == "64" && host && !reserved && !link_local).then(|| self.ipv6 = address)
    }

    /// The address and the length of its prefix.
    pub fn ipv4(&self) -> String {
        format!("{}/{}", self.ipv4, self.ipv4_prefix_len)
    }

    /// The same for IPv6.
    pub fn ipv6(&self) -> String {
        format!("{}/{IPV6_PREFIX_LEN}", self.ipv6)
    }

    pub(crate) fn ipv4_mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(!(u32::MAX >> self.ipv4_prefix_len))
    }

    /// The address that the first DHCP client gets; the next ones get those that follow.
    pub(crate) fn first_guest(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.ipv4.to_bits().wrapping_add(1))
    }

    /// How many addresses DHCP gives out.
    pub(crate) fn stations(&self) -> u32 {
        behind(self.ipv4, self.ipv4_prefix_len).min(MAX_STATIONS)
    }

    pub(crate) fn ipv6_prefix(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.ipv6.to_bits() & !u128::from(u64::MAX))
    }
}

/// How many stations' addresses follow this one: the last of a prefix is for broadcasts.
fn behind(address: Ipv4Addr, prefix_len: u8) -> u32 {
    let hosts = u32::MAX >> prefix_len;
    (hosts - (address.to_bits() & hosts)).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lan_is_as_it_was_before_it_could_be_chosen() {
        let lan = Lan::default();
        assert_eq!(lan.first_guest(), IPV4_FIRST_GUEST);
        assert_eq!(
            (lan.ipv4_mask(), lan.ipv6_prefix()),
            (IPV4_MASK, IPV6_PREFIX)
        );
        let mut same = lan;
        same.set_ipv4(&lan.ipv4()).unwrap();
        same.set_ipv6(&lan.ipv6()).unwrap();
        assert_eq!(same, lan);
    }

    #[test]
    fn guests_have_room_behind_the_gateway() {
        let mut lan = Lan::default();
        assert_eq!(lan.stations(), 253);
        for (good, stations) in [
            ("10.0.0.1/8", 1024),
            ("192.168.5.222/24", 32),
            ("172.16.0.1/26", 61),
        ] {
            assert!(lan.set_ipv4(good).is_some(), "{good}");
            assert_eq!(lan.stations(), stations, "{good}");
        }
        for bad in [
            "10.0.0.1",
            "10.0.0.0/24",
            "10.0.0.223/24",
            "10.0.0.1/27",
            "10.0.0.1/33",
            "10.0.0.1/7",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "0.0.0.1/8",
            "x/24",
        ] {
            assert!(lan.set_ipv4(bad).is_none(), "{bad}");
        }
        assert!(lan.set_ipv6("2001:db8::5/64").is_some());
        for bad in [
            "fd00::1",
            "fd00::1/48",
            "fd00::/64",
            "ff02::1/64",
            "fe80::1/64",
            "::1/64",
        ] {
            assert!(lan.set_ipv6(bad).is_none(), "{bad}");
        }
        assert_eq!(
            (lan.ipv4(), lan.ipv6()),
            ("172.16.0.1/26".into(), "2001:db8::5/64".into())
        );
    }
}
