// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The life of the server: each card has a thread that serves its clients, the main thread waits for
//! the end.

use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vnet_record::Record;
use vnet_session::Socket;

use crate::args::Args;
use crate::card::{Id, Served, CAPTURE_PATIENCE};
use crate::cards::Cards;
use crate::config::Config;
use crate::control;
use crate::end::{self, report, Another, Event};
use crate::error::Error;
use crate::faults::FaultFile;
use crate::limits;
use crate::out;
use crate::sandbox::Sandbox;
use crate::scrape::{self, Place};
use crate::systemd::{self, Watchdog};
use crate::web::{self, Web};

/// The cards, for the threads that change them.
pub(crate) type SharedCards = Arc<Mutex<Cards>>;

/// What the server listens on beside the sockets of its cards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For those who steer the cards.
    pub(crate) control: Option<PathBuf>,
    /// For those who want metrics.
    pub(crate) metrics: Option<Place>,
    /// For those who want to see the cards at work.
    pub(crate) web: Web,
}

impl Ports {
    /// What these do not say, others do.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            control: self.control.or(others.control),
            metrics: self.metrics.or(others.metrics),
            web: self.web.or(others.web),
        }
    }
}

/// Serves one card until a signal ends it, or an error of the card. Others may be added.
pub(crate) fn run_one(args: Args, ports: &Ports, sandbox: Sandbox) -> Result<(), Error> {
    let entered = sandbox.enter(std::slice::from_ref(&args), ports);
    let (sender, events) = channel();
    let cards = begin(&sender, true)?;
    let mut all = lock(&cards);
    let _sockets = listen(ports, &mut all, &cards)?;
    let only = all.add(args)?;
    entered.tell();
    systemd::ready(&all.summary());
    drop(all);
    let result = wait(&cards, &events, Some(only));
    finish(&cards, sender, &events, result)
}

/// Serves all cards of a configuration until a signal ends it. One that fails on the way is left
/// behind.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    let entered = config.sandbox.enter(&config.cards, &config.ports);
    let (sender, events) = channel();
    let cards = begin(&sender, false)?;
    let mut all = lock(&cards);
    let _sockets = listen(&config.ports, &mut all, &cards)?;
    for args in config.cards {
        let name = args.name();
        if let Err(error) = all.add_named(args) {
            // Whoever waits for a path does not find one behind which nobody is.
            all.iter_mut().for_each(|card| drop(card.stop()));
            let error = Box::new(error);
            return Err(Error::Card { name, error });
        }
    }
    entered.tell();
    systemd::ready(&all.summary());
    drop(all);
    let result = wait(&cards, &events, None);
    finish(&cards, sender, &events, result)
}

/// Waits for whatever ends the server: a signal, or the end of the card that it cannot do without.
fn wait(cards: &SharedCards, events: &Receiver<Event>, needed: Option<Id>) -> Result<(), Error> {
    let mut watchdog = Watchdog::new();
    loop {
        let event = match watchdog.left() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => events.recv_timeout(left),
        };
        match event {
            Ok(Event::Signal) => return Ok(()),
            Ok(Event::Ended { id, error } | Event::Useless { id, error, .. })
                if needed == Some(id) =>
            {
                return Err(error);
            }
            Ok(event @ (Event::Ended { .. } | Event::Useless { .. })) => lock(cards).hear(event),
            Ok(Event::Failed(error)) => return Err(error),
            Ok(Event::HandOver | Event::AtRest) => {}
            // A sender lives as long as its thread, and the thread of the signals lives on.
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Panicked),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Not while the one who changes the cards hangs: then nothing works that can be asked for.
        if !matches!(cards.try_lock(), Err(TryLockError::WouldBlock)) {
            watchdog.alive();
        } else if watchdog.left().is_some_and(|left| left.is_zero()) {
            thread::sleep(BUSY);
        }
    }
}

/// Pause before the next look at cards that somebody is changing.
const BUSY: Duration = Duration::from_millis(10);

/// Lets the cards be steered and seen, and their metrics be had, if that is wanted. Comes before the cards, so
/// that who sees the socket of one finds these, too; what is asked of the cards waits until they are
/// there.
fn listen(ports: &Ports, all: &mut Cards, cards: &SharedCards) -> Result<Vec<Socket>, Error> {
    let mut sockets = Vec::new();
    if let Some(path) = &ports.control {
        sockets.push(control::start(path, Arc::clone(cards))?);
    }
    if let Some(place) = &ports.metrics {
        all.measure();
        sockets.extend(scrape::start(place, all.views())?);
    }
    web::start(&ports.web, cards, all.views())?;
    Ok(sockets)
}

pub(crate) fn lock(cards: &SharedCards) -> MutexGuard<'_, Cards> {
    cards.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes first, so that from here on no signal leaves anything behind.
fn begin(sender: &Sender<Event>, alone: bool) -> Result<SharedCards, Error> {
    out::start()?;
    let cards = Arc::new(Mutex::new(Cards::new(sender.clone())));
    let shared = Arc::clone(&cards);
    on_signals(sender.clone(), move || {
        // Not with the cards in hand: whoever has such a file may hang.
        let files = lock(&shared).fault_files();
        files.iter().for_each(FaultFile::reload);
        // One card without faults ends at this signal, as most programs do.
        !files.is_empty() || !alone
    })?;
    limits::raise_descriptors();
    Ok(cards)
}

/// Brings all cards to rest, and says what they came to.
fn finish(
    cards: &SharedCards,
    sender: Sender<Event>,
    events: &Receiver<Event>,
    result: Result<(), Error>,
) -> Result<(), Error> {
    systemd::stopping();
    let all = lock(cards).iter_mut().map(Served::stop).collect();
    // All of them at a time, as none was waited for above.
    let until = Instant::now() + CAPTURE_PATIENCE;
    lock(cards)
        .iter()
        .for_each(|card| card.finish_capture(until));
    // Even if a message thread hangs.
    let rested = end::rest(all, sender, events, Another::Hurry);
    let records: Vec<_> = lock(cards)
        .iter()
        .filter_map(|card| card.beside.get().record)
        .collect();
    Record::finish(&records);
    let verdict = lock(cards).verdict();
    result.and(rested).and(verdict)
}

/// Ends the server when a signal asks for it. With a file of faults, SIGHUP asks for that to be read
/// again.
pub(crate) fn watch_signals(events: Sender<Event>, faults: Option<FaultFile>) -> Result<(), Error> {
    on_signals(events, move || {
        faults.iter().for_each(FaultFile::reload);
        faults.is_some()
    })
}

/// Ends the server when a signal asks for it; at SIGHUP only if `reload` has nothing to read again, which
/// may take its time: other signals are heard meanwhile.
fn on_signals(
    events: Sender<Event>,
    reload: impl Fn() -> bool + Send + 'static,
) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Signals)?;
    // One that waits is as good as several.
    let (reloads, asked) = sync_channel(1);
    let at_end = events.clone();
    let start = |name: &str| thread::Builder::new().name(name.into());
    start("vnet-reload")
        .spawn(move || {
            for () in asked {
                if !reload() {
                    report(&at_end, Event::Signal);
                }
            }
        })
        .map_err(Error::Thread)?;
    start("vnet-signals")
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => drop(reloads.try_send(())),
                    _ => report(&events, Event::Signal),
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}
