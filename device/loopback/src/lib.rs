// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backends that need nothing: [`Loopback`] gives every frame back on the queue that sent it,
//! [`Null`] takes frames and never has one.
//!
//! Null takes frames with any offload metadata. Loopback takes checksum metadata only: a large
//! frame would have to be segmented for a driver that does not receive such.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod loopback;
mod null;

pub use loopback::Loopback;
pub use null::Null;

/// Most queues that either backend opens.
const MAX_QUEUES: u16 = 64;
