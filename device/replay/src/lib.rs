// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: the frames of a capture file, as traffic for the card.
//!
//! The file, pcap or pcapng, is read and checked as a whole at the start ([`Capture`]), so that
//! nothing on the path waits for a disk, and what is wrong with it is said before a card is there.
//! [`Replay`] delivers its frames with the pauses that they had, at a rate, or as fast as the driver
//! takes them; once, or again and again. It begins when the driver begins to receive, and begins anew
//! when the card is reset. A driver that is slow makes it late, and loses nothing by that. What the
//! card sends is lost.
//!
//! Files are parsed by the crate `pcap-parser`, which knows both formats and is fuzzed.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod capture;
mod replay;

pub use capture::{BadCapture, Capture, MAX_BYTES};
pub use replay::{Config, Pace, Replay};
