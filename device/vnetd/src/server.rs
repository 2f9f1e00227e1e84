// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The life of the server: one thread serves clients, the main thread waits for its end.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;
use vnet_backend::Endpoint;
use vnet_card::{Card, Config, Options};
use vnet_faults::Faulty;
use vnet_session::{Session, Socket};

use crate::args::Args;
use crate::end::{self, Event};
use crate::error::Error;
use crate::faults::FaultFile;
use crate::limits;
use crate::mac::Mac;
use crate::sanitize;

/// Serves until a signal or an error ends it.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let (sender, events) = channel();
    // First, so that from here on no signal leaves anything behind.
    let faults = args.faults.clone().map(FaultFile::open).transpose()?;
    watch_signals(sender.clone(), faults.clone())?;
    limits::raise_descriptors();

    let endpoint = args.net.open(args).map_err(|e| unusable(args, e))?;
    let card = card(args, endpoint, faults.as_ref())?;
    let sanitizer = card.sanitizer().cloned();
    let card = Arc::new(Mutex::new(card));

    // Last: once the socket exists, the server is ready.
    let socket = Socket::bind(&args.socket)?;
    let fatal = sender.clone();
    let session = Session::new(&socket, Arc::clone(&card), move |e| {
        report(&fatal, Event::Failed(e.into()));
    })?;
    let control = session.control();
    serve(session, sender.clone())?;
    info!("listening on {}", args.socket.display());

    let result = end::wait(&events);
    control.stop();
    // Even if the message thread hangs.
    let rested = end::rest(card, sender, &events);
    drop(socket);
    if let Some(file) = &faults {
        file.report();
    }
    let judged = sanitizer.map_or(Ok(()), |s| sanitize::verdict(args.sanitize, &s));
    result.and(rested).and(judged)
}

/// The card that the arguments describe.
pub(crate) fn card(
    args: &Args,
    mut endpoint: Box<dyn Endpoint>,
    faults: Option<&FaultFile>,
) -> Result<Card, Error> {
    if let Some(file) = faults {
        endpoint = Box::new(Faulty::new(endpoint, Arc::clone(&file.faults)));
    }
    let mac = args.mac.unwrap_or_else(|| Mac::for_socket(&args.socket));
    let config = Config {
        mac: mac.0,
        queue_pairs: args.queues,
        max_mtu: args.mtu_max,
        service: Options {
            poll: Duration::from_micros(args.poll_us.into()),
            tx_timer: Duration::from_micros(args.tx_timer_us.into()),
            ..Options::default()
        },
    };
    let mut card = Card::new(config, endpoint).map_err(|e| match e {
        vnet_card::Error::Backend(source) => unusable(args, source),
        e => Error::Card(e),
    })?;
    if let Some(file) = faults {
        card.set_faults(&file.faults);
    }
    match sanitize::sanitizer(args) {
        Some(sanitizer) => card.sanitized(sanitizer).map_err(Error::Card),
        None => Ok(card),
    }
}

/// Names the backend that cannot be used.
pub(crate) fn unusable(args: &Args, source: vnet_backend::Error) -> Error {
    Error::Backend {
        net: args.net.to_string(),
        source,
    }
}

/// Ends the server when a signal asks for it. With a file of faults, SIGHUP asks for that to be read
/// again.
pub(crate) fn watch_signals(events: Sender<Event>, faults: Option<FaultFile>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Signals)?;
    thread::Builder::new()
        .name("vnet-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                match &faults {
                    Some(file) if signal == SIGHUP => file.reload(),
                    _ => report(&events, Event::Signal),
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}

/// Starts the message thread.
fn serve(mut session: Session, events: Sender<Event>) -> Result<(), Error> {
    thread::Builder::new()
        .name("vnet-session".into())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| session.run()));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(e)) => report(&events, Event::Failed(e.into())),
                Err(_) => report(&events, Event::Failed(Error::Panicked)),
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}

pub(crate) fn report(events: &Sender<Event>, event: Event) {
    // Fails only when the main thread is on its way out already.
    let _ = events.send(event);
}
