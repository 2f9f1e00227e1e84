// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the driver programs before it enables a queue.

/// The registers of a queue at the moment it is enabled. Nothing in it has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingConfig {
    /// `Q_SIZE`.
    pub size: u32,
    /// Bus address of the descriptor table.
    pub desc: u64,
    /// Bus address of the avail ring.
    pub avail: u64,
    /// Bus address of the used ring.
    pub used: u64,
    /// Next avail entry to fetch.
    pub index_avail: u16,
    /// Next used entry to write.
    pub index_used: u16,
    /// The features that were negotiated, as far as they are in force for this queue.
    pub features: u64,
}
