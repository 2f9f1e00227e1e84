// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive filter.

use crate::header::ETH_HLEN;

/// Which frames the driver wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Own address.
    pub mac: [u8; 6],
    /// Receive every frame.
    pub promisc: bool,
    /// Receive every multicast frame.
    pub allmulti: bool,
    /// Receive broadcast frames.
    pub broadcast: bool,
    /// Payload bytes of the longest frame that carries no segment size.
    pub mtu: u16,
    /// More unicast and multicast addresses to receive.
    pub table: Vec<[u8; 6]>,
    /// Features that were negotiated, but that no frame may make use of now.
    pub withheld: u64,
}

impl RxFilter {
    /// Decides about a frame of `len` bytes by its Ethernet header.
    pub(crate) fn accepts(&self, header: &[u8; ETH_HLEN], len: usize, segmented: bool) -> bool {
        let [d0, d1, d2, d3, d4, d5, .., t0, t1] = *header;
        let tag = match u16::from_be_bytes([t0, t1]) {
            // 802.1Q and 802.1ad: a tag comes on top of the MTU.
            0x8100 | 0x88a8 => 4,
            _ => 0,
        };
        let fits = segmented || len <= ETH_HLEN + tag + usize::from(self.mtu);
        fits && self.accepts_address([d0, d1, d2, d3, d4, d5])
    }

    fn accepts_address(&self, to: [u8; 6]) -> bool {
        self.promisc
            || to == self.mac
            || match to {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => self.broadcast,
                [first, ..] => self.allmulti && first & 1 != 0,
            }
            || self.table.contains(&to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
    const ALL: [u8; 6] = [0xff; 6];

    fn accepts(filter: &RxFilter, to: [u8; 6]) -> bool {
        let mut header = [0; ETH_HLEN];
        header[..6].copy_from_slice(&to);
        filter.accepts(&header, 60, false)
    }

    #[test]
    fn each_mode_admits_its_own_kind_of_address() {
        let base = RxFilter {
            mac: MAC,
            mtu: 1500,
            ..RxFilter::default()
        };
        let cases = [
            (base.clone(), [true, false, false, false]),
            (
                RxFilter {
                    promisc: true,
                    ..base.clone()
                },
                [true, true, true, true],
            ),
            (
                RxFilter {
                    allmulti: true,
                    ..base.clone()
                },
                [true, false, true, false],
            ),
            (
                RxFilter {
                    broadcast: true,
                    ..base.clone()
                },
                [true, false, false, true],
            ),
            (
                RxFilter {
                    table: vec![OTHER],
                    ..base.clone()
                },
                [true, true, false, false],
            ),
            (
                RxFilter {
                    table: vec![GROUP],
                    ..base.clone()
                },
                [true, false, true, false],
            ),
            (
                RxFilter {
                    table: vec![ALL],
                    ..base
                },
                [true, false, false, true],
            ),
        ];
        for (filter, expected) in cases {
            let got = [MAC, OTHER, GROUP, ALL].map(|to| accepts(&filter, to));
            assert_eq!(got, expected, "{filter:?}");
        }
    }

    #[test]
    fn the_mtu_counts_neither_header_nor_tag_and_spares_large_receive() {
        let filter = RxFilter {
            promisc: true,
            mtu: 1500,
            ..RxFilter::default()
        };
        let mut header = [0; ETH_HLEN];
        assert!(filter.accepts(&header, 1514, false));
        assert!(!filter.accepts(&header, 1515, false));
        assert!(filter.accepts(&header, 65_000, true));
        header[12..].copy_from_slice(&[0x81, 0]);
        assert!(filter.accepts(&header, 1518, false));
        assert!(!filter.accepts(&header, 1519, false));
    }
}
