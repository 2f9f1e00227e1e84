// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which hash is taken, and which pair it chooses.

use vnet_contract::hdr::{self, FlowHash};
use vnet_contract::regs::{
    RSS_HASH_IPV4, RSS_HASH_IPV6, RSS_HASH_TCPV4, RSS_HASH_TCPV6, RSS_HASH_UDPV4, RSS_HASH_UDPV6,
};
use vnet_rss::{Choice, Rss, RssConfig, TABLE_SIZE};

use crate::frames::{config, rss, Kind, ICMP, TCP, UDP};

const V4: (&str, &str) = ("10.1.2.3", "192.168.7.9");
const V6: (&str, &str) = ("fd00::1:2", "fd00::9:8");

fn frame((from, to): (&str, &str), protocol: u8) -> Vec<u8> {
    Kind::new((from, 4711), (to, 443), protocol).bytes()
}

#[test]
fn the_most_that_fits_and_is_in_use() {
    let all = [
        (RSS_HASH_IPV4, V4, ICMP, hdr::HASH_IPV4),
        (RSS_HASH_TCPV4, V4, TCP, hdr::HASH_TCPV4),
        (RSS_HASH_UDPV4, V4, UDP, hdr::HASH_UDPV4),
        (RSS_HASH_IPV6, V6, ICMP, hdr::HASH_IPV6),
        (RSS_HASH_TCPV6, V6, TCP, hdr::HASH_TCPV6),
        (RSS_HASH_UDPV6, V6, UDP, hdr::HASH_UDPV6),
    ];
    for types in 0..64 {
        let rss = Rss::new(RssConfig { types, ..config() });
        for (own, ends, protocol, report) in all {
            let (ip, ip_report) = match ends {
                V4 => (RSS_HASH_IPV4, hdr::HASH_IPV4),
                _ => (RSS_HASH_IPV6, hdr::HASH_IPV6),
            };
            let expected = if types & own != 0 {
                report
            } else if types & ip != 0 {
                ip_report
            } else {
                hdr::HASH_NONE
            };
            let choice = rss.choose(&frame(ends, protocol));
            assert_eq!(choice.hash.report, expected, "{types:#x} {own:#x}");
        }
    }
}

#[test]
fn what_is_not_hashed_goes_where_entry_0_says() {
    let mut table = [9; TABLE_SIZE];
    table[0] = 5;
    let rss = Rss::new(RssConfig {
        table,
        types: RSS_HASH_TCPV4,
        ..config()
    });
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
    for bytes in [&arp[..], &frame(V4, UDP), &frame(V6, TCP), &[], &arp[..13]] {
        let expected = Choice {
            hash: FlowHash::default(),
            pair: Some(5),
        };
        assert_eq!(rss.choose(bytes), expected);
    }
    assert_eq!(rss.choose(&frame(V4, TCP)).pair, Some(9));
}

#[test]
fn pairs_that_do_not_exist_are_pair_0() {
    let table = [200; TABLE_SIZE];
    let pairs = 16;
    let rss = Rss::new(RssConfig {
        table,
        pairs,
        ..config()
    });
    assert_eq!(rss.choose(&frame(V4, TCP)).pair, Some(0));
}

#[test]
fn without_spreading_there_is_a_hash_but_no_choice() {
    let hash = rss().choose(&frame(V4, TCP)).hash;
    for config in [
        RssConfig {
            spread: false,
            ..config()
        },
        RssConfig {
            pairs: 1,
            ..config()
        },
    ] {
        let rss = Rss::new(config);
        assert!(!rss.spreads());
        assert_eq!(rss.choose(&frame(V4, TCP)), Choice { hash, pair: None });
    }
}

#[test]
fn symmetric_means_both_directions_are_one() {
    let plain = rss();
    let symmetric = Rss::new(RssConfig {
        symmetric: true,
        ..config()
    });
    for (a, b) in [V4, V6] {
        for protocol in [ICMP, TCP, UDP] {
            let there = Kind::new((a, 4711), (b, 443), protocol).bytes();
            let back = Kind::new((b, 443), (a, 4711), protocol).bytes();
            assert_eq!(symmetric.choose(&there), symmetric.choose(&back));
            assert_ne!(plain.choose(&there), plain.choose(&back));
            // Other flows are still told apart.
            let other = Kind::new((a, 4712), (b, 443), protocol).bytes();
            let same = symmetric.choose(&there) == symmetric.choose(&other);
            assert_eq!(same, protocol == ICMP);
        }
    }
}

#[test]
fn symmetric_hashes_the_exclusive_or_in_both_places() {
    let symmetric = Rss::new(RssConfig {
        symmetric: true,
        ..config()
    });
    let hash = symmetric.choose(&Kind::new(("10.0.0.1", 1000), ("10.0.3.2", 80), TCP).bytes());
    // Addresses 0.0.3.3 twice, ports 1000 ^ 80 twice.
    let merged = Kind::new(("0.0.3.3", 1000 ^ 80), ("0.0.3.3", 1000 ^ 80), TCP);
    assert_eq!(hash, rss().choose(&merged.bytes()));
}
