// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The vnet device server: one card on one socket.
//!
//! What is wrong is said in one line on standard error, and the exit status is 1; for bad
//! arguments it is 2. It is 3 if all that is wrong is that the driver broke rules.

#![forbid(unsafe_code)]

mod args;
mod end;
mod error;
mod faults;
mod holder;
mod limits;
mod line;
mod log;
mod mac;
mod net;
mod sanitize;
mod server;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::error::Error;

/// Exit status if the driver broke rules, and that matters.
const RULES_BROKEN: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    log::start(args.log);
    let result = match (args.worker, args.survive) {
        (true, _) => worker::run(&args).map(|()| 0),
        (false, true) => holder::run(&args),
        (false, false) => server::run(&args).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("vnetd: {e}");
            match e {
                Error::Rules(_) => ExitCode::from(RULES_BROKEN),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
