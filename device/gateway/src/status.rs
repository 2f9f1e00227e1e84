// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the gateway knows of its own traffic.

use std::sync::Arc;

use crate::host::Tally;
use crate::net::Lan;

/// What it is, and counters since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// The LAN.
    pub(crate) lan: Lan,
    /// Every name and page leads to the gateway.
    pub(crate) captive: bool,
    /// Frames and bytes that the guest sent.
    pub(crate) from_guest: (u64, u64),
    /// Frames and bytes that were sent to the guest.
    pub(crate) to_guest: (u64, u64),
    /// Frames that were too long, malformed or had a wrong checksum.
    pub(crate) refused: u64,
    /// Frames for which there was no room.
    pub(crate) lost: u64,
    /// TCP connections now.
    pub(crate) connections: usize,
    /// The ports that lead to the host, and what came of them.
    pub(crate) forwards: Vec<(u16, Arc<Tally>)>,
}
