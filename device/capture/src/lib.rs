// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames with what became of them in the card, as pcapng; docs/capture.md is the reference.
//!
//! The engine of each queue tells a [`Recorder`] of its batches: when a doorbell rang, when it fetched,
//! lent to the backend, was done, showed the driver and raised the interrupt, and of each frame. The
//! recorder copies what is wanted and hands it to the thread of the [`Capture`], which writes the file.
//!
//! The path never waits for that thread. What lies between them is bounded; a frame for which there is no
//! room is counted, and not copied.
//!
//! The blocks are written here (`pcapng.rs`). They are four, with nothing in them but numbers and lists of
//! options, and are made in a buffer that is used again; a crate for that would have every block
//! allocated, and the one that reads captures for the replay backend, which the tests read these files with,
//! does not write them.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bell;
mod capture;
mod comment;
mod event;
mod parcel;
mod pcapng;
mod recorder;
mod rotate;
mod select;
mod spool;
mod time;
mod watch;
mod writer;

pub use bell::Bell;
pub use capture::{BadCapture, Capture, Config, End, QueueReport, Status};
pub use comment::{Comment, Offset};
pub use event::{Event, What};
pub use parcel::{Chain, Stages};
pub use recorder::Recorder;
pub use rotate::Rotation;
pub use select::{queue_name, BadSelection, NoSuchQueue, Selection};
pub use time::now;
pub use watch::{Onlooker, Seen, Watch};

/// Bytes of a frame that are kept when nothing is said: all, of the longest.
pub const WHOLE: u32 = 262_144;
