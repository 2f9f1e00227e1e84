// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The per-packet header: from the wire to checked metadata, and back.

use vnet_backend::{Checksum, Gso, GsoKind, Meta};
use vnet_contract::features::{
    RX_CSUM, RX_ECN, RX_TSO4, RX_TSO6, RX_USO, TX_CSUM, TX_ECN, TX_TSO4, TX_TSO6, TX_USO,
};
use vnet_contract::hdr::{
    NetHdr, F_DATA_VALID, F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
};

/// Length of an Ethernet header.
pub(crate) const ETH_HLEN: usize = 14;

// Backends know nothing of the contract, but have to mean the same frames.
const _: () = assert!(
    ETH_HLEN == vnet_contract::queue::MIN_FRAME
        && vnet_backend::MAX_FRAME == vnet_contract::queue::MAX_FRAME
);

/// Meaning of the header of a transmitted frame of `len` bytes; `None` if it contradicts itself,
/// the frame or the features. Fields that the flags and the type give no meaning are ignored.
#[inline]
pub(crate) fn parse(hdr: &NetHdr, len: usize, features: u64) -> Option<Meta> {
    if hdr.flags == 0 && hdr.gso_type == GSO_NONE {
        return Some(Meta::default());
    }
    told(hdr, len, features)
}

/// The same for a header that says something.
fn told(hdr: &NetHdr, len: usize, features: u64) -> Option<Meta> {
    if hdr.flags & !F_NEEDS_CSUM != 0 {
        return None;
    }
    let checksum = if hdr.flags & F_NEEDS_CSUM != 0 {
        partial(hdr, len, features)?
    } else {
        Checksum::Unverified
    };
    let gso = match hdr.gso_type {
        GSO_NONE => None,
        _ => Some(segmentation(hdr, len, features)?),
    };
    Some(Meta { checksum, gso })
}

fn partial(hdr: &NetHdr, len: usize, features: u64) -> Option<Checksum> {
    let field = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset);
    let fits = usize::from(hdr.csum_start) >= ETH_HLEN && field + 2 <= len;
    (features & TX_CSUM != 0 && fits).then_some(Checksum::Partial {
        start: hdr.csum_start,
        offset: hdr.csum_offset,
    })
}

fn segmentation(hdr: &NetHdr, len: usize, features: u64) -> Option<Gso> {
    // Type, the feature that allows it, and the least length of the transport header.
    let (kind, feature, transport) = match hdr.gso_type & !GSO_ECN {
        GSO_TCPV4 => (GsoKind::TcpV4, TX_TSO4, 20),
        GSO_TCPV6 => (GsoKind::TcpV6, TX_TSO6, 20),
        GSO_UDP_L4 => (GsoKind::Udp, TX_USO, 8),
        _ => return None,
    };
    let ecn = hdr.gso_type & GSO_ECN != 0;
    let ecn_allowed = features & TX_ECN != 0 && kind != GsoKind::Udp;
    let headers = usize::from(hdr.csum_start) + transport..=len;
    // Every segment gets a checksum of its own, so the frame must say where it goes.
    let good = features & feature != 0
        && (!ecn || ecn_allowed)
        && hdr.flags & F_NEEDS_CSUM != 0
        && hdr.gso_size != 0
        && headers.contains(&usize::from(hdr.hdr_len));
    good.then_some(Gso {
        kind,
        ecn,
        size: hdr.gso_size,
        hdr_len: hdr.hdr_len,
    })
}

/// Header of a received frame, with `num_buffers` left to the caller; `None` if the driver did
/// not accept what the frame needs.
pub(crate) fn build(meta: &Meta, features: u64) -> Option<NetHdr> {
    let mut hdr = NetHdr::default();
    match meta.checksum {
        Checksum::Unverified => {}
        Checksum::Valid if features & RX_CSUM == 0 => {}
        Checksum::Valid => hdr.flags = F_DATA_VALID,
        Checksum::Partial { .. } if features & RX_CSUM == 0 => return None,
        Checksum::Partial { start, offset } => {
            hdr.flags = F_NEEDS_CSUM;
            hdr.csum_start = start;
            hdr.csum_offset = offset;
        }
    }
    if let Some(gso) = meta.gso {
        let (gso_type, feature) = match gso.kind {
            GsoKind::TcpV4 => (GSO_TCPV4, RX_TSO4),
            GsoKind::TcpV6 => (GSO_TCPV6, RX_TSO6),
            GsoKind::Udp => (GSO_UDP_L4, RX_USO),
        };
        let needs = feature | if gso.ecn { RX_ECN } else { 0 };
        if features & needs != needs {
            return None;
        }
        hdr.gso_type = gso_type | if gso.ecn { GSO_ECN } else { 0 };
        hdr.gso_size = gso.size;
        hdr.hdr_len = gso.hdr_len;
    }
    Some(hdr)
}
