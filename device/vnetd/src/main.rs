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
mod limits;
mod log;
mod mac;
mod net;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    log::start(args.log);
    match server::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vnetd: {e}");
            ExitCode::FAILURE
        }
    }
}
