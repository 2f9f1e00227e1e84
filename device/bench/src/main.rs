// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The command line of vnet-bench; see the library for what it does.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use vnet_bench::{
    account::Watched,
    control,
    error::{Context, Result},
    measure::{Metric, Setup},
    report,
    sample::Sample,
    server,
};

/// Measures a NIC of a guest against its host.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the peer, on the host
    Serve {
        /// A process of the set-up; repeatable
        #[arg(long, value_name = "NAME=PID")]
        watch: Vec<Watched>,
    },
    /// Take a sample, in the guest
    Measure {
        /// What to measure
        metric: Metric,
        /// The host's address on the other side of the NIC
        #[arg(long)]
        server: IpAddr,
        /// The guest's interface
        #[arg(long)]
        interface: String,
        /// The host's interface
        #[arg(long)]
        host_interface: String,
        /// What to call the NIC
        #[arg(long)]
        nic: String,
        /// CPUs of the guest, for the record
        #[arg(long, default_value_t = 1)]
        smp: u32,
        /// The round, for the record
        #[arg(long, default_value_t = 1)]
        repeat: u32,
        /// How long
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Do not switch the link on and off: it is on
        #[arg(long)]
        keep_link: bool,
    },
    /// Make the report of all samples
    Report(report::Args),
    /// List the metrics
    Metrics,
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve { watch } => {
            let listener =
                TcpListener::bind(("0.0.0.0", control::PORT)).context("listen for the guest")?;
            server::Server::new(watch).run(&listener)?;
        }
        Command::Measure {
            metric,
            server,
            interface,
            host_interface,
            nic,
            smp,
            repeat,
            seconds,
            keep_link,
        } => {
            let setup = Setup {
                server: SocketAddr::new(server, control::PORT),
                interface,
                host_interface,
                time: Duration::from_secs_f64(seconds),
                keep_link,
            };
            let mut sample = Sample {
                metric: name_of(metric),
                nic,
                smp,
                repeat,
                ..Sample::default()
            };
            if let Err(error) = setup.measure(metric, &mut sample) {
                sample.error = Some(error.to_string());
            }
            println!("{}", serde_json::to_string(&sample)?);
            if sample.error.is_some() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Report(args) => return report::make(&args),
        Command::Metrics => {
            for metric in <Metric as clap::ValueEnum>::value_variants() {
                println!("{}", name_of(*metric));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn name_of(metric: Metric) -> String {
    clap::ValueEnum::to_possible_value(&metric)
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vnet-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
