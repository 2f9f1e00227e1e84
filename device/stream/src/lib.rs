// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a peer behind a unix stream socket, such as passt or QEMU's `-netdev stream`.
//!
//! A frame on the socket is its length as a big-endian 32-bit number, and then its bytes. That is
//! all: no negotiation, and no offload metadata. So the card segments and finishes checksums in
//! software before a frame gets here.
//!
//! [`Stream`] connects to the peer, or waits for it to connect. While there is none the carrier is
//! down, and frames are lost. The link is looked at twice a second by the card's monitor, and that
//! is also when a peer that was lost is dialled again, at growing intervals, and when one that has
//! connected is accepted: there is no thread for it, and nothing of it is the worker's. What a peer
//! that is gone has sent is read first, if the driver takes it within a second. What is lost with the
//! connection is counted, but for a frame of which the end never came.
//!
//! Bytes are read and written in large pieces, many frames at once. A peer that does not read fills
//! the socket, and then the guest's frames wait; but not for long ([`STALL`]), since a guest takes a
//! card that never sends for a broken one. A peer that names a length that no frame has cannot be
//! understood any more, and is disconnected.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod connection;
mod decoder;
mod dialer;
mod outgoing;
mod port;
mod stream;

pub use decoder::{Decoder, TooLong};
pub use port::STALL;
pub use stream::Stream;

/// Length of the number before each frame.
const PREFIX: usize = 4;
/// Longest frame with that.
const MAX_RECORD: usize = PREFIX + vnet_backend::MAX_FRAME;
