// SPDX-License-Identifier: GPL-2.0

//! Offloads.

use crate::bindings as b;

/// Offloads that a device offers; all can be switched off by the user.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/offloads.rs
/// if !wanted.contains(Features::RX_GRO) {
///     used &= !LARGE;
/// }
/// // The others need it.
/// if !wanted.contains(Features::RX_CHECKSUM) {
///     used = 0;
/// }
/// ```
#[derive(Clone, Copy, Default)]
pub struct Features(u64);

impl Features {
    /// Frames may be scattered over several buffers.
    pub const SCATTER_GATHER: Self = Self(b::ND_F_SG);
    /// The device completes any partial checksum of a transmitted frame.
    pub const TX_CHECKSUM: Self = Self(b::ND_F_HW_CSUM);
    /// The device cuts TCP over IPv4 into segments.
    pub const TSO: Self = Self(b::ND_F_TSO);
    /// The device cuts TCP over IPv6 into segments.
    pub const TSO6: Self = Self(b::ND_F_TSO6);
    /// It does so with frames that have CWR set.
    pub const TSO_ECN: Self = Self(b::ND_F_TSO_ECN);
    /// The device cuts UDP into datagrams.
    pub const USO: Self = Self(b::ND_F_GSO_UDP_L4);
    /// The device tells of the checksums of received frames.
    pub const RX_CHECKSUM: Self = Self(b::ND_F_RXCSUM);
    /// Received frames may stand for many segments each, and say so.
    pub const RX_GRO: Self = Self(b::ND_F_GRO_HW);
    /// Received frames come with a hash of their flow.
    pub const RX_HASH: Self = Self(b::ND_F_RXHASH);

    /// The features of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The features that are not among the others.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if all of the others are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn as_raw(self) -> u64 {
        self.0
    }
}
