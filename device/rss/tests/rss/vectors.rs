// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The published values (Microsoft, "Verifying the RSS hash calculation"), and a reference that
//! goes bit by bit as the definition does.

use proptest::prelude::*;
use vnet_contract::hdr;
use vnet_contract::regs::{RSS_HASH_IPV4, RSS_HASH_IPV6};
use vnet_rss::{Rss, RssConfig, Toeplitz, KEY_SIZE};

use crate::frames::{config, rss, Kind, TCP, UDP};

/// Destination, source, hash over addresses, hash over addresses and ports.
type Row = ((&'static str, u16), (&'static str, u16), u32, u32);

const V4: [Row; 5] = [
    (
        ("161.142.100.80", 1766),
        ("66.9.149.187", 2794),
        0x323e_8fc2,
        0x51cc_c178,
    ),
    (
        ("65.69.140.83", 4739),
        ("199.92.111.2", 14230),
        0xd718_262a,
        0xc626_b0ea,
    ),
    (
        ("12.22.207.184", 38024),
        ("24.19.198.95", 12898),
        0xd2d0_a5de,
        0x5c2b_394a,
    ),
    (
        ("209.142.163.6", 2217),
        ("38.27.205.30", 48228),
        0x8298_9176,
        0xafc7_327f,
    ),
    (
        ("202.188.127.2", 1303),
        ("153.39.163.191", 44251),
        0x5d18_09c5,
        0x10e8_28a2,
    ),
];

const V6: [Row; 3] = [
    (
        ("3ffe:2501:200:3::1", 1766),
        ("3ffe:2501:200:1fff::7", 2794),
        0x2cc1_8cd5,
        0x4020_7d3d,
    ),
    (
        ("ff02::1", 4739),
        ("3ffe:501:8::260:97ff:fe40:efab", 14230),
        0x0f0c_461c,
        0xdde5_1bbf,
    ),
    (
        ("fe80::200:f8ff:fe21:67cf", 38024),
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251),
        0x4b61_e985,
        0x02d1_feef,
    ),
];

#[test]
fn published_values() {
    let addresses_only = Rss::new(RssConfig {
        types: RSS_HASH_IPV4 | RSS_HASH_IPV6,
        ..config()
    });
    let lists = [
        (&V4[..], [hdr::HASH_IPV4, hdr::HASH_TCPV4, hdr::HASH_UDPV4]),
        (&V6[..], [hdr::HASH_IPV6, hdr::HASH_TCPV6, hdr::HASH_UDPV6]),
    ];
    for (rows, [ip, tcp, udp]) in lists {
        for &(to, from, plain, full) in rows {
            for (protocol, report) in [(TCP, tcp), (UDP, udp)] {
                let frame = Kind::new(from, to, protocol).bytes();
                let choice = rss().choose(&frame);
                assert_eq!(
                    (choice.hash.value, choice.hash.report),
                    (full, report),
                    "{to:?}"
                );
                assert_eq!(choice.pair, Some(full as u16 % 128));
                let hash = addresses_only.choose(&frame).hash;
                assert_eq!((hash.value, hash.report), (plain, ip), "{to:?}");
            }
        }
    }
}

/// The definition: for each bit of the input that is set, the leftmost 32 bits of the key, which
/// moves left by one with each bit.
fn reference(key: &[u8; KEY_SIZE], input: &[u8]) -> u32 {
    let mut key = key.to_vec();
    let mut sum = 0;
    for byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                sum ^= u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
            }
            for i in 0..KEY_SIZE {
                key[i] = key[i] << 1 | key.get(i + 1).map_or(0, |next| next >> 7);
            }
        }
    }
    sum
}

proptest! {
    #[test]
    fn any_key_and_input(
        key in prop::array::uniform32(any::<u8>()),
        tail in prop::array::uniform8(any::<u8>()),
        input in prop::collection::vec(any::<u8>(), 0..=36),
    ) {
        let key: [u8; KEY_SIZE] = [&key[..], &tail[..]].concat().try_into().unwrap();
        prop_assert_eq!(Toeplitz::new(&key).hash(&input), reference(&key, &input));
    }
}
