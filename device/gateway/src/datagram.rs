// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! UDP datagrams that the gateway sends past the stack.
//!
//! A socket of the stack's has to find out where an answer goes, and keeps it until it knows; all that are for
//! others wait behind it. But who asks says with his frame where he is: so nothing is looked for, and nothing waits.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpEndpoint, IpProtocol, IpRepr,
    UdpPacket, UdpRepr,
};

use crate::net;
use crate::outbound::Outbound;
use crate::packet::ETHERNET_LEN;

const HOP_LIMIT: u8 = 64;

/// Sends a datagram whose `len` bytes, zeros at first, are what `fill` makes of them. Both ends have addresses of
/// the same family.
pub(crate) fn send(
    out: &mut Outbound,
    station: EthernetAddress,
    from: IpEndpoint,
    to: IpEndpoint,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr {
        src_port: from.port,
        dst_port: to.port,
    };
    let ip_len = udp.header_len() + len;
    let ip = IpRepr::new(from.addr, to.addr, IpProtocol::Udp, ip_len, HOP_LIMIT);
    out.send(ETHERNET_LEN + ip.buffer_len(), |frame| {
        let mut ethernet = EthernetFrame::new_unchecked(frame);
        ethernet.set_src_addr(net::MAC);
        ethernet.set_dst_addr(station);
        ethernet.set_ethertype(match from.addr {
            IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
            IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
        });
        let packet = ethernet.payload_mut();
        ip.emit(&mut *packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut packet[ip.header_len()..]),
            &from.addr,
            &to.addr,
            len,
            |data| {
                data.fill(0);
                fill(data);
            },
            &checksums,
        );
    });
}
