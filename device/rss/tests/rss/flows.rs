// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What counts as the flow of a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use vnet_rss::flow::{headers, parse, Addresses, Transport};

use crate::frames::{Kind, ICMP, TCP, UDP};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

fn v4(protocol: u8) -> Kind {
    Kind::new(("10.0.0.1", 1000), ("10.0.0.2", 80), protocol)
}

fn v6(protocol: u8) -> Kind {
    Kind::new(("fe80::1", 1000), ("fe80::2", 80), protocol)
}

fn has_ports(kind: &Kind) -> bool {
    parse(&kind.bytes()).unwrap().ports.is_some()
}

#[test]
fn only_tcp_and_udp_have_ports() {
    for kind in [v4, v6] {
        assert!(has_ports(&kind(TCP)) && has_ports(&kind(UDP)));
        for protocol in [ICMP, 58, 132, 59, 255] {
            assert!(!has_ports(&kind(protocol)), "{protocol}");
        }
    }
}

#[test]
fn fragments_have_none() {
    // More fragments; the last one; one in between. "Don't fragment" is not a fragment.
    for (fragment, expected) in [
        (0x2000, false),
        (0x00b9, false),
        (0x20b9, false),
        (0x4000, true),
    ] {
        let frame = Kind {
            fragment,
            ..v4(UDP)
        };
        assert_eq!(has_ports(&frame), expected, "{fragment:#x}");
    }
    for options in [vec![(FRAGMENT, 0)], vec![(HOP_BY_HOP, 0), (FRAGMENT, 0)]] {
        assert!(!has_ports(&Kind { options, ..v6(UDP) }));
    }
}

#[test]
fn what_is_not_ip_has_no_flow() {
    for kind in [[0x08, 0x06], [0x00, 0x2e], [0x88, 0xcc]] {
        let mut frame = v4(TCP).bytes();
        frame[12..14].copy_from_slice(&kind);
        assert_eq!(parse(&frame), None);
    }
    for version in [0x00, 0x44, 0x65, 0x50] {
        let mut frame = v4(TCP).bytes();
        frame[14] = version;
        assert_eq!(parse(&frame), None, "{version:#x}");
        let mut frame = v6(TCP).bytes();
        frame[14] = version & 0x0f | 0x50;
        assert_eq!(parse(&frame), None, "{version:#x}");
    }
    // A third tag is one too many.
    let tags = vec![0x8100; 3];
    assert_eq!(parse(&Kind { tags, ..v4(TCP) }.bytes()), None);
}

#[test]
fn extension_headers_without_end_have_no_ports() {
    let chain = |n| Kind {
        options: vec![(DESTINATION, 0); n],
        ..v6(TCP)
    };
    assert!(has_ports(&chain(8)));
    assert!(!has_ports(&chain(9)));
}

#[test]
fn a_frame_that_ends_early_loses_ports_first() {
    for whole in [v4(TCP).bytes(), v6(TCP).bytes()] {
        let flow = parse(&whole).unwrap();
        let addresses_end = if whole[14] >> 4 == 4 { 34 } else { 54 };
        for end in 0..whole.len() {
            let cut = parse(&whole[..end]);
            match end {
                _ if end < addresses_end => assert_eq!(cut, None, "{end}"),
                _ if end < addresses_end + 4 => {
                    let cut = cut.unwrap();
                    assert_eq!((cut.addresses, cut.ports), (flow.addresses, None), "{end}");
                }
                _ => assert_eq!(cut, Some(flow), "{end}"),
            }
        }
    }
}

#[test]
fn headers_end_where_the_payload_begins() {
    for (kind, before) in [(v4 as fn(u8) -> Kind, 34), (v6, 54)] {
        assert_eq!(headers(&kind(UDP).bytes()), Some(before + 8));
        let mut frame = kind(TCP).bytes();
        for (words, expected) in [(4, None), (5, Some(20)), (8, Some(32)), (11, Some(44))] {
            frame[before + 12] = words << 4;
            assert_eq!(headers(&frame), expected.map(|n| before + n), "{words}");
        }
        // One word more than there are bytes.
        frame[before + 12] = 12 << 4;
        assert_eq!(headers(&frame), None);
        assert_eq!(headers(&kind(ICMP).bytes()), None);
        let frame = kind(UDP).bytes();
        assert_eq!(headers(&frame[..before + 8]), Some(before + 8));
        assert_eq!(headers(&frame[..before + 7]), None);
    }
    let fragment = Kind {
        fragment: 0x2000,
        ..v4(UDP)
    };
    assert_eq!(headers(&fragment.bytes()), None);
    let fragment = Kind {
        options: vec![(FRAGMENT, 0)],
        ..v6(UDP)
    };
    assert_eq!(headers(&fragment.bytes()), None);
}

fn kinds() -> impl Strategy<Value = Kind> {
    let ends = prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| {
            (
                IpAddr::from(Ipv4Addr::from(a)),
                IpAddr::from(Ipv4Addr::from(b)),
            )
        }),
        (any::<u128>(), any::<u128>()).prop_map(|(a, b)| {
            (
                IpAddr::from(Ipv6Addr::from(a)),
                IpAddr::from(Ipv6Addr::from(b)),
            )
        }),
    ];
    let extension = prop::sample::select(vec![HOP_BY_HOP, ROUTING, DESTINATION]);
    (
        ends,
        any::<(u16, u16)>(),
        prop::sample::select(vec![TCP, UDP]),
        prop::collection::vec(prop::sample::select(vec![0x8100, 0x88a8]), 0..=2),
        prop::collection::vec((extension, 0..4u8), 0..=8),
    )
        .prop_map(
            |((from, to), (source, destination), protocol, tags, options)| Kind {
                from: (from, source),
                to: (to, destination),
                protocol,
                tags,
                options,
                fragment: 0,
            },
        )
}

proptest! {
    #[test]
    fn a_flow_is_found_behind_tags_options_and_extensions(kind in kinds()) {
        let bytes = kind.bytes();
        let flow = parse(&bytes).unwrap();
        let addresses = match flow.addresses {
            Addresses::V4(a) => a.to_vec(),
            Addresses::V6(a) => a.to_vec(),
        };
        let expected = match (kind.from.0, kind.to.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
            (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
            _ => unreachable!(),
        };
        prop_assert_eq!(addresses, expected);
        let transport = if kind.protocol == TCP { Transport::Tcp } else { Transport::Udp };
        let ports = [kind.from.1.to_be_bytes(), kind.to.1.to_be_bytes()].concat();
        prop_assert_eq!(flow.ports, Some((transport, ports.try_into().unwrap())));
        if kind.protocol == UDP {
            // Behind it the frame has 36 bytes.
            prop_assert_eq!(headers(&bytes), Some(bytes.len() - 36));
        }
    }

    /// Whatever comes, nothing is read that is not there, and it ends.
    #[test]
    fn any_bytes(
        kind in kinds(),
        noise in prop::collection::vec((0..128usize, any::<u8>()), 0..8),
        end in 0..200usize,
    ) {
        let mut bytes = kind.bytes();
        for (at, value) in noise {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(end);
        parse(&bytes);
        prop_assert!(headers(&bytes).is_none_or(|n| n <= bytes.len()));
    }
}
