// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One card of those that the process serves: the card itself, its socket, and the thread that serves
//! its clients. Nothing is shared between cards, so what becomes of one is nothing to the others.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{error, info, Span};
use vnet_backend::Endpoint;
use vnet_card::{Card, Config, Options, Sanitizer};
use vnet_faults::Faulty;
use vnet_session::{Control, Session, SharedCard, Socket};
use vnet_shape::Shaped;

use crate::args::Args;
use crate::end::{report, Event};
use crate::error::Error;
use crate::faults::FaultFile;
use crate::mac::Mac;
use crate::name::Name;
use crate::sanitize;

/// Tells cards apart, also those that had the same name one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u64);

/// A card that is served.
pub(crate) struct Served {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) args: Args,
    pub(crate) card: SharedCard,
    pub(crate) faults: Option<FaultFile>,
    pub(crate) sanitizer: Option<Arc<Sanitizer>>,
    /// Why nobody serves it any more, if that is so.
    pub(crate) failed: Option<String>,
    control: Control,
    /// Removes its path when the card goes.
    socket: Option<Socket>,
}

impl Served {
    /// Sets a card up and serves it. Once its socket is there, it is ready. What ends it is sent to
    /// `events`.
    pub(crate) fn start(id: Id, args: Args, events: Sender<Event>) -> Result<Self, Error> {
        let faults = args.faults.clone().map(FaultFile::open).transpose()?;
        let endpoint = args.net.open(&args).map_err(|e| unusable(&args, e))?;
        let card = card(&args, endpoint, faults.as_ref())?;
        let sanitizer = card.sanitizer().cloned();
        let card = Arc::new(Mutex::new(card));
        let socket = Socket::bind(&args.socket)?;
        let fatal = events.clone();
        let session = Session::new(&socket, Arc::clone(&card), move |error| {
            let error = error.into();
            report(&fatal, Event::Useless { id, error });
        })?;
        let control = session.control();
        serve(id, session, Arc::clone(&card), events)?;
        info!("listening on {}", args.socket.display());
        Ok(Self {
            id,
            name: args.name(),
            args,
            card,
            faults,
            sanitizer,
            failed: None,
            control,
            socket: Some(socket),
        })
    }

    /// Hangs up on the client that is connected, if one is. The next one is served.
    pub(crate) fn hang_up(&self) {
        self.control.hang_up();
    }

    /// Takes note that nobody serves the card any more.
    pub(crate) fn fail(&mut self, why: &Error) {
        self.failed = Some(why.to_string());
        self.stop();
    }

    /// Lets nobody connect any more, and has the message thread end. Returns the card.
    pub(crate) fn stop(&mut self) -> SharedCard {
        self.control.stop();
        self.socket = None;
        Arc::clone(&self.card)
    }

    /// Says what its faults and its driver's mistakes came to.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        if let Some(file) = &self.faults {
            file.report();
        }
        let sanitizer = self.sanitizer.as_ref();
        sanitizer.map_or(Ok(()), |s| sanitize::verdict(self.args.sanitize, s))
    }
}

/// The card that the arguments describe.
pub(crate) fn card(
    args: &Args,
    mut endpoint: Box<dyn Endpoint>,
    faults: Option<&FaultFile>,
) -> Result<Card, Error> {
    if let Some(shape) = args.shape {
        endpoint = Box::new(Shaped::new(endpoint, shape));
    }
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
        e => Error::Unmade(e),
    })?;
    if let Some(file) = faults {
        card.set_faults(&file.faults);
    }
    match sanitize::sanitizer(args) {
        Some(sanitizer) => card.sanitized(sanitizer).map_err(Error::Unmade),
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

/// Starts the message thread.
fn serve(
    id: Id,
    mut session: Session,
    card: SharedCard,
    events: Sender<Event>,
) -> Result<(), Error> {
    let span = Span::current();
    thread::Builder::new()
        .name("vnet-session".into())
        .spawn(move || {
            let _span = span.entered();
            let served = catch_unwind(AssertUnwindSafe(|| session.run()));
            let error = match served {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(e.into()),
                Err(_) => Some(Error::Panicked),
            };
            if let Some(error) = error {
                // What the client gave is given back, whatever the card was at.
                let rest = AssertUnwindSafe(|| {
                    card.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .disconnect();
                });
                if catch_unwind(rest).is_err() {
                    error!("the card does not let go of what its client gave");
                }
                report(&events, Event::Ended { id, error });
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}
