// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The vnet device server: any number of cards, each on a socket of its own.
//!
//! What is wrong is said in one line on standard error, and the exit status is 1; for bad
//! arguments it is 2. It is 3 if all that is wrong is that the driver broke rules.

#![forbid(unsafe_code)]

mod args;
mod capture;
mod card;
mod cards;
mod clients;
mod config;
mod control;
mod decode;
mod employee;
mod end;
mod error;
mod faults;
mod holder;
mod journal;
mod limits;
mod line;
mod live;
mod log;
mod mac;
mod metrics;
mod name;
mod net;
mod opened;
mod out;
mod pages;
mod program;
mod sandbox;
mod sanitize;
mod scrape;
mod server;
mod settings;
mod sheet;
mod steer;
mod step;
mod switches;
mod systemd;
mod taps;
mod token;
mod views;
mod web;
mod without;
mod words;
mod worker;

use std::mem::take;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Cli, Command};
use crate::config::Config;
use crate::error::Error;
use crate::sandbox::Sandbox;
use crate::server::Ports;

/// Exit status if the driver broke rules, and that matters.
const RULES_BROKEN: u8 = 3;

fn main() -> ExitCode {
    systemd::take_sockets();
    let _flushed = out::Flushed;
    match run(Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            log::last_words(&e);
            match e {
                Error::Rules(_) => ExitCode::from(RULES_BROKEN),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Does what the arguments ask for, and returns the exit status.
fn run(cli: Cli) -> Result<u8, Error> {
    match cli.command {
        Some(Command::Check { file }) => {
            check(&config::load(&file)?);
            return Ok(0);
        }
        Some(Command::Completion { shell }) => return pages::completion(shell).map(|()| 0),
        Some(Command::Man { directory }) => return pages::man(&directory).map(|()| 0),
        None => {}
    }
    let mut file = cli.config.as_deref().map(config::load).transpose()?;
    let given = Ports {
        control: cli.control,
        metrics: cli.metrics,
        web: cli.web,
    };
    let sandbox = Sandbox {
        mode: cli.sandbox,
        allow: cli.allow,
    };
    if let Some(file) = &mut file {
        file.sandbox = sandbox.clone().or(take(&mut file.sandbox));
        file.ports = given.clone().or(take(&mut file.ports));
    }
    let level = cli.log.or(file.as_ref().and_then(|file| file.log));
    log::start(level.unwrap_or(LevelFilter::WARN));
    limits::leave_guests_out_of_cores();
    match (file, cli.card) {
        (Some(config), _) => server::run(config).map(|()| 0),
        (None, Some(card)) => match (cli.worker, cli.survive) {
            (true, _) => worker::run(&card, sandbox).map(|()| 0),
            (false, true) => holder::run(&card),
            (false, false) => server::run_one(card, &given, sandbox).map(|()| 0),
        },
        // The definition of the arguments asks for one of them.
        (None, None) => Ok(0),
    }
}

/// Says what there would be.
fn check(config: &Config) {
    for card in &config.cards {
        let (name, socket) = (card.name(), card.socket.display());
        println!("card {name}: {socket}, {}", card.net);
    }
}
