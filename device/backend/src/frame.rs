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
    pub fn read(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        for part in self.parts {
            let n = part.len().min(out.len() - done);
            part.copy_to(&mut out[done..done + n]);
            done += n;
            if done == out.len() {
                break;
            }
        }
        done
    }
}
