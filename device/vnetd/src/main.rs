// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The vnet device server: one card on one socket.
//!
//! What is wrong is said in one line on standard error, and the exit status is 1; for bad
//! arguments it is 2.

#![forbid(unsafe_code)]

mod args;
mod error;
mod mac;
mod net;
mod server;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    start_log(args.log);
    match server::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vnetd: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .init();
    // Records of `log` come from the vfio_user crate, which writes one for every message that it
    // refuses. A client must not be able to fill the log.
    if level < LevelFilter::DEBUG {
        log::set_max_level(log::LevelFilter::Off);
    }
}
