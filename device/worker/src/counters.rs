// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Counters of a queue.

/// The counters of one queue, as the `QUEUE_STATS` registers show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames carried.
    pub frames: u64,
    /// Bytes carried, without per-packet headers.
    pub bytes: u64,
    /// Frames dropped.
    pub drops: u64,
    /// Times the queue stopped with an error.
    pub errors: u64,
    /// Doorbells received.
    pub doorbells: u64,
    /// Interrupts raised.
    pub interrupts: u64,
}
