// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a large frame is cut, and the header of each piece.

use std::ops::Range;

use vnet_backend::{checksum, Checksum, Gso, Meta};

use crate::layout::{find, Layout, Network, Transport, IPV6_LEN};

/// Most segments that are made of a frame, which is refused if it asks for more, and in one call. TCP cuts the longest
/// frame into fewer, as its segments have at least 48 bytes.
pub const MAX_SEGMENTS: usize = 2048;
/// Longest headers of a frame that can be cut: what is common, and some IPv6 extensions.
pub(crate) const MAX_HEADERS: usize = 256;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A large frame that can be cut.
pub(crate) struct Plan<'a> {
    /// The headers of the large frame.
    headers: &'a [u8],
    layout: Layout,
    gso: Gso,
    /// Bytes of the whole payload.
    payload: usize,
    /// The pseudo header's sum without a length.
    pseudo: u16,
}

impl<'a> Plan<'a> {
    /// Plans for a frame of `len` bytes that begins with `start`. `None`: the frame cannot be cut
    /// as its metadata asks.
    pub(crate) fn new(start: &'a [u8], len: usize, meta: &Meta) -> Option<Self> {
        let gso = meta.gso?;
        let layout = find(start, &gso)?;
        // Each segment has a checksum where the whole has one.
        let whole = Checksum::Partial {
            start: u16::try_from(layout.transport_at).ok()?,
            offset: layout.transport.checksum(),
        };
        if meta.checksum != whole {
            return None;
        }
        let headers = start.get(..layout.payload_at)?;
        let field = layout.transport_at + usize::from(layout.transport.checksum());
        let field = u16::from_be_bytes(*headers.get(field..)?.first_chunk()?);
        let whole = u16::try_from(len.checked_sub(layout.transport_at)?).ok()?;
        let plan = Self {
            headers,
            layout,
            gso,
            payload: len - layout.payload_at,
            pseudo: checksum::add(field, !whole),
        };
        // The first segment is the longest.
        let packet = layout.payload_at - layout.network_at + plan.range(0).len();
        (plan.segments() <= MAX_SEGMENTS && u16::try_from(packet).is_ok()).then_some(plan)
    }

    /// Length of the headers, which is the same in each segment.
    pub(crate) fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// Number of segments, at least one.
    pub(crate) fn segments(&self) -> usize {
        self.payload.div_ceil(self.gso.size.into()).max(1)
    }

    /// Where in the payload the segment at `index` begins and ends.
    pub(crate) fn range(&self, index: usize) -> Range<usize> {
        let size = usize::from(self.gso.size);
        let start = (index * size).min(self.payload);
        start..(start + size).min(self.payload)
    }

    /// Where the checksum of a segment begins, and where it is.
    pub(crate) fn checksum(&self) -> (usize, usize) {
        let start = self.layout.transport_at;
        (start, start + usize::from(self.layout.transport.checksum()))
    }

    /// Writes the headers of the segment at `index`, with the sum of the pseudo header for a
    /// checksum. `out` has the length of the headers.
    pub(crate) fn write_header(&self, index: usize, out: &mut [u8]) {
        out.copy_from_slice(self.headers);
        let Layout {
            network,
            network_at,
            transport,
            transport_at,
            payload_at,
        } = self.layout;
        let range = self.range(index);
        // All of these lengths are less than that of the packet, which was checked to fit.
        let be16 = |len: usize| (len as u16).to_be_bytes();

        let ip = &mut out[network_at..transport_at];
        let packet = payload_at - network_at + range.len();
        match network {
            Network::V4 => {
                let ident = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index as u16);
                ip[2..4].copy_from_slice(&be16(packet));
                ip[4..6].copy_from_slice(&ident.to_be_bytes());
                ip[10..12].fill(0);
                let sum = !checksum::sum(ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Network::V6 => ip[4..6].copy_from_slice(&be16(packet - IPV6_LEN)),
        }

        let header = &mut out[transport_at..];
        let len = be16(payload_at - transport_at + range.len());
        match transport {
            Transport::Tcp => {
                let first = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                // The payload is less than 64 KiB.
                let sequence = first.wrapping_add(range.start as u32);
                header[4..8].copy_from_slice(&sequence.to_be_bytes());
                if index + 1 < self.segments() {
                    header[13] &= !(FIN | PSH);
                }
                if index > 0 && self.gso.ecn {
                    header[13] &= !CWR;
                }
            }
            Transport::Udp => header[4..6].copy_from_slice(&len),
        }
        let pseudo = checksum::add(self.pseudo, u16::from_be_bytes(len));
        let at = usize::from(transport.checksum());
        header[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    }
}
