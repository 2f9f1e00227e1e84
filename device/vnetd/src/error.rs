// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why the server stopped. Each message is one line for the user.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::name::Name;
use crate::scrape::Place;

/// Why the server stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("backend {net}: {source}")]
    Backend {
        net: String,
        source: vnet_backend::Error,
    },
    #[error("card: {0}")]
    Unmade(vnet_card::Error),
    #[error("card {name}: {error}")]
    Card { name: Name, error: Box<Error> },
    #[error("backend {net}: {source}")]
    Refused {
        net: String,
        source: vnet_card::Error,
    },
    #[error("metrics at {place}: {source}")]
    Metrics { place: Place, source: io::Error },
    #[error("web page at {address}: {source}")]
    Web {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("control {0}")]
    Control(vnet_session::Error),
    #[error("there is a card {0} already")]
    Exists(Name),
    #[error("the card {0} has the same record, and would remove its files")]
    Recorded(Name),
    #[error("there are as many cards as there can be, {most}", most = crate::config::MAX_CARDS)]
    TooMany,
    #[error("capture: {0}")]
    Capture(vnet_capture::BadCapture),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("output: {0}")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Faults(#[from] crate::faults::Error),
    #[error(transparent)]
    Session(#[from] vnet_session::Error),
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    #[error("keeping the card alive: {0}")]
    Holder(#[source] io::Error),
    #[error("the process that serves the card dies as soon as it is started")]
    Hopeless,
    #[error(transparent)]
    State(#[from] vnet_state::Error),
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("internal error: the message thread panicked")]
    Panicked,
    #[error("the driver broke rules {0} times")]
    Rules(u64),
    #[error("the card does not come to rest; ending all the same")]
    Stuck,
}
