// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Where the headers of a large frame are.

use vnet_backend::{Gso, GsoKind};

const ETHERNET_LEN: usize = 14;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const VLAN_LEN: usize = 4;
/// Most VLAN tags before the network header.
const MAX_TAGS: usize = 2;

const IPV4: u16 = 0x0800;
const IPV4_LEN: usize = 20;
const IPV6: u16 = 0x86dd;
pub(crate) const IPV6_LEN: usize = 40;
/// More fragments follow, or this is not the first.
const IPV4_FRAGMENT: u16 = 0x3fff;

// IPv6 extension headers that every segment repeats as they are.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
/// Most of them.
const MAX_EXTENSIONS: usize = 8;

const TCP: u8 = 6;
const TCP_LEN: usize = 20;
const UDP: u8 = 17;
const UDP_LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Offset of the checksum.
    pub(crate) fn checksum(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The headers that every segment repeats: offsets in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) network: Network,
    /// Start of the network header.
    pub(crate) network_at: usize,
    pub(crate) transport: Transport,
    /// Start of the transport header.
    pub(crate) transport_at: usize,
    /// Start of the payload.
    pub(crate) payload_at: usize,
}

/// Finds the headers at the start of a frame of which `bytes` are the first. `None`: they are not
/// what the segmentation needs, or not all of them are in the bytes.
///
/// The length of the headers is that which they have: how long the driver thinks they are only
/// helps one who does not look.
pub(crate) fn find(bytes: &[u8], gso: &Gso) -> Option<Layout> {
    let mut kind = be16(bytes, ETHERNET_LEN - 2)?;
    let mut at = ETHERNET_LEN;
    for _ in 0..MAX_TAGS {
        if kind == VLAN || kind == SERVICE_VLAN {
            kind = be16(bytes, at + 2)?;
            at += VLAN_LEN;
        }
    }
    let packet = bytes.get(at..)?;
    let (network, protocol, len) = match kind {
        IPV4 => ipv4(packet)?,
        IPV6 => ipv6(packet)?,
        _ => return None,
    };
    let segment = packet.get(len..)?;
    let (transport, headers) = match protocol {
        TCP => (Transport::Tcp, usize::from(segment.get(12)? >> 4) * 4),
        UDP => (Transport::Udp, UDP_LEN),
        _ => return None,
    };
    match (gso.kind, network, transport) {
        (GsoKind::TcpV4, Network::V4, Transport::Tcp) if headers >= TCP_LEN => {}
        (GsoKind::TcpV6, Network::V6, Transport::Tcp) if headers >= TCP_LEN => {}
        (GsoKind::Udp, _, Transport::Udp) => {}
        _ => return None,
    }
    (headers <= segment.len()).then_some(Layout {
        network,
        network_at: at,
        transport,
        transport_at: at + len,
        payload_at: at + len + headers,
    })
}

/// Protocol behind an IPv4 header, and the length of the header.
fn ipv4(packet: &[u8]) -> Option<(Network, u8, usize)> {
    let first = *packet.first()?;
    let len = usize::from(first & 15) * 4;
    let good = first >> 4 == 4 && len >= IPV4_LEN && be16(packet, 6)? & IPV4_FRAGMENT == 0;
    good.then_some((Network::V4, *packet.get(9)?, len))
}

/// Protocol behind an IPv6 header with its extensions, and the length of them all.
fn ipv6(packet: &[u8]) -> Option<(Network, u8, usize)> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let mut protocol = *packet.get(6)?;
    let mut len = IPV6_LEN;
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION) {
            break;
        }
        protocol = *packet.get(len)?;
        len += 8 + usize::from(*packet.get(len + 1)?) * 8;
    }
    Some((Network::V6, protocol, len))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
