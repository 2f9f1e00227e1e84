// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What else looks at a ring that a hostile driver writes: the sanitizer, which reads guest memory
//! by itself, and the progress that a process leaves to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use vnet_queue::{Observer, Progress, RingConfig};
use vnet_sanitizer::{Ring, Sanitizer, Shadow};
use vnet_state::{Block, Memory};

use crate::input::rarely;

/// A card's sanitizer, which takes nothing that is late for patience.
pub(crate) struct Witness {
    sanitizer: Arc<Sanitizer>,
    start: Instant,
    seconds: u64,
}

impl Witness {
    /// One in some of the runs.
    pub(crate) fn maybe(u: &mut Unstructured<'_>) -> Result<Option<Self>> {
        if !rarely(u, 3)? {
            return Ok(None);
        }
        let start = Instant::now();
        Ok(Some(Self {
            sanitizer: Arc::new(Sanitizer::new(Duration::ZERO, start)),
            start,
            seconds: 0,
        }))
    }

    pub(crate) fn shadow(&self, queue: u16, config: &RingConfig) -> Box<dyn Observer> {
        let ring = Ring {
            queue,
            config: *config,
            vector: None,
        };
        Box::new(Shadow::new(Arc::clone(&self.sanitizer), ring))
    }

    /// A second in which the guest was alive.
    pub(crate) fn tick(&mut self) {
        self.seconds += 1;
        self.sanitizer.sign_of_life();
        let now = self.start + Duration::from_secs(self.seconds);
        self.sanitizer.tick(now);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // All that was found can be told.
        let _ = self.sanitizer.findings().to_string();
        assert!(self.sanitizer.take_news().len() < 1000);
    }
}

/// A place to keep progress in.
pub(crate) struct Will(Block);

impl Will {
    pub(crate) fn new() -> Self {
        let memory = Memory::create().expect("a state");
        Self(Block::new(&memory, 0).expect("a block"))
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.0.cell(0))
    }
}
