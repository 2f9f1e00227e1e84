// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The per-packet header: `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6; `linux/virtio_net.h`).
//!
//! Features that tell more about a frame append to it, in the order of their bits; [`size`] says
//! how long the header then is. It has the same size on every queue of a card.

use super::features;

constants! {
    /// Sizes of the header and of what features append to it.
    SIZES;
    /// Size of the header in bytes.
    SIZE: usize = 12;
    /// Bytes that `HASH_REPORT` appends, which makes `struct virtio_net_hdr_v1_hash`.
    HASH_SIZE: usize = 8;
    /// Bytes that `VLAN_OFFLOAD` appends.
    VLAN_SIZE: usize = 4;
    /// Bytes that `TIMESTAMP` appends.
    STAMP_SIZE: usize = 8;
}

constants! {
    /// Values of the `flags` member, one bit each.
    FLAGS;
    /// Flag: `csum_start` and `csum_offset` say where to complete the checksum.
    F_NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was verified.
    F_DATA_VALID: u8 = 2;
    /// Flag, receive with `Q_SPLIT_ENABLE`: the first descriptor of the chain holds the `hdr_len`
    /// bytes of protocol headers and nothing else of the frame.
    F_SPLIT: u8 = 0x20;
    /// Flag, with `VLAN_OFFLOAD`: `vlan_tci` and `vlan_proto` hold a tag that is not in the frame.
    F_VLAN: u8 = 0x40;
    /// Flag, with `TIMESTAMP`: receive: `stamp` is valid; transmit: the chain ends in a buffer of
    /// [`STAMP_SIZE`] bytes that the card writes.
    F_STAMP: u8 = 0x80;
}

constants! {
    /// Values of the `gso_type` member.
    GSO_TYPES;
    /// No segmentation.
    GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    GSO_TCPV6: u8 = 4;
    /// UDP segmentation (not fragmentation).
    GSO_UDP_L4: u8 = 5;
    /// Added to a TCP type: CWR is set on the first segment.
    GSO_ECN: u8 = 0x80;
}

constants! {
    /// Values of the `hash_report` member (virtio 1.2, 5.1.6.4.3).
    HASH_REPORTS;
    /// No hash was computed.
    HASH_NONE: u16 = 0;
    /// Over IPv4 addresses.
    HASH_IPV4: u16 = 1;
    /// Over IPv4 addresses and TCP ports.
    HASH_TCPV4: u16 = 2;
    /// Over IPv4 addresses and UDP ports.
    HASH_UDPV4: u16 = 3;
    /// Over IPv6 addresses.
    HASH_IPV6: u16 = 4;
    /// Over IPv6 addresses and TCP ports.
    HASH_TCPV6: u16 = 5;
    /// Over IPv6 addresses and UDP ports.
    HASH_UDPV6: u16 = 6;
}

members! {
    /// Members of the header that are always there: see [`NetHdr`].
    MEMBERS;
    flags @ 0, 8;
    gso_type @ 1, 8;
    hdr_len @ 2, 16;
    gso_size @ 4, 16;
    csum_start @ 6, 16;
    csum_offset @ 8, 16;
    num_buffers @ 10, 16;
}

members! {
    /// What `HASH_REPORT` appends; offsets from the end of what stands before.
    HASH_MEMBERS;
    hash_value @ 0, 32;
    hash_report @ 4, 16;
    hash_reserved @ 6, 16;
}

members! {
    /// What `VLAN_OFFLOAD` appends; offsets from the end of what stands before. `vlan_proto` is
    /// the EtherType of the tag (0x8100 or 0x88a8) as a number.
    VLAN_MEMBERS;
    vlan_tci @ 0, 16;
    vlan_proto @ 2, 16;
}

members! {
    /// What `TIMESTAMP` appends; offsets from the end of what stands before. `stamp` is the card
    /// clock in nanoseconds.
    STAMP_MEMBERS;
    stamp @ 0, 64;
}

/// Size of the header in bytes once these features are accepted.
#[inline]
pub const fn size(accepted: u64) -> usize {
    let mut size = SIZE;
    if accepted & features::HASH_REPORT != 0 {
        size += HASH_SIZE;
    }
    if accepted & features::VLAN_OFFLOAD != 0 {
        size += VLAN_SIZE;
    }
    if accepted & features::TIMESTAMP != 0 {
        size += STAMP_SIZE;
    }
    size
}

/// The header, in CPU byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHdr {
    /// `F_*`.
    pub flags: u8,
    /// `GSO_*`.
    pub gso_type: u8,
    /// Length of the headers that every segment repeats; with `F_SPLIT`, bytes of protocol headers
    /// in the first descriptor.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Offset in the frame where checksumming starts.
    pub csum_start: u16,
    /// Offset from `csum_start` where the checksum is stored.
    pub csum_offset: u16,
    /// Receive with `MRG_RXBUF`: number of buffers that the frame fills; else 1. Transmit: 0.
    pub num_buffers: u16,
}

impl NetHdr {
    /// The header as it stands in memory.
    #[inline]
    pub const fn to_bytes(self) -> [u8; SIZE] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// Reads back what [`Self::to_bytes`] gives. Any bytes are accepted; the values are unchecked.
    #[inline]
    pub const fn from_bytes(b: &[u8; SIZE]) -> Self {
        // In the two words that the bytes were copied in. Loads that straddle these would wait until
        // the copies are in the cache, for each frame.
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11] = *b;
        let first = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        let second = u32::from_le_bytes([b8, b9, b10, b11]);
        Self {
            flags: first as u8,
            gso_type: (first >> 8) as u8,
            hdr_len: (first >> 16) as u16,
            gso_size: (first >> 32) as u16,
            csum_start: (first >> 48) as u16,
            csum_offset: second as u16,
            num_buffers: (second >> 16) as u16,
        }
    }
}

/// What `HASH_REPORT` appends: the hash of a received frame, in CPU byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash {
    /// The hash; meaningless with `HASH_NONE`.
    pub value: u32,
    /// `HASH_*`: what it is over.
    pub report: u16,
}

impl FlowHash {
    /// The hash as it stands in memory.
    #[inline]
    pub const fn to_bytes(self) -> [u8; HASH_SIZE] {
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        let [r0, r1] = self.report.to_le_bytes();
        [v0, v1, v2, v3, r0, r1, 0, 0]
    }

    /// Reads back what [`Self::to_bytes`] gives. Any bytes are accepted; the values are unchecked.
    #[inline]
    pub const fn from_bytes(b: &[u8; HASH_SIZE]) -> Self {
        Self {
            value: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            report: u16::from_le_bytes([b[4], b[5]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_listed_layout() {
        let h = NetHdr {
            flags: 0x12,
            gso_type: 0x34,
            hdr_len: 0x1122,
            gso_size: 0x3344,
            csum_start: 0x5566,
            csum_offset: 0x7788,
            num_buffers: 0x99aa,
        };
        let values = [
            h.flags.into(),
            h.gso_type.into(),
            h.hdr_len,
            h.gso_size,
            h.csum_start,
            h.csum_offset,
            h.num_buffers,
        ];
        let bytes = h.to_bytes();
        assert_eq!(MEMBERS.len(), values.len());
        for (m, value) in MEMBERS.iter().zip(values) {
            let le = value.to_le_bytes();
            let n = m.width as usize / 8;
            assert_eq!(bytes[m.offset..m.offset + n], le[..n], "{}", m.name);
        }
    }

    #[test]
    fn members_fill_the_sizes() {
        for (list, size) in [
            (MEMBERS, SIZE),
            (HASH_MEMBERS, HASH_SIZE),
            (VLAN_MEMBERS, VLAN_SIZE),
            (STAMP_MEMBERS, STAMP_SIZE),
        ] {
            let mut end = 0;
            for m in list {
                assert_eq!(m.offset, end, "{}", m.name);
                end += m.width as usize / 8;
            }
            assert_eq!(end, size);
        }
    }

    #[test]
    fn a_hash_has_the_listed_layout() {
        let hash = FlowHash {
            value: 0x1122_3344,
            report: 0x5566,
        };
        let bytes = hash.to_bytes();
        let values = [hash.value, hash.report.into(), 0];
        assert_eq!(HASH_MEMBERS.len(), values.len());
        for (m, value) in HASH_MEMBERS.iter().zip(values) {
            let n = m.width as usize / 8;
            let le = value.to_le_bytes();
            assert_eq!(bytes[m.offset..m.offset + n], le[..n], "{}", m.name);
        }
        assert_eq!(FlowHash::from_bytes(&bytes), hash);
    }

    #[test]
    fn features_make_the_header_grow() {
        use features::{HASH_REPORT, TIMESTAMP, VLAN_OFFLOAD};
        for (accepted, bytes) in [
            (0, 12),
            (HASH_REPORT, 20),
            (VLAN_OFFLOAD, 16),
            (HASH_REPORT | TIMESTAMP, 28),
            (u64::MAX, 32),
        ] {
            assert_eq!(size(accepted), bytes, "{accepted:#x}");
        }
    }

    #[test]
    fn bytes_round_trip_in_the_order_of_the_kernel_header() {
        let h = NetHdr {
            flags: 1,
            gso_type: 4,
            hdr_len: 0x0203,
            gso_size: 0x0405,
            csum_start: 0x0607,
            csum_offset: 0x0809,
            num_buffers: 0x0a0b,
        };
        assert_eq!(h.to_bytes(), [1, 4, 3, 2, 5, 4, 7, 6, 9, 8, 0xb, 0xa]);
        assert_eq!(NetHdr::from_bytes(&h.to_bytes()), h);
    }
}
