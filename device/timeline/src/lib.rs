// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A capture as a trace that Perfetto opens: docs/capture.md.
//!
//! The card works in batches, so the trace is one of batches: each is a slice on the track of its queue, with
//! a slice for each stage in it, and one on the track of the thread that served it. An arrow leads from the
//! doorbell through the thread to the interrupt.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod batch;
mod read;
mod trace;

use std::io::{self, Read, Write};

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("not a capture in pcapng, or damaged after {frames} frames")]
    Damaged {
        /// Frames that were good.
        frames: usize,
    },
    /// Nothing in it was captured from a card.
    #[error("no frame in it says what became of it in a card: was it written by vnetctl capture?")]
    Foreign,
    /// It cannot be written.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// What a trace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Frames of the capture.
    pub frames: usize,
    /// Batches that they came in.
    pub batches: usize,
}

/// Reads a capture and writes the trace, in the JSON format of Chrome's trace events.
pub fn export(capture: impl Read + Send, out: impl Write) -> Result<Summary, Error> {
    let capture = read::read(capture)?;
    if capture.frames.is_empty() {
        return Err(Error::Foreign);
    }
    let frames = capture.frames.len();
    let batches = batch::batches(capture.frames);
    trace::write(&batches, &capture.events, out)?;
    Ok(Summary {
        frames,
        batches: batches.len(),
    })
}
