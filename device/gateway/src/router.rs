// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! IPv6 router advertisements (RFC 4861), so that guests give themselves an address in the LAN's
//! prefix, and know the name server (RFC 8106).
//!
//! The gateway does not say that it is a default router: nothing lies behind it, and a guest with
//! another card should not send its IPv6 traffic here.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpAddress,
    IpProtocol, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation,
    NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};

use crate::net::{self, Lan};
use crate::outbound::Outbound;
use crate::packet::{Ip, Transport, ETHERNET_LEN};

const ROUTER_SOLICITATION: u8 = 133;
/// Hop limit of neighbour discovery messages: one that was routed has less.
pub(crate) const ON_LINK: u8 = 255;
const ALL_NODES: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Advertised lifetimes of addresses. They have to outlive [`ADVERTISE_EVERY`] by far.
const VALID: Duration = Duration::from_secs(24 * 3600);
const PREFERRED: Duration = Duration::from_secs(4 * 3600);
/// How often the lifetimes are renewed. `AdvSendAdvertisements` allows up to 30 minutes.
pub(crate) const ADVERTISE_EVERY: Duration = Duration::from_secs(1200);

/// The option that names name servers (RFC 8106, 5.1): so long with one of them.
const NAME_SERVER: u8 = 25;
const NAME_SERVER_LEN: usize = 24;
/// For how long it can be asked: as the RFC has it, three times as long as until the next advertisement.
const NAME_SERVER_LIFETIME: u32 = 3600;

/// True if the packet asks for an advertisement.
pub(crate) fn is_solicitation(ip: &Ip) -> bool {
    let kind = Transport::Icmp {
        kind: ROUTER_SOLICITATION,
        code: 0,
    };
    let to_us =
        ip.dst == IpAddress::from(ALL_ROUTERS) || ip.dst == IpAddress::from(net::IPV6_LINK_LOCAL);
    ip.protocol == IpProtocol::Icmpv6
        && ip.fragment.is_none()
        && ip.transport == kind
        && ip.hop_limit == ON_LINK
        && to_us
}

/// Sends an advertisement to all nodes.
pub(crate) fn advertise(lan: &Lan, out: &mut Outbound) {
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::ZERO,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(RawHardwareAddress::from(net::MAC)),
        mtu: None,
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: net::IPV6_PREFIX_LEN,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: VALID,
            preferred_lifetime: PREFERRED,
            prefix: lan.ipv6_prefix(),
        }),
    });
    let ip = Ipv6Repr {
        src_addr: net::IPV6_LINK_LOCAL,
        dst_addr: ALL_NODES,
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len() + NAME_SERVER_LEN,
        hop_limit: ON_LINK,
    };
    let len = ETHERNET_LEN + ip.buffer_len() + ip.payload_len;
    out.send(len, |frame| {
        frame.fill(0);
        let mut ethernet = EthernetFrame::new_unchecked(frame);
        ethernet.set_src_addr(net::MAC);
        ethernet.set_dst_addr(EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
        ethernet.set_ethertype(EthernetProtocol::Ipv6);
        let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
        ip.emit(&mut packet);
        let (message, option) = packet
            .payload_mut()
            .split_at_mut(advertisement.buffer_len());
        option.copy_from_slice(&name_server(lan));
        advertisement.emit(
            &net::IPV6_LINK_LOCAL,
            &ALL_NODES,
            &mut Icmpv6Packet::new_unchecked(message),
            &ChecksumCapabilities::ignored(),
        );
        // Of all of it: the crate does not know the option.
        Icmpv6Packet::new_unchecked(packet.payload_mut())
            .fill_checksum(&net::IPV6_LINK_LOCAL, &ALL_NODES);
    });
}

/// The option that says that the gateway is the name server.
fn name_server(lan: &Lan) -> [u8; NAME_SERVER_LEN] {
    let mut option = [0; NAME_SERVER_LEN];
    // Its length counts eight bytes each.
    option[..2].copy_from_slice(&[NAME_SERVER, (NAME_SERVER_LEN / 8) as u8]);
    option[4..8].copy_from_slice(&NAME_SERVER_LIFETIME.to_be_bytes());
    option[8..].copy_from_slice(&lan.ipv6.octets());
    option
}
