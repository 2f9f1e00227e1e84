// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What goes to standard error.

use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::error;
use tracing_subscriber::filter::LevelFilter;
use vnet_card::Limit;

/// Most characters of a panic's message that are logged. Some carry what a client sent.
const MAX_MESSAGE: usize = 160;

/// Sends records of this level and above to standard error.
pub(crate) fn start(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .init();
    // Records of `log` come from the vfio_user crate, which writes one for every message that it
    // refuses. A client must not be able to fill the log.
    if level < LevelFilter::DEBUG {
        ::log::set_max_level(::log::LevelFilter::Off);
    }
    // A panic ends no more than a session or a queue pair, and a client can cause some at will.
    let limit = Mutex::new(Limit::new(Instant::now()));
    panic::set_hook(Box::new(move |info| {
        let permit = limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .permit(Instant::now());
        if permit.is_some() {
            error!("{}", describe(info));
        }
    }));
}

/// Where and why, in one line.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or_default();
    let line = message.lines().next().unwrap_or_default();
    let short: String = line.chars().take(MAX_MESSAGE).collect();
    format!("panic at {place}: {short}")
}
