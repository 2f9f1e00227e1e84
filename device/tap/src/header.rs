// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The header before each frame, and what it means.

use vnet_backend::{Checksum, Gso, GsoKind, Meta};
use vnet_contract::hdr::{
    NetHdr, F_DATA_VALID, F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
};

const ETHERNET_LEN: usize = 14;

/// Shortest TCP header.
const TCP_LEN: usize = 20;
/// Where in it the length is, in its upper half, in units of 4 bytes.
const TCP_DATA_OFFSET: usize = 12;
const UDP_LEN: usize = 8;

/// The meaning of the header of a frame of `len` bytes that the host sent; `byte` gives those of
/// the frame. `None`: it contradicts itself or the frame.
pub(crate) fn parse(
    header: &NetHdr,
    len: usize,
    byte: impl Fn(usize) -> Option<u8>,
) -> Option<Meta> {
    let checksum = if header.flags & F_NEEDS_CSUM != 0 {
        let start = usize::from(header.csum_start);
        if start < ETHERNET_LEN || start + usize::from(header.csum_offset) + 2 > len {
            return None;
        }
        Checksum::Partial {
            start: header.csum_start,
            offset: header.csum_offset,
        }
    } else if header.flags & F_DATA_VALID != 0 {
        Checksum::Valid
    } else {
        Checksum::Unverified
    };
    let kind = match header.gso_type & !GSO_ECN {
        GSO_NONE => {
            return Some(Meta {
                checksum,
                gso: None,
            })
        }
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return None,
    };
    // The host's `hdr_len` tells how much of the frame lies in one piece, which is more than the
    // headers if the frame was forwarded.
    let Checksum::Partial { start, .. } = checksum else {
        return None;
    };
    let transport = match kind {
        GsoKind::Udp => UDP_LEN,
        _ => usize::from(byte(usize::from(start) + TCP_DATA_OFFSET)? >> 4) * 4,
    };
    let shortest = if kind == GsoKind::Udp {
        UDP_LEN
    } else {
        TCP_LEN
    };
    let headers = usize::from(start) + transport;
    if header.gso_size == 0 || transport < shortest || headers > len {
        return None;
    }
    Some(Meta {
        checksum,
        gso: Some(Gso {
            kind,
            ecn: header.gso_type & GSO_ECN != 0,
            size: header.gso_size,
            hdr_len: u16::try_from(headers).ok()?,
        }),
    })
}

/// The header of a frame to the host.
pub(crate) fn build(meta: &Meta) -> NetHdr {
    let mut header = NetHdr::default();
    match meta.checksum {
        Checksum::Unverified => {}
        Checksum::Valid => header.flags = F_DATA_VALID,
        Checksum::Partial { start, offset } => {
            header.flags = F_NEEDS_CSUM;
            header.csum_start = start;
            header.csum_offset = offset;
        }
    }
    if let Some(gso) = meta.gso {
        let kind = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        header.gso_type = kind | if gso.ecn { GSO_ECN } else { 0 };
        header.gso_size = gso.size;
        header.hdr_len = gso.hdr_len;
    }
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vnet_contract::hdr;

    use super::*;

    fn meta() -> impl Strategy<Value = Meta> {
        let checksum = prop_oneof![
            Just(Checksum::Unverified),
            Just(Checksum::Valid),
            (14u16..100, 0u16..20).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        ];
        let kind = prop_oneof![
            Just(GsoKind::TcpV4),
            Just(GsoKind::TcpV6),
            Just(GsoKind::Udp)
        ];
        let gso = (kind, any::<bool>(), 1..=u16::MAX, 5u16..16);
        (checksum, prop::option::of(gso)).prop_map(|(checksum, gso)| Meta {
            checksum,
            // Every segment has a checksum.
            gso: match (checksum, gso) {
                (Checksum::Partial { start, .. }, Some((kind, ecn, size, words))) => {
                    let transport = match kind {
                        GsoKind::Udp => 8,
                        _ => words * 4,
                    };
                    let hdr_len = start + transport;
                    Some(Gso {
                        kind,
                        ecn,
                        size,
                        hdr_len,
                    })
                }
                _ => None,
            },
        })
    }

    proptest! {
        #[test]
        fn metadata_survives_the_header(meta in meta(), lie in any::<u16>()) {
            let mut header = build(&meta);
            // What the host says is not what counts.
            header.hdr_len = header.hdr_len.wrapping_add(lie);
            let byte = |at: usize| match (meta.checksum, meta.gso) {
                (Checksum::Partial { start, .. }, Some(gso)) if at == usize::from(start) + 12 => {
                    Some(((gso.hdr_len - start) as u8) << 2 | 3)
                }
                _ => None,
            };
            prop_assert_eq!(parse(&header, 200, byte), Some(meta));
        }

        #[test]
        fn what_is_accepted_lies_within_the_frame(
            bytes: [u8; hdr::SIZE],
            small: bool,
            len in 14usize..2000,
            words in any::<u8>(),
        ) {
            let mut header = NetHdr::from_bytes(&bytes);
            if small {
                header.csum_start %= 64;
                header.csum_offset %= 64;
                header.hdr_len %= 128;
                header.gso_type %= 8;
            }
            let Some(meta) = parse(&header, len, |at| (at < len).then_some(words)) else {
                return Ok(());
            };
            if let Checksum::Partial { start, offset } = meta.checksum {
                prop_assert!(start >= 14);
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
            if let Some(gso) = meta.gso {
                prop_assert!(gso.size > 0);
                prop_assert!((14..=len).contains(&usize::from(gso.hdr_len)));
            }
        }
    }
}
