// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The per-packet header: `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6; `linux/virtio_net.h`).

/// Size of the header in bytes.
pub const SIZE: usize = 12;

/// Flag: `csum_start` and `csum_offset` say where to complete the checksum.
pub const F_NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was verified.
pub const F_DATA_VALID: u8 = 2;

/// No segmentation.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP segmentation (not fragmentation).
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type: CWR is set on the first segment.
pub const GSO_ECN: u8 = 0x80;

/// The header, in CPU byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHdr {
    /// `F_*`.
    pub flags: u8,
    /// `GSO_*`.
    pub gso_type: u8,
    /// Length of the headers that every segment repeats; a hint.
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
    pub const fn from_bytes(b: &[u8; SIZE]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
            num_buffers: u16::from_le_bytes([b[10], b[11]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
