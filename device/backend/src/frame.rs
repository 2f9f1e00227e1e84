// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A frame and its offload metadata.

use vm_memory::VolatileSlice;

/// State of the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Complete in the frame, not verified.
    #[default]
    Unverified,
    /// Complete in the frame and verified, or known to be right.
    Valid,
    /// The field holds the sum of the pseudo header; whoever needs the checksum sums from
    /// `start` to the end of the frame and stores the result at `start + offset`.
    Partial {
        /// Offset in the frame where summing starts.
        start: u16,
        /// Offset of the field from `start`.
        offset: u16,
    },
}

/// Protocol to segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP: one datagram per segment.
    Udp,
}

/// A frame that stands for several, to be cut into segments of `size` payload bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Protocol.
    pub kind: GsoKind,
    /// CWR is set, and belongs on the first segment only.
    pub ecn: bool,
    /// Payload bytes per segment; not zero.
    pub size: u16,
    /// Length of the headers that every segment repeats.
    pub hdr_len: u16,
}

/// Offload metadata of one frame: the checked meaning of a `virtio_net_hdr_v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Transport checksum.
    pub checksum: Checksum,
    /// Segmentation.
    pub gso: Option<Gso>,
}

impl Meta {
    /// The same for a frame whose head, with all that is at its start up to the payload of Ethernet,
    /// had `before` bytes and has `after` now: with a VLAN tag more, or less.
    pub fn moved(self, before: usize, after: usize) -> Self {
        // Places in the first 64 KiB. One that is not there any more is refused by whoever looks.
        let shift = |at: u16| (usize::from(at) + after).saturating_sub(before) as u16;
        Self {
            checksum: match self.checksum {
                Checksum::Partial { start, offset } => Checksum::Partial {
                    start: shift(start),
                    offset,
                },
                other => other,
            },
            gso: self.gso.map(|gso| Gso {
                hdr_len: shift(gso.hdr_len),
                ..gso
            }),
        }
    }
}

/// One frame to transmit, in the guest's own buffers.
///
/// The guest may change the bytes at any time: read each byte once, or copy before parsing.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Offload metadata; `Partial` offsets lie within the frame.
    pub meta: Meta,
    /// Sum of the lengths of `parts`, `14..=MAX_FRAME`.
    pub len: usize,
    /// The buffers in order; none is empty.
    pub parts: &'a [VolatileSlice<'a>],
}

impl Frame<'_> {
    /// Copies the frame to the start of `out`, as far as it fits, and returns the number of bytes.
    #[inline]
    pub fn read(&self, out: &mut [u8]) -> usize {
        // Where all of it is in the first part, as the start of a frame tends to be.
        match self.parts.first() {
            Some(part) if part.len() >= out.len() => {
                part.copy_to(out);
                out.len()
            }
            _ => self.read_at(0, out),
        }
    }

    /// The same for the bytes from `offset` on.
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for part in self.parts {
            if done == out.len() {
                break;
            }
            if skip >= part.len() {
                skip -= part.len();
                continue;
            }
            let n = (part.len() - skip).min(out.len() - done);
            if let Ok(rest) = part.offset(skip) {
                rest.copy_to(&mut out[done..done + n]);
            }
            done += n;
            skip = 0;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stretch_of_a_frame_is_read_across_its_parts(
            lens in prop::collection::vec(1usize..20, 1..6),
            offset in 0usize..100,
            want in 0usize..100,
        ) {
            let len: usize = lens.iter().sum();
            let whole: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut memory = whole.clone();
            let mut rest = &mut memory[..];
            let mut parts = Vec::new();
            for len in lens {
                let (part, behind) = rest.split_at_mut(len);
                parts.push(VolatileSlice::from(part));
                rest = behind;
            }
            let frame = Frame { meta: Meta::default(), len, parts: &parts };
            let mut out = vec![0xff; want];
            let done = frame.read_at(offset, &mut out);
            let expected = &whole[offset.min(len)..(offset + want).min(len).max(offset.min(len))];
            prop_assert_eq!(&out[..done], expected);
            prop_assert!(out[done..].iter().all(|b| *b == 0xff));
        }
    }
}
