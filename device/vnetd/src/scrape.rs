// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The socket on which Prometheus asks for metrics, by HTTP. Anybody on this machine can ask on a
//! port, so none may cost more than a thread's patience.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use vnet_session::Socket;

use crate::clients::Clients;
use crate::error::Error;
use crate::metrics::registry;
use crate::sandbox::serve_here;
use crate::systemd;
use crate::views::Views;

/// Clients at a time. For one more, the oldest goes.
const MAX_CLIENTS: usize = 8;
/// How long one may take, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request.
const MAX_REQUEST: usize = 8 * 1024;
/// Pause when the system is out of descriptors.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);
/// What the text is.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A port of this machine, for this machine.
    Port(SocketAddr),
    /// A socket for the user that runs the program.
    Path(PathBuf),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path"),
            Some(path) => Ok(Self::Path(path.into())),
            None => match s.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => Ok(Self::Port(address)),
                Ok(_) => Err("only loopback addresses: whoever reaches the port may read"),
                Err(_) => Err("ADDRESS:PORT or unix:PATH is needed"),
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Listener {
    Port(tokio::net::TcpListener),
    Path(tokio::net::UnixListener),
}

/// Answers there with the metrics of these cards. A path goes with what is returned.
pub(crate) fn start(place: &Place, views: Views) -> Result<Option<Socket>, Error> {
    let failed = |source| Error::Metrics {
        place: place.clone(),
        source,
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    // For the time of this call, so that the listeners find it.
    let inside = runtime.enter();
    let (listener, socket) = match place {
        Place::Port(address) => {
            let listener = match systemd::port(*address) {
                Some(listener) => listener,
                None => TcpListener::bind(address).map_err(failed)?,
            };
            info!(
                "metrics at http://{}/metrics",
                listener.local_addr().map_err(failed)?
            );
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            (Listener::Port(listener), None)
        }
        Place::Path(path) => {
            let socket = systemd::socket(path, Socket::bind_private).map_err(Error::Control)?;
            let listener = socket.listener().map_err(failed)?;
            let listener = tokio::net::UnixListener::from_std(listener.into()).map_err(failed)?;
            info!("metrics at {place}");
            (Listener::Path(listener), Some(socket))
        }
    };
    drop(inside);
    let registry = Arc::new(registry(views));
    thread::Builder::new()
        .name("vnet-metrics".into())
        .spawn(move || {
            serve_here();
            runtime.block_on(serve(listener, registry));
        })
        .map_err(Error::Thread)?;
    Ok(socket)
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn serve(listener: Listener, registry: Arc<Registry>) {
    let mut clients = Clients::new(MAX_CLIENTS);
    loop {
        let registry = Arc::clone(&registry);
        let accepted: io::Result<Serving> = match &listener {
            Listener::Port(listener) => listener
                .accept()
                .await
                .map(|(client, _)| Box::pin(client_of(client, registry)) as _),
            Listener::Path(listener) => listener
                .accept()
                .await
                .map(|(client, _)| Box::pin(client_of(client, registry)) as _),
        };
        match accepted {
            Ok(serving) => clients.serve(|_| serving).await,
            Err(e) => {
                warn!("metrics: accepting a client: {e}");
                sleep(OUT_OF_RESOURCES).await;
            }
        }
    }
}

/// Answers one request.
async fn client_of<S>(client: S, registry: Arc<Registry>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(&request, &registry);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(client), service);
    // Whatever went wrong, it is over, and nobody's fault but the client's.
    let _ = timeout(PATIENCE, connection).await;
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut text = String::new();
            if encode(&mut text, registry).is_err() {
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
            let mut response = Response::new(Full::from(text));
            let format = hyper::header::HeaderValue::from_static(FORMAT);
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "see /metrics\n"),
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn only_this_machine_may_ask() {
        for good in ["127.0.0.1:9468", "[::1]:0", "unix:/run/vnetd/metrics.sock"] {
            assert_eq!(good.parse::<Place>().unwrap().to_string(), good);
        }
        for bad in ["", "9468", "0.0.0.0:9468", "[::]:1", "unix:", "localhost:1"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn those_who_say_nothing_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let silent = || -> Vec<_> { (0..40).map(|_| TcpStream::connect(at).unwrap()).collect() };
        let before = silent();
        let mut client = TcpStream::connect(at).unwrap();
        client
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        let after = silent();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(Listener::Port(listener), Arc::default()).await;
            });
        });
        // Those before it could have stayed for longer, one after the other.
        client.set_read_timeout(Some(3 * PATIENCE)).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        drop((before, after));
    }
}
