// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames made by another implementation's rules: fields and checksums are smoltcp's.

use proptest::prelude::*;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber, UdpPacket,
};
use vnet_backend::{Checksum, Gso, GsoKind, Meta};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const CWR: u8 = 0x80;

/// All that the segments of a frame have in common.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) tags: usize,
    pub(crate) v6: bool,
    /// IPv6: kinds and lengths of extension headers, in units of 8 bytes beyond the first.
    pub(crate) extensions: Vec<(u8, u8)>,
    /// IPv4: bytes of options.
    pub(crate) options: usize,
    pub(crate) tcp: bool,
    /// TCP: bytes of options.
    pub(crate) tcp_options: usize,
    /// The address that the transport header's checksum counts, which with a routing header is not
    /// the one in the IPv6 header.
    pub(crate) final_address: u8,
}

/// What differs from segment to segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) ident: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn flow() -> impl Strategy<Value = Flow> {
    let extension = (prop_oneof![Just(0u8), Just(43), Just(60)], 0..3u8);
    (
        0..3usize,
        any::<bool>(),
        prop::collection::vec(extension, 0..4),
        0..11usize,
        any::<bool>(),
        0..11usize,
        any::<u8>(),
    )
        .prop_map(
            |(tags, v6, extensions, options, tcp, tcp_options, final_address)| Flow {
                tags,
                v6,
                extensions,
                options: options * 4,
                tcp,
                tcp_options: tcp_options * 4,
                final_address,
            },
        )
}

impl Flow {
    fn extensions_len(&self) -> usize {
        let lengths = self.extensions.iter().map(|&(_, n)| 8 + usize::from(n) * 8);
        lengths.sum()
    }

    /// Offset of the network header.
    pub(crate) fn network(&self) -> usize {
        14 + 4 * self.tags
    }

    /// Offset of the transport header.
    pub(crate) fn transport(&self) -> usize {
        self.network()
            + match self.v6 {
                true => 40 + self.extensions_len(),
                false => 20 + self.options,
            }
    }

    /// Length of all headers.
    pub(crate) fn headers(&self) -> usize {
        self.transport()
            + match self.tcp {
                true => 20 + self.tcp_options,
                false => 8,
            }
    }

    fn checksum_offset(&self) -> usize {
        if self.tcp {
            16
        } else {
            6
        }
    }

    fn addresses(&self) -> (IpAddress, IpAddress) {
        let last = self.final_address;
        match self.v6 {
            true => (
                IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0x1234, 0xfff1),
                IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0x4321, last.into()),
            ),
            false => (
                IpAddress::v4(192, 0, 2, 255),
                IpAddress::v4(198, 51, 100, last),
            ),
        }
    }

    fn protocol(&self) -> IpProtocol {
        match self.tcp {
            true => IpProtocol::Tcp,
            false => IpProtocol::Udp,
        }
    }

    /// A frame that is complete in every byte.
    pub(crate) fn frame(&self, piece: Piece<'_>) -> Vec<u8> {
        let mut frame = vec![0; self.headers()];
        frame.extend_from_slice(piece.payload);
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        for tag in 0..self.tags {
            let kind = if tag == 0 && self.tags == 2 {
                [0x88, 0xa8]
            } else {
                [0x81, 0x00]
            };
            let at = 12 + 4 * tag;
            frame[at..at + 2].copy_from_slice(&kind);
            frame[at + 2..at + 4].copy_from_slice(&[0x20, 7 + tag as u8]);
        }
        let (network, transport) = (self.network(), self.transport());
        let ethertype = if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        frame[network - 2..network].copy_from_slice(&ethertype);
        let (packet, segment) = frame[network..].split_at_mut(transport - network);
        self.network_header(packet, segment.len(), piece.ident);
        self.transport_header(segment, piece);
        frame
    }

    fn network_header(&self, packet: &mut [u8], payload: usize, ident: u16) {
        let (src, dst) = self.addresses();
        let len = packet.len();
        match (src, dst) {
            (IpAddress::Ipv4(src), IpAddress::Ipv4(dst)) => {
                packet[20..].fill(1);
                let mut ip = Ipv4Packet::new_unchecked(packet);
                ip.set_version(4);
                ip.set_header_len(len as u8);
                ip.set_dscp(3);
                ip.set_ecn(2);
                ip.set_total_len((len + payload) as u16);
                ip.set_ident(ident);
                ip.clear_flags();
                ip.set_dont_frag(true);
                ip.set_frag_offset(0);
                ip.set_hop_limit(63);
                ip.set_next_header(self.protocol());
                ip.set_src_addr(src);
                ip.set_dst_addr(dst);
                ip.fill_checksum();
            }
            (IpAddress::Ipv6(src), IpAddress::Ipv6(dst)) => {
                let kinds = self.extensions.iter().map(|&(kind, _)| kind);
                let protocol = u8::from(self.protocol());
                let kinds: Vec<u8> = kinds.chain([protocol]).collect();
                let mut at = 40;
                for (&(_, units), next) in self.extensions.iter().zip(&kinds[1..]) {
                    packet[at..at + 2].copy_from_slice(&[*next, units]);
                    // What stands in an extension is nothing to a segment; not even a number
                    // that would be a protocol.
                    packet[at + 2..at + 8].fill(17);
                    at += 8 + usize::from(units) * 8;
                }
                let mut ip = Ipv6Packet::new_unchecked(packet);
                ip.set_version(6);
                ip.set_traffic_class(9);
                ip.set_flow_label(0xabcde);
                ip.set_payload_len((len - 40 + payload) as u16);
                ip.set_next_header(kinds[0].into());
                ip.set_hop_limit(62);
                ip.set_src_addr(src);
                // Under way to another address first.
                let routed = self.extensions.iter().any(|&(kind, _)| kind == 43);
                ip.set_dst_addr(if routed { src } else { dst });
            }
            _ => unreachable!("both are of one family"),
        }
    }

    fn transport_header(&self, segment: &mut [u8], piece: Piece<'_>) {
        let (src, dst) = self.addresses();
        if self.tcp {
            segment[20..20 + self.tcp_options].fill(1);
            segment[13] = piece.flags;
            let mut tcp = TcpPacket::new_unchecked(&mut *segment);
            tcp.set_src_port(5001);
            tcp.set_dst_port(443);
            tcp.set_seq_number(TcpSeqNumber(piece.sequence as i32));
            tcp.set_ack_number(TcpSeqNumber(77));
            tcp.set_header_len(20 + self.tcp_options as u8);
            tcp.set_window_len(0x1234);
            tcp.fill_checksum(&src, &dst);
            // Setting the length does not touch the flags.
            assert_eq!(segment[13], piece.flags);
        } else {
            let len = segment.len() as u16;
            let mut udp = UdpPacket::new_unchecked(segment);
            udp.set_src_port(53);
            udp.set_dst_port(5353);
            udp.set_len(len);
            udp.fill_checksum(&src, &dst);
        }
    }

    /// Where the checksum stands.
    pub(crate) fn field(&self) -> usize {
        self.transport() + self.checksum_offset()
    }

    pub(crate) fn partial(&self) -> Checksum {
        Checksum::Partial {
            start: self.transport() as u16,
            offset: self.checksum_offset() as u16,
        }
    }

    /// Puts the sum of the pseudo header where the checksum stands.
    pub(crate) fn unfinish(&self, frame: &mut [u8]) {
        let (src, dst) = self.addresses();
        let mut sum =
            u64::from(u8::from(self.protocol())) + (frame.len() - self.transport()) as u64;
        for address in [src, dst] {
            let bytes = match address {
                IpAddress::Ipv4(a) => a.octets().to_vec(),
                IpAddress::Ipv6(a) => a.octets().to_vec(),
            };
            for word in bytes.chunks(2) {
                sum += u64::from(word[0]) << 8 | u64::from(word[1]);
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let field = self.field();
        frame[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    }

    /// A large frame with its metadata.
    pub(crate) fn large(&self, piece: Piece<'_>, size: u16, ecn: bool) -> (Vec<u8>, Meta) {
        let mut frame = self.frame(piece);
        self.unfinish(&mut frame);
        let kind = match (self.tcp, self.v6) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::Udp,
        };
        let gso = Gso {
            kind,
            ecn: ecn && self.tcp,
            size,
            hdr_len: self.headers() as u16,
        };
        let meta = Meta {
            checksum: self.partial(),
            gso: Some(gso),
        };
        (frame, meta)
    }
}
