// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A capture, as whoever started it sees it.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::bell::Bell;
use crate::event::Event;
use crate::recorder::Recorder;
use crate::rotate::Rotation;
use crate::select::Selection;
use crate::spool::{spool, Spool, MAX_LOAD, MAX_PARCELS};
use crate::writer::Writer;

/// What is captured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the card.
    pub card: String,
    /// Its address, if it is known.
    pub mac: Option<[u8; 6]>,
    /// Its queue pairs.
    pub pairs: u16,
    /// Which of its queues.
    pub selection: Selection,
    /// Bytes of each frame that are kept.
    pub snaplen: u32,
    /// Frames after which the capture ends.
    pub count: Option<u64>,
    /// Time after which it ends.
    pub time: Option<Duration>,
}

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum BadCapture {
    /// The file cannot be written.
    #[error("the file cannot be written: {0}")]
    File(io::Error),
    /// There is no thread to write it.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Why a capture is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody has stopped it.
    Stopped,
    /// There were as many frames as were wanted.
    Count,
    /// It took as long as was wanted.
    Time,
    /// The file could not be written any more.
    Failed(String),
}

/// How far a capture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Frames in the file.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The queues, by index.
    pub queues: Vec<QueueReport>,
    /// Events for which there was no room.
    pub lost_events: u64,
    /// Why nothing can be written at present. Files one after the other go on when that can be.
    pub trouble: Option<String>,
    /// Why it is over, if it is.
    pub end: Option<End>,
}

/// What became of the frames of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// Index of the queue.
    pub queue: u16,
    /// Frames that it carried.
    pub seen: u64,
    /// Those of them that are not in the file, as the thread that writes it did not keep up, or could not
    /// write.
    pub dropped: u64,
}

/// What the thread has done.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) trouble: Option<String>,
    pub(crate) end: Option<End>,
}

/// A capture that runs, or has run. Clones are handles on the same.
#[derive(Clone)]
pub struct Capture {
    spool: Spool,
    progress: Arc<Mutex<Progress>>,
    config: Arc<Config>,
    /// Hangs up when the thread has ended.
    ended: Arc<Mutex<Receiver<()>>>,
}

impl Capture {
    /// Begins to write a file.
    pub fn start(config: Config, file: File) -> Result<Self, BadCapture> {
        Self::begin(config, Some(file), None)
    }

    /// Will write files, one after the other. The first one begins with the first frame: until then, nothing
    /// is removed that an earlier run has written. Whether there can be one, [`Rotation::check`] says.
    pub fn start_rotating(config: Config, files: Rotation) -> Result<Self, BadCapture> {
        Self::begin(config, None, Some(files))
    }

    fn begin(
        config: Config,
        file: Option<File>,
        rotation: Option<Rotation>,
    ) -> Result<Self, BadCapture> {
        let (spool, items) = spool(MAX_LOAD, MAX_PARCELS);
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let shared = Arc::clone(&spool.shared);
        let writer = Writer::new(
            file,
            rotation,
            config.clone(),
            shared,
            Arc::clone(&progress),
        )
        .map_err(BadCapture::File)?;
        let (alive, ended) = channel::<()>();
        thread::Builder::new()
            .name("vnet-capture".into())
            .spawn(move || {
                let _alive = alive;
                writer.run(items);
            })
            .map_err(BadCapture::Thread)?;
        Ok(Self {
            spool,
            progress,
            config: Arc::new(config),
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    /// For the engine of the queue with this index; `None`: that is not captured.
    pub fn recorder(&self, queue: u16, bell: &Bell) -> Option<Recorder> {
        self.wants(queue)
            .then(|| Recorder::new(self.spool.clone(), queue, self.config.snaplen, bell.clone()))
    }

    /// True if there is something for a recorder of this queue to do.
    pub fn wants(&self, queue: u16) -> bool {
        self.config.selection.covers(queue) && !self.is_over()
    }

    /// Puts an event between the frames. Never waits.
    pub fn event(&self, event: Event) {
        if !self.is_over() {
            self.spool.event(event);
        }
    }

    /// True if nothing more comes into the file.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.spool.is_over()
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        let progress = lock(&self.progress);
        let tallies = (0u16..2 * self.config.pairs).zip(&self.spool.shared.tallies);
        let queues = tallies.filter(|(queue, _)| self.config.selection.covers(*queue));
        Status {
            frames: progress.frames,
            bytes: progress.bytes,
            queues: queues
                .map(|(queue, tally)| QueueReport {
                    queue,
                    seen: tally.seen.load(Ordering::Relaxed),
                    dropped: tally.dropped.load(Ordering::Relaxed),
                })
                .collect(),
            lost_events: self.spool.shared.lost_events.load(Ordering::Relaxed),
            trouble: progress.trouble.clone(),
            end: progress.end.clone(),
        }
    }

    /// Ends it, once its recorders are gone: what they handed over is written. Waits so long for that, at
    /// most; false: the file is not finished then, as whoever reads it, such as a pipe, does not take it.
    pub fn stop(&self, patience: Duration) -> bool {
        self.spool.shared.over.store(true, Ordering::Release);
        self.spool.nudge();
        // Nothing is ever sent.
        let ended = lock(&self.ended).recv_timeout(patience);
        ended != Err(RecvTimeoutError::Timeout)
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two statements that hold it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
