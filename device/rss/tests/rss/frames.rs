// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames of the kinds that tests need, and the key of the published values.

use std::net::IpAddr;
use std::sync::Arc;

use vnet_contract::regs::RSS_HASH_MASK;
use vnet_rss::{Rss, RssConfig, Toeplitz, KEY_SIZE, TABLE_SIZE};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;

/// The key that the RSS verification suite uses.
pub(crate) const KEY: [u8; KEY_SIZE] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// All types, with the published key and a table that names each of 128 pairs once.
pub(crate) fn config() -> RssConfig {
    let mut table = [0; TABLE_SIZE];
    for (i, entry) in (0..).zip(&mut table) {
        *entry = i;
    }
    RssConfig {
        key: Arc::new(Toeplitz::new(&KEY)),
        types: RSS_HASH_MASK,
        symmetric: false,
        spread: true,
        table,
        pairs: 128,
    }
}

pub(crate) fn rss() -> Rss {
    Rss::new(config())
}

/// What a frame is made of.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) protocol: u8,
    pub(crate) tags: Vec<u16>,
    /// IPv4: 32-bit words of options. IPv6: extension headers, each with its number of 8-byte
    /// units beyond the first.
    pub(crate) options: Vec<(u8, u8)>,
    /// The fragment word of IPv4.
    pub(crate) fragment: u16,
}

impl Kind {
    pub(crate) fn new(from: (&str, u16), to: (&str, u16), protocol: u8) -> Self {
        Self {
            from: (from.0.parse().unwrap(), from.1),
            to: (to.0.parse().unwrap(), to.1),
            protocol,
            tags: Vec::new(),
            options: Vec::new(),
            fragment: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            f.extend(tag.to_be_bytes());
            f.extend([0x00, 0x05]);
        }
        match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + self.options.len() as u8;
                f.extend([8, 0, 0x40 | words, 0, 0, 60, 0, 1]);
                f.extend(self.fragment.to_be_bytes());
                f.extend([64, self.protocol, 0, 0]);
                f.extend(from.octets());
                f.extend(to.octets());
                f.extend(vec![1; self.options.len() * 4]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let first = self.options.first().map_or(self.protocol, |o| o.0);
                f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, first, 64]);
                f.extend(from.octets());
                f.extend(to.octets());
                for (i, &(_, units)) in self.options.iter().enumerate() {
                    let next = self.options.get(i + 1).map_or(self.protocol, |o| o.0);
                    f.extend([next, units, 0, 0, 0, 0, 0, 0]);
                    f.extend(vec![0; usize::from(units) * 8]);
                }
            }
            _ => panic!("one family"),
        }
        f.extend(self.from.1.to_be_bytes());
        f.extend(self.to.1.to_be_bytes());
        f.extend([0; 40]);
        f
    }
}
