// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What stations say when they are asked where they are (ARP, and neighbour discovery of RFC 4861): for a stack
//! that need not ask then, as another frame of theirs has said it.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Address, Ipv6Address, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use crate::net::{self, Lan};
use crate::router::ON_LINK;

/// The answer of the station that has this address, and sent a frame `from` there.
pub(crate) fn introduction(lan: &Lan, from: EthernetAddress, address: IpAddress) -> Vec<u8> {
    match address {
        IpAddress::Ipv4(address) => arp(lan, from, address),
        IpAddress::Ipv6(address) => advertisement(from, address),
    }
}

fn arp(lan: &Lan, from: EthernetAddress, address: Ipv4Address) -> Vec<u8> {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: from,
        source_protocol_addr: address,
        target_hardware_addr: net::MAC,
        target_protocol_addr: lan.ipv4,
    };
    frame(from, EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}

fn advertisement(from: EthernetAddress, address: Ipv6Address) -> Vec<u8> {
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        // Does not override what the station has said itself.
        flags: NdiscNeighborFlags::SOLICITED,
        target_addr: address,
        lladdr: Some(RawHardwareAddress::from(from)),
    });
    let ip = Ipv6Repr {
        src_addr: address,
        dst_addr: net::IPV6_LINK_LOCAL,
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len(),
        hop_limit: ON_LINK,
    };
    let len = ip.buffer_len() + ip.payload_len;
    frame(from, EthernetProtocol::Ipv6, len, |bytes| {
        let mut packet = Ipv6Packet::new_unchecked(bytes);
        ip.emit(&mut packet);
        advertisement.emit(
            &address,
            &net::IPV6_LINK_LOCAL,
            &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
            &ChecksumCapabilities::default(),
        );
    })
}

/// A frame to the gateway.
fn frame(
    from: EthernetAddress,
    kind: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; EthernetFrame::<&[u8]>::buffer_len(len)];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_src_addr(from);
    ethernet.set_dst_addr(net::MAC);
    ethernet.set_ethertype(kind);
    fill(ethernet.payload_mut());
    bytes
}
