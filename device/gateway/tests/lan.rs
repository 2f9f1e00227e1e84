// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a guest needs before it can talk: ARP, DHCP, neighbour and router discovery.

mod common;

use std::net::Ipv4Addr;

use common::frames::{answer_v6, arp_request, ethernet, icmp, ipv6};
use common::{ask, open, LINK_LOCAL, MAC};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscPrefixInfoFlags, NdiscRepr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr, UdpPacket,
};
use vnet_backend::{checksum, Losses};
use vnet_gateway::{net, ports};

#[test]
fn arp() {
    let mut queue = open(1).remove(0);
    let answers = ask(&mut *queue, &arp_request());
    assert_eq!(answers.len(), 1);
    let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
    assert_eq!(frame.dst_addr(), MAC);
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap()
    else {
        panic!("not an answer for IPv4");
    };
    assert_eq!(operation, ArpOperation::Reply);
    assert_eq!(source_hardware_addr, net::MAC);
    assert_eq!(source_protocol_addr, net::IPV4);
}

/// A client message in a frame, as from a station without an address.
fn dhcp(kind: DhcpMessageType, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&0xabcd_0123u32.to_be_bytes());
    message[28..34].copy_from_slice(&MAC.0);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, u8::from(kind)]);
    // A client identifier that is not an Ethernet address, as network managers send it.
    message.extend_from_slice(&[61, 5, 255, 1, 2, 3, 4]);
    if let Some(address) = requested {
        message.extend_from_slice(&[50, 4]);
        message.extend_from_slice(&address.octets());
        message.extend_from_slice(&[54, 4]);
        message.extend_from_slice(&net::IPV4.octets());
    }
    message.push(255);

    let len = 8 + message.len();
    let mut udp = Vec::new();
    for field in [68, 67, len as u16, 0] {
        udp.extend_from_slice(&field.to_be_bytes());
    }
    udp.extend_from_slice(&message);
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0];
    ip.extend_from_slice(&[255; 4]);
    ip[2..4].copy_from_slice(&((20 + len) as u16).to_be_bytes());
    let sum = !checksum::sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend_from_slice(&udp);
    ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Ipv4, &ip)
}

#[test]
fn dhcp_gives_an_address_a_router_and_a_name_server() {
    let mut queue = open(1).remove(0);
    let steps = [
        (DhcpMessageType::Discover, None, DhcpMessageType::Offer),
        (
            DhcpMessageType::Request,
            Some(net::IPV4_FIRST_GUEST),
            DhcpMessageType::Ack,
        ),
    ];
    for (kind, requested, expected) in steps {
        let answers = ask(&mut *queue, &dhcp(kind, requested));
        assert_eq!(answers.len(), 1);
        let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        assert_eq!(frame.dst_addr(), MAC);
        let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.dst_addr(), net::IPV4_FIRST_GUEST);
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.verify_checksum(
            &IpAddress::from(ip.src_addr()),
            &IpAddress::from(ip.dst_addr())
        ));
        assert_eq!(
            (udp.src_port(), udp.dst_port()),
            (ports::DHCP_SERVER, ports::DHCP_CLIENT)
        );
        let packet = DhcpPacket::new_checked(udp.payload()).unwrap();
        let reply = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(reply.message_type, expected);
        assert_eq!(reply.transaction_id, 0xabcd_0123);
        assert_eq!(reply.your_ip, net::IPV4_FIRST_GUEST);
        assert_eq!(reply.server_identifier, Some(net::IPV4));
        assert_eq!(reply.router, Some(net::IPV4));
        assert_eq!(reply.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(reply.dns_servers.unwrap()[..], [net::IPV4]);
        assert!(reply.lease_duration.is_some_and(|seconds| seconds >= 600));
    }
}

/// Builds an ICMPv6 message of neighbour discovery.
fn ndisc(message: NdiscRepr<'_>, to: Ipv6Address, mac: EthernetAddress) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(message);
    let ip = Ipv6Repr {
        src_addr: LINK_LOCAL,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet);
    message.emit(
        &LINK_LOCAL,
        &to,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    ethernet(mac, EthernetProtocol::Ipv6, &bytes)
}

fn parse_ndisc<'a>(packet: &'a Ipv6Packet<&'a [u8]>) -> Icmpv6Repr<'a> {
    assert_eq!(packet.hop_limit(), 255);
    Icmpv6Repr::parse(
        &packet.src_addr(),
        &packet.dst_addr(),
        &Icmpv6Packet::new_checked(packet.payload()).unwrap(),
        &ChecksumCapabilities::default(),
    )
    .unwrap()
}

#[test]
fn neighbour_discovery() {
    let mut queue = open(1).remove(0);
    for target in [net::IPV6_LINK_LOCAL, net::IPV6] {
        let solicitation = NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: Some(MAC.into()),
        };
        let group = Ipv6Address::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
        let frame = ndisc(
            solicitation,
            group,
            EthernetAddress([0x33, 0x33, 0xff, 0, 0, 1]),
        );
        let answers = ask(&mut *queue, &frame);
        assert_eq!(answers.len(), 1);
        let ethernet = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        assert_eq!(ethernet.dst_addr(), MAC);
        let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            target_addr,
            lladdr,
            ..
        }) = parse_ndisc(&packet)
        else {
            panic!("not an advertisement");
        };
        assert_eq!(target_addr, target);
        assert_eq!(lladdr, Some(net::MAC.into()));
    }
}

#[test]
fn a_router_solicitation_is_answered_with_the_prefix_and_the_name_server() {
    let mut queue = open(1).remove(0);
    let all_routers = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let frame = ndisc(
        NdiscRepr::RouterSolicit {
            lladdr: Some(MAC.into()),
        },
        all_routers,
        EthernetAddress([0x33, 0x33, 0, 0, 0, 2]),
    );
    let answers = ask(&mut *queue, &frame);
    assert_eq!(answers.len(), 1);
    let ethernet = EthernetFrame::new_checked(&answers[0][..]).unwrap();
    assert_eq!(
        ethernet.dst_addr(),
        EthernetAddress([0x33, 0x33, 0, 0, 0, 1])
    );
    let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!(packet.src_addr(), net::IPV6_LINK_LOCAL);
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { prefix_info, .. }) = parse_ndisc(&packet)
    else {
        panic!("not an advertisement");
    };
    let prefix = prefix_info.unwrap();
    assert_eq!(prefix.prefix, net::IPV6_PREFIX);
    assert_eq!(prefix.prefix_len, 64);
    assert_eq!(
        prefix.flags,
        NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF
    );
    // The options, behind what all advertisements have.
    let mut options = &packet.payload()[16..];
    let mut servers = Vec::new();
    while let [kind, len, ..] = *options {
        let (option, rest) = options.split_at(usize::from(len) * 8);
        if kind == 25 {
            assert_eq!(option[2..8], [0, 0, 0, 0, 0x0e, 0x10]);
            servers.extend_from_slice(&option[8..]);
        }
        options = rest;
    }
    assert_eq!(servers, net::IPV6.octets());
    // From here on it is sent without being asked for.
    assert!(queue.deadline().is_some());
}

/// A station, and the address that it uses.
#[derive(Clone, Copy)]
struct Station {
    mac: EthernetAddress,
    address: IpAddress,
}

impl Station {
    fn gateway(&self) -> IpAddress {
        match self.address {
            IpAddress::Ipv4(_) => net::IPV4.into(),
            IpAddress::Ipv6(_) => net::IPV6.into(),
        }
    }

    /// A segment to the echo service.
    fn segment(&self, control: TcpControl, seq: i32, ack: Option<TcpSeqNumber>) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: 1000,
            dst_port: ports::ECHO,
            control,
            seq_number: TcpSeqNumber(seq),
            ack_number: ack,
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None::<TcpTimestampRepr>,
            payload: match control {
                TcpControl::Psh => b"?",
                _ => b"",
            },
        };
        let sums = ChecksumCapabilities::default();
        let to = self.gateway();
        let ip = IpRepr::new(self.address, to, IpProtocol::Tcp, repr.buffer_len(), 64);
        let mut bytes = vec![0; ip.buffer_len()];
        ip.emit(&mut bytes[..], &sums);
        let mut segment = TcpPacket::new_unchecked(&mut bytes[ip.header_len()..]);
        repr.emit(&mut segment, &self.address, &to, &sums);
        let kind = match to {
            IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
            IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
        };
        let mut frame = ethernet(net::MAC, kind, &bytes);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame
    }

    /// The only answer, which is to this station: its number, and what it says.
    fn answer(&self, answers: &[Vec<u8>]) -> (TcpSeqNumber, TcpControl, Vec<u8>) {
        assert_eq!(answers.len(), 1, "{}", self.address);
        let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
        assert_eq!(frame.dst_addr(), self.mac);
        let start = match frame.ethertype() {
            EthernetProtocol::Ipv4 => 20,
            EthernetProtocol::Ipv6 => 40,
            other => panic!("{other} for {}", self.address),
        };
        let segment = TcpPacket::new_checked(&frame.payload()[start..]).unwrap();
        let sums = ChecksumCapabilities::default();
        let repr = TcpRepr::parse(&segment, &self.gateway(), &self.address, &sums).unwrap();
        (repr.seq_number, repr.control, repr.payload.to_vec())
    }
}

/// A station may be one that answers no neighbour discovery yet, since its address is tentative (RFC 4862): it
/// must not keep others waiting. And the gateway may have forgotten one that knows the gateway well.
#[test]
fn who_asks_for_a_connection_is_not_asked_where_it_is() {
    let mut queue = open(1).remove(0);
    for n in 2..5 {
        let address = Ipv6Address::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 1, n);
        let addresses = [address.into(), Ipv4Addr::new(10, 77, 0, n as u8).into()];
        for address in addresses {
            let station = Station { mac: MAC, address };
            let answers = ask(&mut *queue, &station.segment(TcpControl::Syn, 0, None));
            assert_eq!(station.answer(&answers).1, TcpControl::Syn);
        }
    }
}

/// Three of each station's are as many as there can be connections.
#[test]
fn stations_with_connections_talk_in_turn_while_others_come() {
    let mut queue = open(1).remove(0);
    let mut connections = Vec::new();
    for n in 0..42 {
        let link_local = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
        let own = Ipv6Address::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 1, n);
        let ipv4 = Ipv4Addr::from_bits(net::IPV4_FIRST_GUEST.to_bits() + u32::from(n));
        for address in [link_local.into(), own.into(), ipv4.into()] {
            let mac = EthernetAddress([2, 0, 0, 0, 1, n as u8]);
            let station = Station { mac, address };
            let answers = ask(&mut *queue, &station.segment(TcpControl::Syn, 0, None));
            let (number, control, _) = station.answer(&answers);
            assert_eq!(control, TcpControl::Syn);
            let ack = station.segment(TcpControl::None, 1, Some(number + 1));
            assert_eq!(ask(&mut *queue, &ack).len(), 0);
            connections.push((station, number + 1));
        }
    }
    for n in 42..253 {
        let mut asks = arp_request();
        let mac = [2, 0, 0, 0, 1, n];
        asks[6..12].copy_from_slice(&mac);
        asks[22..28].copy_from_slice(&mac);
        asks[28..32].copy_from_slice(&[10, 77, 0, 2 + n]);
        assert_eq!(ask(&mut *queue, &asks).len(), 1);
    }
    for round in 0..3 {
        for (station, number) in &mut connections {
            let words = station.segment(TcpControl::Psh, 1 + round, Some(*number));
            let (at, _, said) = station.answer(&ask(&mut *queue, &words));
            assert_eq!((at, &said[..]), (*number, &b"?"[..]));
            *number += 1;
            let ack = station.segment(TcpControl::None, 2 + round, Some(*number));
            assert_eq!(ask(&mut *queue, &ack).len(), 0);
        }
    }
}

/// By stations that have no lease: of a server that was here before, or of none.
#[test]
fn addresses_that_are_in_use_are_not_given_out() {
    let mut queue = open(1).remove(0);
    let mut asks = arp_request();
    let mac = EthernetAddress([2, 0, 0, 0, 1, 0]);
    asks[6..12].copy_from_slice(&mac.0);
    asks[22..28].copy_from_slice(&mac.0);
    assert_eq!(ask(&mut *queue, &asks).len(), 1);
    let second = Station {
        mac: EthernetAddress([2, 0, 0, 0, 1, 1]),
        address: Ipv4Addr::new(10, 77, 0, 3).into(),
    };
    let answers = ask(&mut *queue, &second.segment(TcpControl::Syn, 0, None));
    assert_eq!(answers.len(), 1);

    let offer = ask(&mut *queue, &dhcp(DhcpMessageType::Discover, None));
    let ip = Ipv4Packet::new_checked(&offer[0][14..]).unwrap();
    assert_eq!(ip.dst_addr(), Ipv4Addr::new(10, 77, 0, 4));
}

#[test]
fn frames_for_others_are_ignored() {
    let mut queue = open(1).remove(0);
    let mut frame = ipv6(IpProtocol::Icmpv6, 64, &icmp(128, b"", 0));
    frame[..6].copy_from_slice(&[0x52, 0x54, 0, 9, 9, 9]);
    assert!(ask(&mut *queue, &frame).is_empty());
    assert_eq!(queue.losses(), Losses::default());
}

#[test]
fn a_ping_to_all_nodes_is_answered_by_one_of_our_addresses() {
    let mut queue = open(1).remove(0);
    // The stack has to know where the answer goes.
    let solicitation = NdiscRepr::NeighborSolicit {
        target_addr: net::IPV6_LINK_LOCAL,
        lladdr: Some(MAC.into()),
    };
    ask(
        &mut *queue,
        &ndisc(solicitation, net::IPV6_LINK_LOCAL, net::MAC),
    );
    let all = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let sum = [
        checksum::sum(&LINK_LOCAL.octets()),
        checksum::sum(&all.octets()),
        58,
        12,
    ];
    let sum = sum.into_iter().fold(0, checksum::add);
    let mut frame = ipv6(IpProtocol::Icmpv6, 64, &icmp(128, b"ping", sum));
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame[38..54].copy_from_slice(&all.octets());
    let answers = ask(&mut *queue, &frame);
    assert_eq!(answers.len(), 1);
    let answer = answer_v6(&answers[0], IpProtocol::Icmpv6);
    assert_eq!(answer[0], 129);
    assert_eq!(answer[8..], *b"ping");
}
