// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames as a guest builds them.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
};
use vnet_backend::checksum;
use vnet_gateway::net;

use super::{IPV4, LINK_LOCAL, MAC};

/// A frame to `to`.
pub fn ethernet(to: EthernetAddress, kind: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    let mut header = EthernetFrame::new_unchecked(&mut frame[..]);
    header.set_src_addr(MAC);
    header.set_dst_addr(to);
    header.set_ethertype(kind);
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet from the guest to the gateway.
pub fn ipv4(protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    fragment_v4(protocol, payload, 0, None)
}

/// A TCP segment over IPv4.
pub fn tcp(segment: &TcpRepr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; segment.buffer_len()];
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut bytes[..]),
        &IPV4.into(),
        &net::IPV4.into(),
        &ChecksumCapabilities::default(),
    );
    ipv4(IpProtocol::Tcp, &bytes)
}

/// An IPv4 packet from the guest to the gateway, as a fragment if `fragment` gives its offset and whether more follow.
pub fn fragment_v4(
    protocol: IpProtocol,
    payload: &[u8],
    ident: u16,
    fragment: Option<(usize, bool)>,
) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: IPV4,
        dst_addr: net::IPV4,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.set_ident(ident);
    if let Some((offset, more)) = fragment {
        packet.set_dont_frag(false);
        packet.set_frag_offset(offset as u16);
        packet.set_more_frags(more);
    }
    packet.fill_checksum();
    bytes.extend_from_slice(payload);
    ethernet(net::MAC, EthernetProtocol::Ipv4, &bytes)
}

/// An IPv6 packet from the guest to the gateway's link-local address.
pub fn ipv6(protocol: IpProtocol, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: LINK_LOCAL,
        dst_addr: net::IPV6_LINK_LOCAL,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
    bytes.extend_from_slice(payload);
    ethernet(net::MAC, EthernetProtocol::Ipv6, &bytes)
}

/// An ICMP message with its checksum; `seed` is the sum of the pseudo header, if there is one.
pub fn icmp(kind: u8, data: &[u8], seed: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend_from_slice(data);
    let sum = !checksum::add(seed, checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The sum of the pseudo header between the guest and the gateway.
pub fn pseudo_v6(protocol: IpProtocol, len: usize) -> u16 {
    [
        checksum::sum(&LINK_LOCAL.octets()),
        checksum::sum(&net::IPV6_LINK_LOCAL.octets()),
        u16::from(u8::from(protocol)),
        len as u16,
    ]
    .into_iter()
    .fold(0, checksum::add)
}

/// A UDP datagram from the guest's port 1000, over IPv4.
pub fn udp(port: u16, data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: 1000,
        dst_port: port,
    };
    let mut datagram = vec![0; repr.header_len() + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut datagram[..]),
        &IpAddress::from(IPV4),
        &IpAddress::from(net::IPV4),
        data.len(),
        |payload| payload.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    datagram
}

/// The payload of an IPv4 packet from the gateway to the guest, of which the headers are checked.
pub fn answer_v4(frame: &[u8], protocol: IpProtocol) -> Vec<u8> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.src_addr(), net::MAC);
    assert_eq!(ethernet.dst_addr(), MAC);
    assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv4);
    let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!(packet.src_addr(), net::IPV4);
    assert_eq!(packet.dst_addr(), IPV4);
    assert_eq!(packet.next_header(), protocol);
    packet.payload().to_vec()
}

/// The same for IPv6 and link-local addresses.
pub fn answer_v6(frame: &[u8], protocol: IpProtocol) -> Vec<u8> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.src_addr(), net::MAC);
    assert_eq!(ethernet.dst_addr(), MAC);
    let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!(packet.src_addr(), net::IPV6_LINK_LOCAL);
    assert_eq!(packet.dst_addr(), LINK_LOCAL);
    assert_eq!(packet.next_header(), protocol);
    packet.payload().to_vec()
}

/// Lets the gateway know the guest's addresses, as its ARP and neighbour discovery would.
pub fn introduce(queue: &mut dyn vnet_backend::Queue) {
    let answers = super::ask(queue, &arp_request());
    assert_eq!(answers.len(), 1);
}

/// "Who has the gateway's address?"
pub fn arp_request() -> Vec<u8> {
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: IPV4,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: net::IPV4,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
    ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &packet)
}
