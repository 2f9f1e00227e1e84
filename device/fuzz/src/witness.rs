// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What else looks at a ring that a hostile driver writes: the sanitizer, which reads guest memory
//! by itself, and the progress that a process leaves to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use vnet_contract::queue::Error;
use vnet_irq::Vector;
use vnet_queue::{Observer, Progress, RingConfig};
use vnet_sanitizer::{Ring, Sanitizer, Shadow};
use vnet_state::{Block, Memory};

/// A card's sanitizer, which has no patience with what is late.
pub(crate) struct Witness {
    sanitizer: Arc<Sanitizer>,
    /// Where interrupts go, if the queue has any.
    vector: Option<Arc<Vector>>,
    start: Instant,
    seconds: u64,
}

impl Witness {
    /// One in some of the runs.
    pub(crate) fn maybe(u: &mut Unstructured<'_>) -> Result<Option<Self>> {
        let interrupts = match u.int_in_range(0..=5)? {
            0 => true,
            3 => false,
            _ => return Ok(None),
        };
        let start = Instant::now();
        Ok(Some(Self {
            sanitizer: Arc::new(Sanitizer::new(Duration::ZERO, start)),
            vector: interrupts.then(Arc::default),
            start,
            seconds: 0,
        }))
    }

    pub(crate) fn shadow(&self, queue: u16, config: &RingConfig) -> Box<dyn Observer> {
        let ring = Ring {
            queue,
            config: *config,
            vector: self.vector.clone(),
        };
        Box::new(Shadow::new(Arc::clone(&self.sanitizer), ring))
    }

    /// An interrupt is raised. The driver is about to take each other one.
    pub(crate) fn raise(&self) {
        if let Some(vector) = &self.vector {
            vector.raise();
            if vector.raised() % 2 == 0 {
                vector.clear_pending();
            }
        }
    }

    /// The engine found a fault, and `accuse` tells the shadow: so it must find one, too. A header may
    /// have been found wrong before.
    pub(crate) fn convict(&self, error: Error, accuse: impl FnOnce()) {
        let before = self.sanitizer.findings().total();
        accuse();
        let total = self.sanitizer.findings().total();
        match error {
            Error::Header => assert!(total > 0),
            _ => assert_eq!(total, before + 1, "{error:?}"),
        }
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
