// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Finds the flow that a frame belongs to, and where its payload begins.
//!
//! The bytes are a stranger's: every length in them is checked, and what does not make sense is a
//! frame without a flow. The parser goes forward only and looks at each header once, so it ends
//! with the bytes that it was given.

/// Transport protocol of a flow with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Source and destination port, as they are on the wire.
pub type Ports = [u8; 4];

/// The flow of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Source and destination address, one after the other as they are on the wire.
    pub addresses: Addresses<'a>,
    /// Protocol and ports, if there are any and they are in the bytes.
    pub ports: Option<(Transport, Ports)>,
}

/// Both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// IPv4.
    V4(&'a [u8; 8]),
    /// IPv6.
    V6(&'a [u8; 32]),
}

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const TCP: u8 = 6;
const TCP_LEN: usize = 20;
const UDP: u8 = 17;
const UDP_LEN: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Most VLAN tags that are skipped.
const MAX_TAGS: usize = 2;
/// Most IPv6 extension headers that are skipped.
const MAX_EXTENSIONS: usize = 8;

/// The flow of an Ethernet frame of which `start` are the first bytes; `None` if it is not IP.
pub fn parse(start: &[u8]) -> Option<Flow<'_>> {
    let packet = find(start)?;
    Some(Flow {
        addresses: packet.addresses,
        ports: ports(packet.protocol, packet.rest),
    })
}

/// Bytes of headers before the payload of TCP or UDP in an Ethernet frame of which `start` are the
/// first bytes. `None` if it has another protocol, or its headers do not end in these bytes.
pub fn headers(start: &[u8]) -> Option<usize> {
    let packet = find(start)?;
    let segment = packet.rest?;
    let len = match packet.protocol {
        TCP => usize::from(segment.get(12)? >> 4) * 4,
        UDP => UDP_LEN,
        _ => return None,
    };
    let good = len <= segment.len() && (packet.protocol == UDP || len >= TCP_LEN);
    good.then_some(start.len() - segment.len() + len)
}

/// What is found in front of a transport header.
struct Packet<'a> {
    addresses: Addresses<'a>,
    protocol: u8,
    /// From the transport header on, if the packet begins with one that is in the bytes.
    rest: Option<&'a [u8]>,
}

fn find(start: &[u8]) -> Option<Packet<'_>> {
    let mut kind = be16(start, 12)?;
    let mut at = 14;
    for _ in 0..MAX_TAGS {
        if kind == VLAN || kind == SERVICE_VLAN {
            kind = be16(start, at + 2)?;
            at += 4;
        }
    }
    let packet = start.get(at..)?;
    match kind {
        IPV4 => v4(packet),
        IPV6 => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Packet<'_>> {
    let version = packet.first()?;
    let header = usize::from(version & 15) * 4;
    if version >> 4 != 4 || header < 20 {
        return None;
    }
    let addresses = Addresses::V4(packet.get(12..20)?.try_into().ok()?);
    // More fragments follow, or this is not the first.
    let is_fragment = be16(packet, 6)? & 0x3fff != 0;
    Some(Packet {
        addresses,
        protocol: packet[9],
        rest: match is_fragment {
            true => None,
            false => packet.get(header..),
        },
    })
}

fn v6(packet: &[u8]) -> Option<Packet<'_>> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let addresses = Addresses::V6(packet.get(8..40)?.try_into().ok()?);
    let mut protocol = packet[6];
    let mut rest = packet.get(40..);
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {}
            // One that is all of its packet is a fragment too: both ends of the path must agree
            // about it without looking at the offset.
            FRAGMENT => rest = None,
            _ => break,
        }
        let Some(&[next, units, ..]) = rest else {
            break;
        };
        protocol = next;
        rest = rest.and_then(|rest| rest.get(8 + usize::from(units) * 8..));
    }
    Some(Packet {
        addresses,
        protocol,
        rest,
    })
}

/// The ports at the start of a transport header.
fn ports(protocol: u8, header: Option<&[u8]>) -> Option<(Transport, Ports)> {
    let transport = match protocol {
        TCP => Transport::Tcp,
        UDP => Transport::Udp,
        _ => return None,
    };
    Some((transport, *header?.first_chunk()?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
