// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One card of those that the process serves: the card itself, its socket, and the thread that serves
//! its clients. Nothing is shared between cards, so what becomes of one is nothing to the others.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, Span};
use vnet_backend::Endpoint;
use vnet_card::{Card, Config, Operator, Options, Sanitizer};
use vnet_faults::{Faults, Faulty};
use vnet_record::Recorded;
use vnet_session::{ClientId, Control, Session, SharedCard, Socket};
use vnet_shape::Shaped;

use crate::args::Args;
use crate::capture::LastCapture;
use crate::end::{report, Event};
use crate::error::Error;
use crate::faults::FaultFile;
use crate::mac::Mac;
use crate::name::Name;
use crate::net::Net;
use crate::opened::Opened;
use crate::sandbox::{serve_here, served};
use crate::sanitize;
use crate::systemd;
use crate::views::{Beside, Counts, View};

/// How long a card that is removed may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the files of captures may take to be finished when their cards go.
pub(crate) const CAPTURE_PATIENCE: Duration = Duration::from_millis(500);

/// Tells cards apart, also those that had the same name one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u64);

/// A card that is served.
pub(crate) struct Served {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) args: Args,
    /// What it is connected to now. Changes when that has changed.
    pub(crate) net: Arc<Mutex<Net>>,
    /// What those between the card and the world count.
    pub(crate) beside: Beside,
    pub(crate) card: SharedCard,
    pub(crate) operator: Operator,
    /// The file that the faults came from, if they did.
    pub(crate) faults: Option<FaultFile>,
    /// The faults that it was made able to have later. Set when it is.
    pub(crate) late_faults: Arc<OnceLock<Arc<Faults>>>,
    pub(crate) sanitizer: Option<Arc<Sanitizer>>,
    /// The last capture, which may run.
    pub(crate) capture: LastCapture,
    /// Held a second time by a change that is under way.
    pub(crate) change: Arc<()>,
    /// Why nobody serves it any more, if that is so.
    pub(crate) failed: Option<String>,
    pub(crate) control: Control,
    /// Removes its path when the card goes.
    socket: Option<Socket>,
    /// Names it in the log.
    span: Span,
    /// Hangs up when the message thread has ended.
    thread: Receiver<()>,
}

impl Served {
    /// Sets a card up and serves it. Once its socket is there, it is ready. What ends it is sent to
    /// `events`.
    pub(crate) fn start(id: Id, args: Args, events: Sender<Event>) -> Result<Self, Error> {
        let faults = args.faults.clone().map(FaultFile::open).transpose()?;
        let mut counts = Counts::default();
        let endpoint = args.net.open(&args, &mut counts);
        let endpoint = endpoint.map_err(|e| unusable(&args, e))?;
        let endpoint = shaped(&args, endpoint, &mut counts, false);
        let card = card(&args, endpoint, faults.as_ref(), false)?;
        let sanitizer = card.sanitizer().cloned();
        let operator = card.operator();
        let card = Arc::new(Mutex::new(card));
        let socket = systemd::socket(&args.socket, Socket::bind)?;
        let fatal = events.clone();
        let session = Session::new(&socket, Arc::clone(&card), move |client, error| {
            let error = error.into();
            report(&fatal, Event::Useless { id, client, error });
        })?;
        let control = session.control();
        let thread = serve(id, session, Arc::clone(&card), events)?;
        info!("listening on {}", args.socket.display());
        Ok(Self {
            id,
            name: args.name(),
            net: Arc::new(Mutex::new(args.net.clone())),
            beside: Beside::new(counts),
            args,
            card,
            operator,
            faults,
            late_faults: Arc::default(),
            sanitizer,
            capture: LastCapture::default(),
            change: Arc::default(),
            failed: None,
            control,
            socket: Some(socket),
            span: Span::current(),
            thread,
        })
    }

    /// What the card is connected to now.
    pub(crate) fn net(&self) -> Net {
        self.net
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The card for those who look on.
    pub(crate) fn view(&self) -> View {
        View {
            name: self.name.clone(),
            socket: self.args.socket.clone(),
            net: Arc::clone(&self.net),
            beside: self.beside.clone(),
            operator: self.operator.clone(),
            control: self.control.clone(),
            failed: self.failed.is_some(),
        }
    }

    /// For lines of the log that are about the card.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The faults that the card can have, if it was made able to.
    pub(crate) fn faults_in_force(&self) -> Option<&Arc<Faults>> {
        let file = self.faults.as_ref().map(|file| &file.faults);
        file.or(self.late_faults.get())
    }

    /// Hangs up on this client, if it is still connected. The next one is served.
    pub(crate) fn hang_up(&self, client: ClientId) {
        self.control.hang_up(client);
    }

    /// Takes note that nobody serves the card any more.
    pub(crate) fn fail(&mut self, why: &Error) {
        self.failed = Some(why.to_string());
        self.stop();
    }

    /// Lets nobody connect any more, and has the message thread and the capture end. Returns the card.
    pub(crate) fn stop(&mut self) -> SharedCard {
        self.control.stop();
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
        if let Some(capture) = self.capture.get() {
            capture.stop(Duration::ZERO);
        }
        Arc::clone(&self.card)
    }

    /// Waits until the file of the capture is finished, but no longer than this.
    pub(crate) fn finish_capture(&self, until: Instant) {
        if let Some(capture) = self.capture.get() {
            capture.stop(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Says what its faults and its driver's mistakes came to.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        if let Some(file) = &self.faults {
            file.report();
        }
        let sanitizer = self.sanitizer.as_ref();
        sanitizer.map_or(Ok(()), |s| sanitize::verdict(self.args.sanitize, s))
    }

    /// Ends a card that was stopped, and all its threads. One that does not come to rest in time is left alone.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.finish_capture(Instant::now() + CAPTURE_PATIENCE);
        let (done, rested) = channel::<()>();
        let Self {
            card,
            thread,
            operator,
            ..
        } = self;
        // It holds on to the backend.
        drop(operator);
        thread::Builder::new()
            .name("vnet-removal".into())
            .spawn(move || {
                // Until the message thread has ended; nothing is ever sent.
                let _ = thread.recv();
                card.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .disconnect();
                // The last one that holds it, unless somebody is just looking at it.
                drop(card);
                drop(done);
            })
            .map_err(Error::Thread)?;
        match rested.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => Err(Error::Stuck),
            _ => Ok(()),
        }
    }
}

/// The card that the arguments describe, with this behind it, and with threads that can do no more than
/// serve.
pub(crate) fn card(
    args: &Args,
    endpoint: Box<dyn Endpoint>,
    faults: Option<&FaultFile>,
    taken_over: bool,
) -> Result<Card, Error> {
    let opened = Opened::new(endpoint, args.queues).map_err(|e| unusable(args, e))?;
    served(|| make(args, Box::new(opened), faults, taken_over)).map_err(Error::Thread)?
}

fn make(
    args: &Args,
    mut endpoint: Box<dyn Endpoint>,
    faults: Option<&FaultFile>,
    taken_over: bool,
) -> Result<Card, Error> {
    if let Some(file) = faults {
        endpoint = Box::new(Faulty::new(endpoint, Arc::clone(&file.faults)));
    }
    let mac = args.mac.unwrap_or_else(|| Mac::for_socket(&args.socket));
    let config = Config {
        mac: mac.0,
        queue_pairs: args.queues,
        max_mtu: args.mtu_max,
        withheld: args.without.iter().fold(0, |all, one| all | one.0),
        service: Options {
            poll: Duration::from_micros(args.poll_us.into()),
            tx_timer: Duration::from_micros(args.tx_timer_us.into()),
            taken_over,
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

/// A backend with what the arguments put before it: a line, and whoever writes down what the card sends there
/// and gets from there. `counts` has what there is of these then. `taken_over`: the card was there before.
pub(crate) fn shaped(
    args: &Args,
    mut endpoint: Box<dyn Endpoint>,
    counts: &mut Counts,
    taken_over: bool,
) -> Box<dyn Endpoint> {
    if let Some(shape) = args.shape {
        let shaped = Shaped::new(endpoint, shape);
        counts.shape = Some(shaped.counters());
        endpoint = Box::new(shaped);
    }
    if let Some(record) = &args.record {
        let name = args.name();
        let recorded = Recorded::new(endpoint, record.clone(), name.as_str(), taken_over);
        counts.record = Some(recorded.record());
        endpoint = Box::new(recorded);
    }
    endpoint
}

/// Names the backend that cannot be used.
pub(crate) fn unusable(args: &Args, source: vnet_backend::Error) -> Error {
    Error::Backend {
        net: args.net.to_string(),
        source,
    }
}

/// Starts the message thread. What it returns hangs up when the thread has ended.
fn serve(
    id: Id,
    mut session: Session,
    card: SharedCard,
    events: Sender<Event>,
) -> Result<Receiver<()>, Error> {
    let (alive, ended) = channel();
    let span = Span::current();
    thread::Builder::new()
        .name("vnet-session".into())
        .spawn(move || {
            let _span = span.entered();
            serve_here();
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
            drop((session, card, alive));
        })
        .map_err(Error::Thread)?;
    Ok(ended)
}
