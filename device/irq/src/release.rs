// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Writes that a client holds up.
//!
//! To write an eventfd whose counter is full waits, unless its open file says otherwise; and the
//! client, which has the same open file, can have it wait and fill the counter between the look and
//! the write of [`EventFd::signal`](crate::EventFd). Linux has no write to an eventfd that returns
//! in any case, and one that waits is not ended by the death of the client. Who writes holds the lock
//! of a queue pair, or is the message thread: so a thread that never writes one itself looks after
//! them all, and reads the counter in whose way it is.

use std::io;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Vector;

/// How often it looks: a client loses that much of its own card's time, and QEMU's patience is ten
/// times as long.
const PERIOD: Duration = Duration::from_millis(500);

/// The thread; dropping this stops and joins it.
#[derive(Debug)]
pub(crate) struct Release {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Release {
    pub(crate) fn spawn(vectors: Arc<[Arc<Vector>]>) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = thread::Builder::new()
            .name("vnet-irq".into())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
                    vectors.iter().for_each(|vector| vector.release());
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic, and if it did there would be nothing to do.
            let _ = thread.join();
        }
    }
}
