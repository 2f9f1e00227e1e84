// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The monitor thread: watches the link, and logs what workers report.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use tracing::{error, info, warn, Span};
use vnet_backend::Endpoint;
use vnet_contract::queue::{kind, Kind};
use vnet_worker::Fault;

use crate::events::Events;
use crate::limit::Limit;

/// How often the link is looked at: soon enough for a person, rare enough to cost nothing.
const LINK_PERIOD: Duration = Duration::from_millis(500);

/// Most notes that wait for the monitor. More are counted only.
pub(crate) const MAX_NOTES: usize = 32;

/// Something for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    QueueFailed { queue: u16, fault: Fault },
    PairFailed { pair: u16 },
    Stop,
}

/// The endpoint, which the message thread and the monitor share.
pub(crate) type SharedEndpoint = Arc<Mutex<Box<dyn Endpoint>>>;

/// Locks the endpoint. One that panicked once is still asked: it is its own guard.
pub(crate) fn lock(endpoint: &SharedEndpoint) -> MutexGuard<'_, Box<dyn Endpoint>> {
    endpoint.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread; dropping this stops and joins it.
#[derive(Debug)]
pub(crate) struct Monitor {
    notes: SyncSender<Note>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(crate) fn spawn(
        endpoint: SharedEndpoint,
        events: Arc<Events>,
        notes: SyncSender<Note>,
        inbox: Receiver<Note>,
    ) -> io::Result<Self> {
        // The log says which card it is about where the one who made it does.
        let span = Span::current();
        let thread = thread::Builder::new()
            .name("vnet-monitor".into())
            .spawn(move || {
                let _span = span.entered();
                run(&endpoint, &events, &inbox);
            })?;
        Ok(Self {
            notes,
            thread: Some(thread),
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Fails only if the thread is gone already.
        let _ = self.notes.send(Note::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(endpoint: &SharedEndpoint, events: &Events, inbox: &Receiver<Note>) {
    let mut limit = Limit::new(Instant::now());
    let mut next_look = Instant::now() + LINK_PERIOD;
    loop {
        let wait = next_look.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(wait) {
            Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(note) => {
                limit.suppress(events.take_lost_notes());
                log(note, &mut limit);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Also if notes come without end.
        if Instant::now() >= next_look {
            look(endpoint, events);
            next_look = Instant::now() + LINK_PERIOD;
        }
    }
}

fn look(endpoint: &SharedEndpoint, events: &Events) {
    // A backend that panics must not take the monitor along: the link stays as it was.
    let Ok(link) = catch_unwind(AssertUnwindSafe(|| lock(endpoint).link())) else {
        return;
    };
    if let Some(link) = events.set_link(link) {
        info!(up = link.up, speed = link.speed, "link changed");
    }
}

fn log(note: Note, limit: &mut Limit) {
    let Some(suppressed) = limit.permit(Instant::now()) else {
        return;
    };
    match note {
        Note::QueueFailed { queue, fault } => {
            let (pair, name) = (queue / 2, direction(queue));
            let code = fault.error.name();
            warn!("{name} queue of pair {pair} stopped, {code}: {fault}");
        }
        Note::PairFailed { pair } => error!("backend of queue pair {pair} failed"),
        Note::Stop => {}
    }
    if suppressed != 0 {
        warn!("{suppressed} more reports like this were not logged");
    }
}

fn direction(queue: u16) -> &'static str {
    match kind(queue) {
        Kind::Rx => "receive",
        Kind::Tx => "transmit",
    }
}
