// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A page that shows the cards at work.
//!
//! One thread serves it. What waits for a card, to look at it or to steer it, happens on others, few in
//! number, so that a card which hangs takes nothing of the page with it but its own picture. Nothing is
//! looked at while nobody looks, and whoever looks is never waited for: pictures are taken once for all,
//! and those that a viewer does not take in time are left out.
//!
//! The page is for whoever has the token, which is part of every path. What can be done with it is to
//! pause, step and resume.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{poll_fn, Future};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{watch, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;
use vnet_control::{Answer, Class, Command, Error as Refusal, Request as Call, MAX_REQUEST};

use crate::clients::Clients;
use crate::error::Error;
use crate::live::Live;
use crate::sandbox::serve_here;
use crate::server::SharedCards;
use crate::steer::Step;
use crate::token::Token;
use crate::views::Views;
use crate::{sheet, steer, systemd};

const PAGE: &str = include_str!("../web/index.html");
const SCRIPT: &str = include_str!("../web/page.js");
const STYLE: &str = include_str!("../web/style.css");

/// Time between two pictures.
const INTERVAL: Duration = Duration::from_millis(200);
/// Connections at a time. For one more, the oldest goes that has not shown the token.
const MAX_CLIENTS: usize = 32;
/// Those of them that look.
const MAX_VIEWERS: usize = 8;
/// Commands at a time.
const MAX_COMMANDS: usize = 4;
/// Bytes of the head of a request.
const MAX_HEAD: usize = 16 * 1024;
/// How long a request may take, with its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a viewer may take for one picture.
const STALL: Duration = Duration::from_secs(20);
/// Pause when the system is out of descriptors.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Where the page is to be, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Web {
    /// Address of a page that shows the cards at work, such as 127.0.0.1:8000. Its URL, with a token
    /// that nobody can guess, is logged; see docs/vnetd.md
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) web: Option<SocketAddr>,

    /// File with the token, to have the same after a restart; made with a random one if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) web_token: Option<PathBuf>,

    /// Let --web be an address that others than the programs of this machine can reach. Nothing is
    /// encrypted, neither the page nor the token
    #[arg(long)]
    pub(crate) web_public: bool,
}

impl Web {
    /// What this does not say, another does.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            web: self.web.or(other.web),
            web_token: self.web_token.or(other.web_token),
            web_public: self.web_public || other.web_public,
        }
    }
}

/// What the page is about.
struct Site {
    token: Token,
    cards: SharedCards,
    views: Views,
    /// Cards that somebody looks at, with where their pictures come from.
    looks: Mutex<HashMap<String, watch::Sender<Bytes>>>,
    viewers: Arc<Semaphore>,
    commands: Arc<Semaphore>,
}

/// Serves the page from now on, if it is wanted, as long as the process lives.
pub(crate) fn start(web: &Web, cards: &SharedCards, views: Views) -> Result<(), Error> {
    let Some(address) = web.web else {
        return Ok(());
    };
    let failed = |source| Error::Web { address, source };
    if !web.web_public && !address.ip().is_loopback() {
        let what = "others than this machine can reach that; web-public allows it";
        return Err(failed(io::Error::new(
            io::ErrorKind::PermissionDenied,
            what,
        )));
    }
    let token = match &web.web_token {
        None => Token::random().map_err(failed)?,
        Some(path) => Token::from_file(path).map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?,
    };
    let listener = match systemd::port(address) {
        Some(listener) => listener,
        None => TcpListener::bind(address).map_err(failed)?,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_VIEWERS + MAX_COMMANDS)
        .thread_name("vnet-web-look")
        .build()
        .map_err(failed)?;
    // For the time of this call, so that the listener finds it.
    let inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    drop(inside);
    let at = listener.local_addr().map_err(failed)?;
    // Not a warning, but without it nobody can see a page with a random token.
    warn!("web page at http://{at}/{}/", token.reveal());
    let site = Arc::new(Site {
        token,
        cards: Arc::clone(cards),
        views,
        looks: Mutex::default(),
        viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
        commands: Arc::new(Semaphore::new(MAX_COMMANDS)),
    });
    thread::Builder::new()
        .name("vnet-web".into())
        .spawn(move || {
            serve_here();
            runtime.block_on(serve(listener, site));
        })
        .map_err(Error::Thread)?;
    Ok(())
}

async fn serve(listener: tokio::net::TcpListener, site: Arc<Site>) {
    let mut clients = Clients::new(MAX_CLIENTS);
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let site = Arc::clone(&site);
                let serve = |known| client_of(client, site, known);
                clients.serve(serve).await;
            }
            Err(e) => {
                warn!("web: accepting a client: {e}");
                sleep(OUT_OF_RESOURCES).await;
            }
        }
    }
}

/// How long a connection may last.
struct Lease {
    /// They have the token.
    known: Arc<AtomicBool>,
    /// Somebody looks on: as long as they like.
    viewer: AtomicBool,
    /// They do not take what they are sent.
    stalled: Notify,
}

/// Answers one request.
async fn client_of(client: TcpStream, site: Arc<Site>, known: Arc<AtomicBool>) {
    let lease = Arc::new(Lease {
        known,
        viewer: AtomicBool::new(false),
        stalled: Notify::new(),
    });
    let inner = Arc::clone(&lease);
    let service = service_fn(move |request| {
        let (site, lease) = (Arc::clone(&site), Arc::clone(&inner));
        async move { Ok::<_, Infallible>(answer(request, &site, lease).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(client), service);
    let end = async {
        sleep(PATIENCE).await;
        if lease.viewer.load(Ordering::Relaxed) {
            lease.stalled.notified().await;
        }
    };
    // Whatever went wrong, it is over, and nobody's fault but the client's.
    first(async { drop(connection.await) }, end).await;
}

/// Waits for the first of two.
async fn first(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| {
        let one = one.as_mut().poll(context);
        if one.is_ready() {
            return Poll::Ready(());
        }
        other.as_mut().poll(context)
    })
    .await;
}

type Reply = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, site: &Arc<Site>, lease: Arc<Lease>) -> Reply {
    let path = request.uri().path();
    let page = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .filter(|(token, _)| site.token.is(token))
        .map(|(_, page)| page.to_owned());
    // Who does not have the token learns nothing of what there is.
    let Some(page) = page else {
        return refuse(StatusCode::NOT_FOUND);
    };
    lease.known.store(true, Ordering::Relaxed);
    let (get, post) = (
        request.method() == Method::GET,
        request.method() == Method::POST,
    );
    match page.as_str() {
        "" if get => text("text/html; charset=utf-8", PAGE),
        "page.js" if get => text("text/javascript; charset=utf-8", SCRIPT),
        "style.css" if get => text("text/css; charset=utf-8", STYLE),
        "datasheet" if get => text("text/html; charset=utf-8", sheet::page()),
        "events" if get => events(request.uri().query(), site, lease),
        "command" if post => command(request, site).await,
        "" | "page.js" | "style.css" | "datasheet" | "events" => not_allowed("GET"),
        "command" => not_allowed("POST"),
        _ => refuse(StatusCode::NOT_FOUND),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: BoxBody<Bytes, Infallible>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    // The address has the token in it.
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    reply
}

fn text(kind: &'static str, body: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, kind, Full::new(body.into()).boxed())
}

fn refuse(status: StatusCode) -> Reply {
    let what = status.canonical_reason().unwrap_or("refused");
    let body = Full::new(Bytes::from(format!("{what}\n"))).boxed();
    reply(status, "text/plain", body)
}

fn not_allowed(method: &'static str) -> Reply {
    let mut reply = refuse(StatusCode::METHOD_NOT_ALLOWED);
    let headers = reply.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(method));
    reply
}

/// A stream of pictures of all cards, and of one in full.
fn events(query: Option<&str>, site: &Arc<Site>, lease: Arc<Lease>) -> Reply {
    let Ok(permit) = Arc::clone(&site.viewers).try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    // Names of cards have nothing in them that a query has to hide.
    let named = query.and_then(|query| query.strip_prefix("card="));
    let card = match named.unwrap_or_default() {
        "" => first_card(site).unwrap_or_default(),
        name => name.into(),
    };
    let pictures = look(site, &card);
    lease.viewer.store(true, Ordering::Relaxed);
    let (sender, body) = Channel::new(1);
    tokio::spawn(show(pictures, sender, lease, permit));
    reply(StatusCode::OK, "text/event-stream", body.boxed())
}

/// Sends pictures to a viewer, the latest that there is each time.
async fn show(
    mut pictures: watch::Receiver<Bytes>,
    mut sender: Sender<Bytes, Infallible>,
    lease: Arc<Lease>,
    _permit: OwnedSemaphorePermit,
) {
    // Ends when there are no more pictures, or nobody is there to see them.
    while pictures.changed().await.is_ok() {
        let picture = pictures.borrow_and_update().clone();
        match timeout(STALL, sender.send_data(picture)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                lease.stalled.notify_one();
                return;
            }
        }
    }
}

/// The card that somebody sees who names none. By its name, so that all who look at it look together.
fn first_card(site: &Site) -> Option<String> {
    Some(site.views.load().first()?.name.to_string())
}

/// The pictures of a card, which are taken from now on if they were not before.
fn look(site: &Arc<Site>, card: &str) -> watch::Receiver<Bytes> {
    let mut looks = site.looks.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pictures) = looks.get(card) {
        return pictures.subscribe();
    }
    let (sender, receiver) = watch::channel(Bytes::new());
    looks.insert(card.into(), sender.clone());
    let live = Live::new(card.into(), Arc::clone(&site.views));
    tokio::spawn(take_pictures(Arc::clone(site), card.into(), sender, live));
    receiver
}

async fn take_pictures(
    site: Arc<Site>,
    card: String,
    pictures: watch::Sender<Bytes>,
    mut live: Live,
) {
    loop {
        let taken = spawn_blocking(move || {
            let picture = live.picture();
            (live, picture)
        });
        // A look that panicked, and is in the log, is the last one.
        let Ok((again, picture)) = taken.await else {
            forget(&site, &card, true);
            return;
        };
        live = again;
        pictures.send_replace(Bytes::from(format!("data: {picture}\n\n")));
        sleep(INTERVAL).await;
        // Who saw that there is no card connects anew, and sees the first.
        let late = card.is_empty() && first_card(&site).is_some();
        if forget(&site, &card, late) {
            return;
        }
    }
}

/// Looks no more at a card that nobody sees, or in `any` case. False: somebody does see it.
fn forget(site: &Site, card: &str, any: bool) -> bool {
    let mut looks = site.looks.lock().unwrap_or_else(PoisonError::into_inner);
    let over = any || looks.get(card).is_none_or(|p| p.receiver_count() == 0);
    if over {
        looks.remove(card);
    }
    over
}

/// Pauses, steps or resumes.
async fn command(request: Request<Incoming>, site: &Arc<Site>) -> Reply {
    let body = Limited::new(request.into_body(), MAX_REQUEST);
    let Ok(body) = body.collect().await else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    let Ok(permit) = Arc::clone(&site.commands).try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let body = body.to_bytes();
    let cards = Arc::clone(&site.cards);
    let done = spawn_blocking(move || {
        let _permit = permit;
        execute(&body, &cards)
    });
    let answer = done.await.unwrap_or_else(|_| {
        let refusal = Refusal::new(Class::Internal, "internal error, see the log");
        Answer::new(Err(refusal), None)
    });
    text("application/json", answer.line())
}

/// Does what a request asks for that could also have come by the control socket.
fn execute(line: &[u8], cards: &SharedCards) -> Answer {
    let call = match Call::parse(line) {
        Ok(call) => call,
        Err(refusal) => return Answer::new(Err(refusal), None),
    };
    let done = call.command().and_then(|command| match command {
        Command::CardPause(_) | Command::CardStep(_) | Command::CardResume(_) => {
            match steer::execute(command, cards, None, || ()) {
                Step::Over(done) => done,
                Step::Later(_) => Err(Refusal::new(Class::Internal, "not at once")),
            }
        }
        _ => {
            let desc = "the page can pause, step and resume; vnetctl can do more";
            Err(Refusal::new(Class::UnknownCommand, desc))
        }
    });
    Answer::new(done, call.id)
}
