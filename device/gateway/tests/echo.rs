// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Echo: ICMP and UDP, whole and in fragments.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::frames::{
    answer_v4, answer_v6, ethernet, fragment_v4, icmp, introduce, ipv4, ipv6, pseudo_v6, udp,
};
use common::{ask, open, receive, IPV4, MAC};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet, UdpPacket, UdpRepr,
};
use vnet_backend::{checksum, mock, Checksum, Gso, GsoKind, Meta};
use vnet_gateway::{net, ports};

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31) as u8).collect()
}

#[test]
fn ping_of_every_length_up_to_the_mtu() {
    let mut queue = open(1).remove(0);
    for len in [0, 1, 56, 64, 1472, 8972] {
        let frame = ipv4(IpProtocol::Icmp, &icmp(8, &data(len), 0));
        let answers = ask(&mut *queue, &frame);
        assert_eq!(answers.len(), 1);
        assert_eq!(
            answer_v4(&answers[0], IpProtocol::Icmp),
            icmp(0, &data(len), 0)
        );
    }
}

#[test]
fn ping_over_ipv6() {
    let mut queue = open(1).remove(0);
    for len in [0, 56, 1000, 8952] {
        let seed = pseudo_v6(IpProtocol::Icmpv6, 8 + len);
        let frame = ipv6(IpProtocol::Icmpv6, 64, &icmp(128, &data(len), seed));
        let answers = ask(&mut *queue, &frame);
        assert_eq!(answers.len(), 1);
        assert_eq!(
            answer_v6(&answers[0], IpProtocol::Icmpv6),
            icmp(129, &data(len), seed)
        );
    }
}

/// Cuts `payload` for an MTU, as the guest does.
fn cut(payload: &[u8], room: usize) -> Vec<(usize, &[u8], bool)> {
    let room = room & !7;
    let count = payload.len().div_ceil(room);
    payload
        .chunks(room)
        .enumerate()
        .map(|(n, part)| (n * room, part, n + 1 < count))
        .collect()
}

#[test]
fn a_ping_in_fragments_is_answered_in_fragments_of_the_same_size() {
    let mut queue = open(1).remove(0);
    for (len, mtu) in [
        (9000, 1500),
        (65_507 - 8, 1500),
        (65_507 - 8, 9000),
        (2000, 576),
    ] {
        let request = icmp(8, &data(len), 0);
        let mut reply = Vec::new();
        for (offset, part, more) in cut(&request, mtu - 20) {
            let frame = fragment_v4(IpProtocol::Icmp, part, 7, Some((offset, more)));
            let answers = ask(&mut *queue, &frame);
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].len(), frame.len());
            let packet = Ipv4Packet::new_checked(&answers[0][14..]).unwrap();
            assert_eq!(usize::from(packet.frag_offset()), offset);
            assert_eq!((packet.ident(), packet.more_frags()), (7, more));
            reply.extend(answer_v4(&answers[0], IpProtocol::Icmp));
        }
        assert!(reply == icmp(0, &data(len), 0));
    }
}

#[test]
fn an_ipv6_ping_in_fragments() {
    let mut queue = open(1).remove(0);
    let len = 20_000;
    let seed = pseudo_v6(IpProtocol::Icmpv6, 8 + len);
    let request = icmp(128, &data(len), seed);
    let mut reply = Vec::new();
    for (offset, part, more) in cut(&request, 1500 - 48) {
        let field = (offset as u16) | u16::from(more);
        let mut bytes = vec![u8::from(IpProtocol::Icmpv6), 0];
        bytes.extend_from_slice(&field.to_be_bytes());
        bytes.extend_from_slice(&99u32.to_be_bytes());
        bytes.extend_from_slice(part);
        let answers = ask(&mut *queue, &ipv6(IpProtocol::Ipv6Frag, 64, &bytes));
        assert_eq!(answers.len(), 1);
        reply.extend_from_slice(&answer_v6(&answers[0], IpProtocol::Ipv6Frag)[8..]);
    }
    assert!(reply == icmp(129, &data(len), seed));
}

#[test]
fn fragments_of_something_else_are_not_answered() {
    let mut queue = open(1).remove(0);
    introduce(&mut *queue);
    let part = data(64);
    for protocol in [IpProtocol::Icmp, IpProtocol::Udp, IpProtocol::Tcp] {
        let frame = fragment_v4(protocol, &part, 9, Some((64, false)));
        assert!(ask(&mut *queue, &frame).is_empty());
    }
    // A first fragment to another port does not open the way for its others.
    let mut first = udp(ports::DISCARD, &part);
    first[4..6].copy_from_slice(&500u16.to_be_bytes());
    let frame = fragment_v4(IpProtocol::Udp, &first, 10, Some((0, true)));
    assert!(ask(&mut *queue, &frame).is_empty());
    let frame = fragment_v4(IpProtocol::Udp, &part, 10, Some((72, false)));
    assert!(ask(&mut *queue, &frame).is_empty());
}

#[test]
fn udp_echo_swaps_the_ports_and_keeps_the_checksum_right() {
    let mut queue = open(1).remove(0);
    for len in [0, 1, 1000, 8972] {
        let answers = ask(
            &mut *queue,
            &ipv4(IpProtocol::Udp, &udp(ports::ECHO, &data(len))),
        );
        assert_eq!(answers.len(), 1);
        let answer = answer_v4(&answers[0], IpProtocol::Udp);
        let answer = UdpPacket::new_checked(&answer[..]).unwrap();
        assert_eq!((answer.src_port(), answer.dst_port()), (ports::ECHO, 1000));
        assert!(answer.verify_checksum(&IpAddress::from(net::IPV4), &IpAddress::from(IPV4)));
        assert_eq!(answer.payload(), data(len));
    }
}

#[test]
fn services_do_not_talk_to_each_other() {
    let mut queue = open(1).remove(0);
    introduce(&mut *queue);
    for (from, to) in [
        (ports::ECHO, ports::ECHO),
        (ports::CHARGEN, ports::ECHO),
        (ports::ECHO, ports::CHARGEN),
    ] {
        let mut datagram = udp(to, b"ping");
        datagram[..2].copy_from_slice(&from.to_be_bytes());
        datagram[6..8].fill(0);
        assert!(ask(&mut *queue, &ipv4(IpProtocol::Udp, &datagram)).is_empty());
    }
}

#[test]
fn udp_chargen_discard_and_closed_ports() {
    let mut queue = open(1).remove(0);
    introduce(&mut *queue);
    let answers = ask(
        &mut *queue,
        &ipv4(IpProtocol::Udp, &udp(ports::CHARGEN, b"?")),
    );
    assert_eq!(answers.len(), 1);
    let answer = answer_v4(&answers[0], IpProtocol::Udp);
    let answer = UdpPacket::new_checked(&answer[..]).unwrap();
    assert!(answer.verify_checksum(&IpAddress::from(net::IPV4), &IpAddress::from(IPV4)));
    assert_eq!(answer.payload().len(), 512);
    assert!(answer.payload().starts_with(b" !\"#"));

    let frame = ipv4(IpProtocol::Udp, &udp(ports::DISCARD, b"x"));
    assert!(ask(&mut *queue, &frame).is_empty());

    let answers = ask(&mut *queue, &ipv4(IpProtocol::Udp, &udp(54, b"x")));
    let answer = answer_v4(&answers[0], IpProtocol::Icmp);
    // Destination unreachable, port unreachable.
    assert_eq!(answer[..2], [3, 3]);
}

/// A datagram to one of the gateway's addresses, from any.
fn datagram(src: IpAddress, dst: IpAddress, port: u16, data: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: 1000,
        dst_port: port,
    };
    let len = udp.header_len() + data.len();
    let ip = IpRepr::new(src, dst, IpProtocol::Udp, len, 64);
    let sums = ChecksumCapabilities::default();
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(&mut packet[..], &sums);
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut packet[ip.header_len()..]),
        &src,
        &dst,
        data.len(),
        |payload| payload.copy_from_slice(data),
        &sums,
    );
    let kind = match src {
        IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
        IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    ethernet(net::MAC, kind, &packet)
}

/// The gateway cannot know, or find out, where some of them are but by the frames that they send.
#[test]
fn who_asks_by_udp_is_answered_at_once_whatever_its_address_is() {
    // Is there a "gateway"?
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07gateway\0\0\xff\0\x01";
    let to = [IpAddress::from(net::IPV4), net::IPV6.into()];
    let stations: [(IpAddress, IpAddress); 5] = [
        (Ipv4Addr::new(192, 0, 2, 9).into(), to[0]),
        (Ipv4Addr::new(10, 77, 0, 200).into(), to[0]),
        ("2001:db8::9".parse::<Ipv6Addr>().unwrap().into(), to[1]),
        (
            "fd76:6e65:7400::9".parse::<Ipv6Addr>().unwrap().into(),
            to[1],
        ),
        (IPV4.into(), to[0]),
    ];
    let mut queue = open(1).remove(0);
    // More than wait for an answer anywhere.
    for _ in 0..20 {
        for (station, to) in stations {
            for (port, data) in [(ports::DNS, &question[..]), (ports::CHARGEN, b"?")] {
                let answers = ask(&mut *queue, &datagram(station, to, port, data));
                assert_eq!(answers.len(), 1, "{station}");
                let frame = EthernetFrame::new_checked(&answers[0][..]).unwrap();
                assert_eq!((frame.src_addr(), frame.dst_addr()), (net::MAC, MAC));
                let start = match station {
                    IpAddress::Ipv4(_) => 20,
                    IpAddress::Ipv6(_) => 40,
                };
                let answer = UdpPacket::new_checked(&frame.payload()[start..]).unwrap();
                assert!(answer.verify_checksum(&to, &station));
                assert_eq!((answer.src_port(), answer.dst_port()), (port, 1000));
                if port == ports::DNS {
                    // The question's number, and two addresses.
                    assert_eq!(answer.payload()[..2], question[..2]);
                    assert_eq!(answer.payload()[6..8], [0, 2]);
                }
            }
        }
    }
}

#[test]
fn a_wrong_checksum_is_refused_unless_it_is_still_to_be_completed() {
    let mut queue = open(1).remove(0);
    let mut datagram = udp(ports::ECHO, b"hello");
    datagram[6] ^= 1;
    let frame = ipv4(IpProtocol::Udp, &datagram);
    assert!(ask(&mut *queue, &frame).is_empty());
    assert_eq!(queue.losses().sent, 1);

    // What a driver leaves to the card: the field holds the sum of the pseudo header.
    let right = udp(ports::ECHO, b"hello");
    let pseudo = [
        checksum::sum(&IPV4.octets()),
        checksum::sum(&net::IPV4.octets()),
        u16::from(u8::from(IpProtocol::Udp)),
        right.len() as u16,
    ]
    .into_iter()
    .fold(0, checksum::add);
    datagram[6..8].copy_from_slice(&pseudo.to_be_bytes());
    let partial = Meta {
        checksum: Checksum::Partial {
            start: 34,
            offset: 6,
        },
        gso: None,
    };
    assert!(mock::transmit(
        &mut *queue,
        &ipv4(IpProtocol::Udp, &datagram),
        partial
    ));
    let answers = receive(&mut *queue);
    let answer = answer_v4(&answers[0], IpProtocol::Udp);
    assert_eq!(answer[6..8], right[6..8]);
}

#[test]
fn frames_that_are_too_long_or_to_be_segmented_are_refused() {
    let mut queue = open(1).remove(0);
    let frame = ipv4(IpProtocol::Icmp, &icmp(8, &data(8980), 0));
    assert!(ask(&mut *queue, &frame).is_empty());
    let datagram = ipv4(IpProtocol::Udp, &udp(ports::ECHO, &data(100)));
    let uso = Meta {
        checksum: Checksum::Unverified,
        gso: Some(Gso {
            kind: GsoKind::Udp,
            ecn: false,
            size: 50,
            hdr_len: 42,
        }),
    };
    assert!(mock::transmit(&mut *queue, &datagram, uso));
    assert!(receive(&mut *queue).is_empty());
    assert_eq!(queue.losses().sent, 2);
}
