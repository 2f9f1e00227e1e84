// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a frame from the guest is, as far as the gateway has to know before it answers.
//!
//! The stack parses for itself; here a frame is checked for what the stack does not check (the
//! transport checksum, since most frames come without one to verify), and for what is answered
//! outside of it.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol,
    Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet, TcpPacket, UdpPacket,
};
use vnet_backend::checksum;

pub(crate) const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// IPv6 fragment extension header, including the two bytes that all extension headers share.
const IPV6_FRAGMENT_LEN: usize = 8;

/// A frame that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: EthernetAddress,
    pub(crate) to: EthernetAddress,
    /// `None`: ARP.
    pub(crate) ip: Option<Ip>,
}

impl Packet {
    /// The IPv4 address that its sender says it has. This is the frame.
    pub(crate) fn ipv4_sender(&self, frame: &[u8]) -> Option<Ipv4Addr> {
        match &self.ip {
            Some(Ip {
                src: IpAddress::Ipv4(address),
                ..
            }) => Some(*address),
            Some(_) => None,
            None => {
                let arp = ArpPacket::new_checked(frame.get(ETHERNET_LEN..)?).ok()?;
                let ArpRepr::EthernetIpv4 {
                    source_hardware_addr,
                    source_protocol_addr,
                    ..
                } = ArpRepr::parse(&arp).ok()?
                else {
                    return None;
                };
                (source_hardware_addr == self.from).then_some(source_protocol_addr)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddress,
    pub(crate) dst: IpAddress,
    pub(crate) hop_limit: u8,
    /// What stands at `start`.
    pub(crate) protocol: IpProtocol,
    /// Transport header and payload, as offsets in the frame. Padding lies behind `end`.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) ident: u32,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// The transport header, if this packet has it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp { src: u16, dst: u16, syn: bool },
    Udp { src: u16, dst: u16 },
    Icmp { kind: u8, code: u8 },
    Other,
}

/// Parses a frame. `None`: not for a stack like ours, or malformed.
pub(crate) fn parse(frame: &[u8]) -> Option<Packet> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let ip = match ethernet.ethertype() {
        EthernetProtocol::Arp => None,
        EthernetProtocol::Ipv4 => Some(parse_ipv4(ethernet.payload())?),
        EthernetProtocol::Ipv6 => Some(parse_ipv6(ethernet.payload())?),
        EthernetProtocol::Unknown(_) => return None,
    };
    let from = ethernet.src_addr();
    let to = ethernet.dst_addr();
    if !from.is_unicast() {
        return None;
    }
    let ip = match ip {
        Some(mut ip) => {
            ip.transport = parse_transport(frame.get(ip.start..ip.end)?, &ip)?;
            Some(ip)
        }
        None => None,
    };
    Some(Packet { from, to, ip })
}

/// Makes of a frame whose TCP segment has data and ends the stream one that only ends it, and returns its
/// length. `None`: it does not do both.
pub(crate) fn bare_end(frame: &mut [u8], ip: &Ip) -> Option<usize> {
    let mut segment = TcpPacket::new_checked(frame.get_mut(ip.start..ip.end)?).ok()?;
    let data = segment.payload_mut().len();
    if !segment.fin() || data == 0 {
        return None;
    }
    segment.set_seq_number(segment.seq_number() + data);
    let header = segment.header_len();
    let end = ip.start + usize::from(header);
    let packet = &mut frame[ETHERNET_LEN..end];
    match ip.src {
        IpAddress::Ipv4(_) => {
            let len = packet.len() as u16;
            let mut ipv4 = Ipv4Packet::new_unchecked(packet);
            ipv4.set_total_len(len);
            ipv4.fill_checksum();
        }
        IpAddress::Ipv6(_) => Ipv6Packet::new_unchecked(packet).set_payload_len(header.into()),
    }
    Some(end)
}

fn parse_ipv4(bytes: &[u8]) -> Option<Ip> {
    let ipv4 = Ipv4Packet::new_checked(bytes).ok()?;
    if ipv4.version() != 4 || !ipv4.verify_checksum() {
        return None;
    }
    let fragmented = ipv4.more_frags() || ipv4.frag_offset() != 0;
    Some(Ip {
        src: ipv4.src_addr().into(),
        dst: ipv4.dst_addr().into(),
        hop_limit: ipv4.hop_limit(),
        protocol: ipv4.next_header(),
        start: ETHERNET_LEN + usize::from(ipv4.header_len()),
        end: ETHERNET_LEN + usize::from(ipv4.total_len()),
        fragment: fragmented.then(|| Fragment {
            ident: ipv4.ident().into(),
            first: ipv4.frag_offset() == 0,
            last: !ipv4.more_frags(),
        }),
        transport: Transport::Other,
    })
}

fn parse_ipv6(bytes: &[u8]) -> Option<Ip> {
    let ipv6 = Ipv6Packet::new_checked(bytes).ok()?;
    if ipv6.version() != 6 {
        return None;
    }
    let mut ip = Ip {
        src: ipv6.src_addr().into(),
        dst: ipv6.dst_addr().into(),
        hop_limit: ipv6.hop_limit(),
        protocol: ipv6.next_header(),
        start: ETHERNET_LEN + IPV6_LEN,
        end: ETHERNET_LEN + ipv6.total_len(),
        fragment: None,
        transport: Transport::Other,
    };
    if ip.protocol == IpProtocol::Ipv6Frag {
        let [next, _, header @ ..] = ipv6.payload() else {
            return None;
        };
        let header = Ipv6FragmentHeader::new_checked(header).ok()?;
        ip.protocol = IpProtocol::from(*next);
        ip.start += IPV6_FRAGMENT_LEN;
        ip.fragment = Some(Fragment {
            ident: header.ident(),
            first: header.frag_offset() == 0,
            last: !header.more_frags(),
        });
    }
    Some(ip)
}

fn parse_transport(payload: &[u8], ip: &Ip) -> Option<Transport> {
    if ip.fragment.is_some_and(|fragment| !fragment.first) {
        return Some(Transport::Other);
    }
    Some(match ip.protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            Transport::Tcp {
                src: tcp.src_port(),
                dst: tcp.dst_port(),
                syn: tcp.syn() && !tcp.ack() && !tcp.rst(),
            }
        }
        IpProtocol::Udp => {
            // The length field of a first fragment counts bytes that are not in this packet.
            if ip.fragment.is_none() {
                UdpPacket::new_checked(payload).ok()?;
            } else if payload.len() < 8 {
                return None;
            }
            let udp = UdpPacket::new_unchecked(payload);
            Transport::Udp {
                src: udp.src_port(),
                dst: udp.dst_port(),
            }
        }
        IpProtocol::Icmp | IpProtocol::Icmpv6 => {
            if payload.len() < 8 {
                return None;
            }
            Transport::Icmp {
                kind: payload[0],
                code: payload[1],
            }
        }
        _ => Transport::Other,
    })
}

/// True if the TCP or UDP checksum of the frame is right, or not there to be checked.
pub(crate) fn transport_checksum_is_right(frame: &[u8], ip: &Ip) -> bool {
    if ip.fragment.is_some() {
        return true;
    }
    let payload = &frame[ip.start..ip.end];
    match ip.transport {
        Transport::Tcp { .. } => {}
        Transport::Udp { .. } => {
            // Zero says that the sender did not compute one, which only IPv4 allows.
            if payload[6..8] == [0, 0] {
                return matches!(ip.src, IpAddress::Ipv4(_));
            }
        }
        Transport::Icmp { .. } | Transport::Other => return true,
    }
    // A packet longer than the length field of UDP can say is not one that we answer.
    let Ok(len) = u16::try_from(payload.len()) else {
        return false;
    };
    let pseudo = [
        address_sum(&ip.src),
        address_sum(&ip.dst),
        u16::from(u8::from(ip.protocol)),
        len,
        checksum::sum(payload),
    ];
    pseudo.into_iter().fold(0, checksum::add) == 0xffff
}

fn address_sum(address: &IpAddress) -> u16 {
    match address {
        IpAddress::Ipv4(a) => checksum::sum(&a.octets()),
        IpAddress::Ipv6(a) => checksum::sum(&a.octets()),
    }
}
