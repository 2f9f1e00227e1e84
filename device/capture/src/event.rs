// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is put between the frames: what went wrong, and why.

use std::fmt;

use crate::queue_name;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The driver broke a rule: docs/rules.md.
    Finding,
    /// The card misbehaved as it was told to: docs/faults.md.
    Fault,
    /// A queue stopped with an error: data sheet, 17.
    Stopped,
}

/// Something that happened at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// The queue that it is about, unless it is about the card.
    pub queue: Option<u16>,
    /// What.
    pub what: What,
    /// In words.
    pub text: String,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Finding => "finding",
            What::Fault => "fault",
            What::Stopped => "stopped",
        })
    }
}

/// As it stands in the file.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vnet event={}", self.what)?;
        if let Some(queue) = self.queue {
            write!(f, " queue={}", queue_name(queue))?;
        }
        write!(f, " {}", self.text)
    }
}
