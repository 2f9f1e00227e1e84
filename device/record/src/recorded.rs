// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint, and the files for whoever ends them.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};
use vnet_capture::{BadCapture, Bell, Capture, Rotation, Status};

use crate::queue::RecordedQueue;
use crate::Config;

/// How long the last files may take to be finished.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is written down of one endpoint. Clones are handles on the same.
#[derive(Clone, Debug)]
pub struct Record(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// There once the endpoint is open, until its end was told.
    capture: Mutex<Option<Capture>>,
    /// What was said last: why nothing is written.
    told: Mutex<Option<String>>,
}

impl Record {
    fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            config,
            capture: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Ends these, once no frames pass any more: what did is in the files then, as far as a disk takes that
    /// in half a second. For a process that ends, in which nobody lets go of the endpoints.
    pub fn finish(records: &[Self]) {
        let until = Instant::now() + PATIENCE;
        let captures = || records.iter().filter_map(Self::capture);
        // All of them at a time.
        captures().for_each(|capture| {
            capture.stop(Duration::ZERO);
        });
        captures().for_each(|capture| {
            capture.stop(until.saturating_duration_since(Instant::now()));
        });
        records.iter().for_each(Self::tell_end);
    }

    fn capture(&self) -> Option<Capture> {
        lock(&self.0.capture).clone()
    }

    /// Says that nothing is written now, and that it is again.
    fn complain(&self) {
        let Some(status) = self.capture().map(|capture| capture.status()) else {
            return;
        };
        let mut told = lock(&self.0.told);
        if *told == status.trouble {
            return;
        }
        let file = self.0.config.file.display();
        match &status.trouble {
            Some(why) => {
                error!("record: {file}: {why}; until there is room, frames are not written")
            }
            None => {
                let dropped = dropped(&status);
                warn!("record: {file}: frames are written again; {dropped} were not so far");
            }
        }
        *told = status.trouble;
    }

    /// Says what it came to.
    fn tell_end(&self) {
        self.complain();
        let Some(capture) = lock(&self.0.capture).take() else {
            return;
        };
        let status = capture.status();
        let (frames, dropped) = (status.frames, dropped(&status));
        let file = self.0.config.file.display();
        info!("record: {file}: {frames} frames were written, {dropped} were not");
    }
}

fn dropped(status: &Status) -> u64 {
    status.queues.iter().map(|queue| queue.dropped).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An endpoint of which all that passes is written down.
pub struct Recorded {
    inner: Box<dyn Endpoint>,
    /// Name of the card, which the file tells.
    card: String,
    goes_on: bool,
    record: Record,
}

impl Recorded {
    /// Has written down what passes before an endpoint.
    /// If it `goes_on`, files that cannot be written are an outage, as later on, and no mistake.
    pub fn new(inner: Box<dyn Endpoint>, config: Config, card: &str, goes_on: bool) -> Self {
        Self {
            inner,
            card: card.into(),
            goes_on,
            record: Record::new(config),
        }
    }

    /// What is written down, for whoever ends it.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    fn begin(&self, queues: u16) -> Result<Capture, BadCapture> {
        let record = &self.record.0.config;
        let config = vnet_capture::Config {
            card: self.card.clone(),
            mac: None,
            pairs: queues,
            selection: record.queue,
            snaplen: record.snaplen,
            count: None,
            time: None,
        };
        let rotation = Rotation {
            file: record.file.clone(),
            size: record.size,
            files: record.files,
        };
        if !self.goes_on {
            rotation.check().map_err(BadCapture::File)?;
        }
        Capture::start_rotating(config, rotation)
    }
}

impl Endpoint for Recorded {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn link(&self) -> Link {
        // Asked now and then, and by nobody who moves frames.
        self.record.complain();
        self.inner.link()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let inner = self.inner.open(queues)?;
        let file = self.record.0.config.file.display();
        let bad = |error: &dyn Display| Error::Unsupported(format!("record {file}: {error}"));
        let selection = self.record.0.config.queue;
        selection.check(queues).map_err(|e| bad(&e))?;
        let capture = self.begin(queues).map_err(|e| bad(&e))?;
        let queues = (0u16..).zip(inner).map(|(pair, inner)| {
            let recorder = |queue| capture.recorder(queue, &Bell::default());
            let (rx, tx) = (recorder(2 * pair), recorder(2 * pair + 1));
            Box::new(RecordedQueue::new(inner, rx, tx)) as Box<dyn Queue>
        });
        let queues = queues.collect();
        *lock(&self.record.0.capture) = Some(capture);
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
        Record::finish(std::slice::from_ref(&self.record));
    }
}
