// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Steers the cards of a vnetd that runs.
//!
//! What is wrong is said in one line on standard error, and the exit status is 1; for bad arguments
//! it is 2.

#![forbid(unsafe_code)]

mod args;
mod capture;
mod run;
mod show;
mod table;
mod top;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    match run::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has had enough.
        Err(run::Error::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("vnetctl: {e}");
            ExitCode::FAILURE
        }
    }
}
