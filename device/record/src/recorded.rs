// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};
use vnet_capture::{BadCapture, Bell, Capture, Rotation};

use crate::queue::RecordedQueue;
use crate::Config;

/// How long the last file may take to be finished when the card goes.
const PATIENCE: Duration = Duration::from_millis(500);

/// An endpoint of which all that passes is written down.
pub struct Recorded {
    inner: Box<dyn Endpoint>,
    config: Config,
    /// Name of the card, which the file tells.
    card: String,
    capture: Option<Capture>,
    /// What was said last: why nothing is written.
    told: Mutex<Option<String>>,
}

impl Recorded {
    /// Has written down what passes before an endpoint.
    pub fn new(inner: Box<dyn Endpoint>, config: Config, card: &str) -> Self {
        Self {
            inner,
            config,
            card: card.into(),
            capture: None,
            told: Mutex::new(None),
        }
    }

    fn begin(&self, queues: u16) -> Result<Capture, BadCapture> {
        let config = vnet_capture::Config {
            card: self.card.clone(),
            mac: None,
            pairs: queues,
            selection: self.config.queue,
            snaplen: self.config.snaplen,
            count: None,
            time: None,
        };
        let rotation = Rotation {
            file: self.config.file.clone(),
            size: self.config.size,
            files: self.config.files,
        };
        Capture::start_rotating(config, rotation)
    }

    /// Says that nothing is written now, and that it is again.
    fn complain(&self) {
        let Some(status) = self.capture.as_ref().map(Capture::status) else {
            return;
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == status.trouble {
            return;
        }
        let file = self.config.file.display();
        match &status.trouble {
            Some(why) => {
                error!("record: {file}: {why}; until there is room, frames are not written")
            }
            None => {
                let dropped: u64 = status.queues.iter().map(|queue| queue.dropped).sum();
                warn!("record: {file}: frames are written again; {dropped} were not so far");
            }
        }
        *told = status.trouble;
    }
}

impl Endpoint for Recorded {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn link(&self) -> Link {
        // Asked now and then, and by nobody who moves frames.
        self.complain();
        self.inner.link()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let inner = self.inner.open(queues)?;
        let capture = self.begin(queues).map_err(|error| {
            let file = self.config.file.display();
            Error::Unsupported(format!("record {file}: {error}"))
        })?;
        let queues = (0u16..).zip(inner).map(|(pair, inner)| {
            let recorder = |queue| capture.recorder(queue, &Bell::default());
            let (rx, tx) = (recorder(2 * pair), recorder(2 * pair + 1));
            Box::new(RecordedQueue::new(inner, rx, tx)) as Box<dyn Queue>
        });
        let queues = queues.collect();
        self.capture = Some(capture);
        Ok(queues)
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.inner.set_offloads(receive);
    }

    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.complain();
        if let Some(capture) = &self.capture {
            capture.stop(PATIENCE);
            let status = capture.status();
            let dropped: u64 = status.queues.iter().map(|queue| queue.dropped).sum();
            let file = self.config.file.display();
            let frames = status.frames;
            info!("record: {file}: {frames} frames were written, {dropped} were not");
        }
    }
}
