// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Size and result of a batch.

use crate::Fault;

/// How much one batch may do. A frame that is begun is finished, so a batch may go over by one; in
/// descriptors, by a chain.
///
/// Bounds the time for which a batch holds the queue pair, and so for which the message thread
/// may have to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Frames.
    pub frames: usize,
    /// Bytes of frames.
    pub bytes: usize,
    /// Descriptors: a driver may use a descriptor for every byte. What a received frame would
    /// need beyond a whole budget is not walked: the frame is dropped.
    pub descriptors: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            frames: 64,
            bytes: 256 * 1024,
            descriptors: 1024,
        }
    }
}

impl Budget {
    /// True if nothing is left.
    pub(crate) fn is_spent(&self) -> bool {
        self.frames == 0 || self.bytes == 0 || self.descriptors == 0
    }

    /// Takes off what a chain or frame cost.
    pub(crate) fn spend(&mut self, frames: usize, bytes: usize, descriptors: usize) {
        self.frames = self.frames.saturating_sub(frames);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.descriptors = self.descriptors.saturating_sub(descriptors);
    }
}

/// Why a batch ended, and so what the queue waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For nothing: the budget is spent, there may be more to do.
    Nothing,
    /// For the driver: no entries in the avail ring, or too few.
    Driver,
    /// For the backend: it took no more frames, or has none.
    Backend,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Frames carried.
    pub frames: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Frames dropped.
    pub drops: u64,
    /// Received frames that went to another queue. They count there.
    pub handed: u64,
    /// What the queue waits for.
    pub waits: Waits,
    /// The rule that the driver broke. The queue must not be used any more.
    pub fault: Option<Fault>,
}

impl Outcome {
    pub(crate) fn new(waits: Waits) -> Self {
        Self {
            frames: 0,
            bytes: 0,
            drops: 0,
            handed: 0,
            waits,
            fault: None,
        }
    }
}
