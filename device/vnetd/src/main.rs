// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The vnet device server: one card on one socket.
//!
//! What is wrong is said in one line on standard error, and the exit status is 1; for bad
//! arguments it is 2.

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
mod server;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

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
            ExitCode::FAILURE
        }
    }
}
