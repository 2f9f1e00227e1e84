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

use crate::batch::Batch;
use crate::read::Event;

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

/// What there is to draw.
#[derive(Debug)]
pub struct Trace {
    batches: Vec<Batch>,
    events: Vec<Event>,
    frames: usize,
}

impl Trace {
    /// Reads a capture.
    pub fn read(capture: impl Read + Send) -> Result<Self, Error> {
        let capture = read::read(capture)?;
        if capture.frames.is_empty() {
            return Err(Error::Foreign);
        }
        Ok(Self {
            frames: capture.frames.len(),
            batches: batch::batches(capture.frames),
            events: capture.events,
        })
    }

    /// Writes the trace, in the JSON format of Chrome's trace events.
    pub fn write(&self, out: impl Write) -> Result<Summary, Error> {
        trace::write(&self.batches, &self.events, out)?;
        Ok(Summary {
            frames: self.frames,
            batches: self.batches.len(),
        })
    }
}

/// Reads a capture and writes the trace.
pub fn export(capture: impl Read + Send, out: impl Write) -> Result<Summary, Error> {
    Trace::read(capture)?.write(out)
}
