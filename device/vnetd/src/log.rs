// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What goes to standard error.

use std::io::Write;
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::{error, Level};
use tracing_subscriber::filter::LevelFilter;
use vnet_card::Limit;

use crate::error::Error;
use crate::journal::{self, Journal, Record};
use crate::out::Out;

/// Most characters of a panic's message that are logged. Some carry what a client sent.
const MAX_MESSAGE: usize = 160;

/// Sends records of this level and above to standard error.
pub(crate) fn start(level: LevelFilter) {
    // Of a log that nobody reads there is nobody to tell, either; who tries all the same panics.
    let format = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false);
    match journal::is_there() {
        true => {
            let format = format.with_writer(Journal).with_ansi(false);
            format.with_level(false).without_time().init();
        }
        false => format.with_writer(|| Out).init(),
    }
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

/// Says why the program ends.
pub(crate) fn last_words(error: &Error) {
    let text = format!("vnetd: {error}\n");
    let written = match journal::is_there() {
        true => Record::new(Level::ERROR).write_all(text.as_bytes()),
        false => Out.write_all(text.as_bytes()),
    };
    // There is nobody left to tell.
    drop(written);
}

/// Where and why, in one line.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or_default();
    let line = message.lines().next().unwrap_or_default();
    let short: String = line.chars().take(MAX_MESSAGE).collect();
    format!("panic at {place}: {short}")
}
