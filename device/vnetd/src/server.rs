// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The life of the server: one thread serves clients, the main thread waits for its end.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;
use vnet_card::{Card, Config};
use vnet_session::{Session, Socket};

use crate::args::Args;
use crate::error::Error;
use crate::mac::Mac;

/// What ends the server: an error, or nothing but a signal.
type End = Result<(), Error>;

/// Serves until a signal or an error ends it.
pub(crate) fn run(args: &Args) -> End {
    let (end, ended) = channel();
    // First, so that from here on no signal leaves anything behind.
    watch_signals(end.clone())?;

    let unusable = |source| Error::Backend {
        net: args.net.to_string(),
        source,
    };
    let endpoint = args.net.open(args).map_err(unusable)?;
    let mac = args.mac.unwrap_or_else(|| Mac::for_socket(&args.socket));
    let config = Config {
        mac: mac.0,
        queue_pairs: args.queues,
        max_mtu: args.mtu_max,
    };
    let card = Card::new(config, endpoint).map_err(|e| match e {
        vnet_card::Error::Backend(source) => unusable(source),
        e => Error::Card(e),
    })?;
    let card = Arc::new(Mutex::new(card));

    // Last: once the socket exists, the server is ready.
    let socket = Socket::bind(&args.socket)?;
    let fatal = end.clone();
    let session = Session::new(&socket, Arc::clone(&card), move |e| {
        report(&fatal, Err(e.into()));
    })?;
    serve(session, end)?;
    info!("listening on {}", args.socket.display());

    // A sender lives as long as its thread, and the thread of the signals lives on.
    let result = ended.recv().unwrap_or(Err(Error::Panicked));
    // The message thread waits for its client, and there is no way to stop it but to exit. It
    // cannot do anything while the card is locked, and the card is at rest and out of the
    // client's memory before that is given up.
    card.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .disconnect();
    drop(socket);
    result
}

fn watch_signals(end: Sender<End>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Signals)?;
    thread::Builder::new()
        .name("vnet-signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                report(&end, Ok(()));
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}

/// Starts the message thread.
fn serve(mut session: Session, end: Sender<End>) -> Result<(), Error> {
    thread::Builder::new()
        .name("vnet-session".into())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| session.run()));
            report(&end, Err(result.map_or(Error::Panicked, Error::Session)));
        })
        .map_err(Error::Thread)?;
    Ok(())
}

fn report(end: &Sender<End>, result: End) {
    // Fails only when the main thread is on its way out already.
    let _ = end.send(result);
}
