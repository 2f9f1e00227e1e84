// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The batches that frames came in.

use std::collections::HashMap;

use crate::read::Frame;

/// Frames that the card fetched, and showed to the driver, together.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<Frame>,
}

/// A stage of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Which frame it is about; all, if it is about none.
    pub(crate) frame: Option<usize>,
}

impl Batch {
    /// One of its frames: there is one at least.
    pub(crate) fn first(&self) -> &Frame {
        &self.frames[0]
    }

    /// True if this frame of its queue came with it.
    fn has(&self, frame: &Frame) -> bool {
        (self.first().fetch, self.first().used) == (frame.fetch, frame.used)
    }

    pub(crate) fn from(&self) -> i64 {
        self.first().doorbell.unwrap_or(self.first().fetch)
    }

    pub(crate) fn to(&self) -> i64 {
        self.first().interrupt.unwrap_or(self.first().used)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.len)).sum()
    }

    /// The stages in order: each begins where the one before it ends, or later.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        let first = self.first();
        let mut stages = Vec::new();
        let mut stage = |name, from, to, frame| {
            stages.push(Stage {
                name,
                from,
                to,
                frame,
            });
        };
        if let Some(doorbell) = first.doorbell {
            stage("doorbell", doorbell, first.fetch, None);
        }
        stage("fetch", first.fetch, first.backend, None);
        // Frames that were sent went to the backend in one call; those that were received came one by one.
        let one = self.frames.iter().all(|f| f.done == first.done);
        let last = if one { 1 } else { self.frames.len() };
        let mut done = first.backend;
        for (n, frame) in self.frames[..last].iter().enumerate() {
            let from = frame.backend.max(done);
            done = frame.done.max(from);
            stage("backend", from, done, (!one).then_some(n));
        }
        stage("used", done, first.used, None);
        if let Some(interrupt) = first.interrupt {
            stage("interrupt", first.used, interrupt, None);
        }
        stages
    }
}

/// The batches of a capture, in the order of their starts.
pub(crate) fn batches(frames: Vec<Frame>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    // The frames of a queue are in order, and those of other queues are between them: the latest batch of each.
    let mut latest: HashMap<(String, String), usize> = HashMap::new();
    for frame in frames {
        let next = batches.len();
        let at = latest.entry((frame.card.clone(), frame.queue.clone()));
        let at = at.or_insert(next);
        match batches.get_mut(*at) {
            Some(batch) if batch.has(&frame) => batch.frames.push(frame),
            _ => {
                *at = next;
                batches.push(Batch {
                    frames: vec![frame],
                });
            }
        }
    }
    batches.sort_by_key(Batch::from);
    batches
}
