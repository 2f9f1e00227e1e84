// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Captures of a card, started and ended while it is in use: docs/capture.md.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};
use vnet_capture::{now, queue_name, Capture, Config, End, Event, Selection, Status, What, WHOLE};
use vnet_card::{Listener, Sanitizer};
use vnet_control::{Capture as Start, CaptureEnd, CaptureQueue, CaptureState, Class, Error};
use vnet_faults::{Faults, Witness};

use crate::card::Served;
use crate::error;
use crate::sandbox::served;
use crate::steer::{self, bad, patiently, Done};

/// How long a file may take to be finished.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last capture of a card, which may run. Changes when there is another, whoever still waits for that.
#[derive(Clone, Default)]
pub(crate) struct LastCapture(Arc<Mutex<Option<Numbered>>>);

/// A capture, and which of all it is.
#[derive(Clone)]
struct Numbered {
    number: u64,
    capture: Capture,
}

impl LastCapture {
    pub(crate) fn get(&self) -> Option<Capture> {
        self.numbered().map(|last| last.capture)
    }

    fn numbered(&self) -> Option<Numbered> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, capture: &Capture) {
        // Of all cards, as one may be made anew under the same name.
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let capture = capture.clone();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Numbered { number, capture });
    }
}

/// Begins to write the frames of a card to a file.
pub(crate) fn start(card: &mut Served, start: &Start, file: Option<OwnedFd>) -> Done<CaptureState> {
    let selection = match &start.queue {
        None => Selection::default(),
        Some(text) => text.parse().map_err(|e| bad(format!("queue: {e}")))?,
    };
    let queues = card.args.queues;
    let there = selection.check(queues);
    there.map_err(|e| bad(format!("queue: {e}")))?;
    let file = file.ok_or_else(|| bad("the descriptor of a file has to come with this"))?;
    for (name, number) in [
        ("snaplen", start.snaplen.map(u64::from)),
        ("count", start.count),
        ("seconds", start.seconds.map(u64::from)),
    ] {
        if number == Some(0) {
            return Err(bad(format!("{name}: at least 1")));
        }
    }
    if card.capture.get().is_some_and(|c| !c.is_over()) {
        let desc = format!("there is a capture of {} already", card.name);
        return Err(Error::new(Class::Exists, desc));
    }
    let config = Config {
        card: card.name.to_string(),
        mac: steer::glance(&card.card).map(|(_, mac)| mac),
        pairs: queues,
        selection,
        snaplen: start.snaplen.unwrap_or(WHOLE).min(WHOLE),
        count: start.count,
        time: start.seconds.map(|s| Duration::from_secs(s.into())),
    };
    let (operator, place) = (card.operator.clone(), card.capture.clone());
    let (sanitizer, faults) = (card.sanitizer.clone(), card.faults_in_force().cloned());
    patiently(card, move || {
        // A file may be a pipe that nobody reads.
        let capture = served(|| Capture::start(config, File::from(file)));
        let capture = capture.map_err(error::Error::Thread)?;
        let capture = capture.map_err(error::Error::Capture)?;
        operator.capture(Some(&capture));
        overhear(Some(&capture), sanitizer.as_deref(), faults.as_deref());
        place.set(&capture);
        Ok(())
    })?;
    info!("card {}: capture started", card.name);
    show(card, None)
}

/// Puts between the frames of a capture, if there is one, what its card is told to do wrong and what its
/// driver does.
pub(crate) fn overhear(
    capture: Option<&Capture>,
    sanitizer: Option<&Sanitizer>,
    faults: Option<&Faults>,
) {
    let capture = capture.filter(|c| !c.is_over());
    if let Some(sanitizer) = sanitizer {
        sanitizer.set_listener(capture.cloned().map(|capture| {
            Listener::new(move |finding| {
                capture.event(Event {
                    time: now(),
                    queue: finding.queue,
                    what: What::Finding,
                    text: finding.to_string(),
                });
            })
        }));
    }
    if let Some(faults) = faults {
        faults.set_witness(capture.cloned().map(|capture| {
            Witness::new(move |kind, queue| {
                capture.event(Event {
                    time: now(),
                    queue,
                    what: What::Fault,
                    text: kind.name().into(),
                });
            })
        }));
    }
}

/// Says how far the capture of a card with this number is, or the last one.
pub(crate) fn show(card: &mut Served, number: Option<u64>) -> Done<CaptureState> {
    let last = find(card, number)?;
    Ok(describe(card, last.number, last.capture.status()))
}

/// Ends the capture of a card.
pub(crate) fn stop(card: &mut Served, number: Option<u64>) -> Done<CaptureState> {
    let Numbered { number, capture } = find(card, number)?;
    let operator = card.operator.clone();
    let (sanitizer, faults) = (card.sanitizer.clone(), card.faults_in_force().cloned());
    let finished = patiently(card, move || {
        operator.capture(None);
        let finished = capture.stop(PATIENCE);
        overhear(None, sanitizer.as_deref(), faults.as_deref());
        Ok(finished)
    })?;
    let mut state = show(card, Some(number))?;
    if !finished {
        state.end = Some(CaptureEnd::Unfinished);
    }
    match &state.error {
        Some(error) => warn!("card {}: capture ended: {error}", card.name),
        None => info!("card {}: capture stopped", card.name),
    }
    Ok(state)
}

fn find(card: &Served, number: Option<u64>) -> Done<Numbered> {
    let failed = |desc| Error::new(Class::Failed, desc);
    let last = card.capture.numbered();
    let last = last.ok_or_else(|| failed(format!("there is no capture of {}", card.name)))?;
    match number.is_none_or(|number| number == last.number) {
        true => Ok(last),
        false => Err(failed(format!(
            "it is over, and there has been another capture of {} since",
            card.name
        ))),
    }
}

fn describe(card: &Served, number: u64, status: Status) -> CaptureState {
    let (end, error) = match status.end {
        None => (None, None),
        Some(End::Stopped) => (Some(CaptureEnd::Stopped), None),
        Some(End::Count) => (Some(CaptureEnd::Count), None),
        Some(End::Time) => (Some(CaptureEnd::Time), None),
        Some(End::Failed(error)) => (Some(CaptureEnd::Failed), Some(error)),
    };
    let queues = status.queues.into_iter().map(|queue| CaptureQueue {
        queue: queue_name(queue.queue),
        seen: queue.seen,
        dropped: queue.dropped,
    });
    CaptureState {
        card: card.name.to_string(),
        number: Some(number),
        end,
        error,
        frames: status.frames,
        bytes: status.bytes,
        queues: queues.collect(),
        lost_events: status.lost_events,
    }
}
