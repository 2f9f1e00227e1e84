// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The addresses of the virtual LAN. This is the one place that says what they are.
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
