// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backends that need nothing: [`Loopback`] gives every frame back on the queue that sent it,
//! [`Null`] takes frames and never has one.
//!
//! Null takes frames with any offload metadata. Loopback takes those that the driver could receive
//! again: a large frame that it sends but does not accept is cut before it gets here.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod loopback;
mod null;

pub use loopback::Loopback;
pub use null::Null;

/// Most queues that either backend opens.
const MAX_QUEUES: u16 = 64;
