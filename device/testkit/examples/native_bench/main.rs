// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The device server without a guest, as fast as it goes: `scripts/bench --native` runs this.
//!
//! A row is a direction as the guest sees it, a backend, a frame size and a number of queue pairs.
//! Each is measured several times, and the median counts. Beside the card stand the limit, which is
//! a plain copy of the same frames on the same core, and DPDK's vhost-user port. With one queue
//! pair the server has one core to itself, and the driver another; so has either side of DPDK.
//!
//! A table goes to standard output and, with `--json`, the same to a file.

mod card;
mod cpu;
mod dpdk;
mod memcpy;
mod report;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::report::Report;

const USAGE: &str = "\
usage: native_bench [--seconds S] [--repeat N] [--only TEXT] [--tap NAME --feed ADDRESS:PORT]
                    [--dpdk 'TESTPMD ARGUMENT...'] [--json FILE]";

/// What the command line says.
pub(crate) struct Options {
    /// Length of a sample.
    pub(crate) time: Duration,
    /// Samples of a row.
    pub(crate) repeat: usize,
    /// Only rows whose name contains this.
    only: String,
    /// A TAP interface that exists, for several queues.
    tap: Option<String>,
    /// Where datagrams go that are to be received from the TAP.
    feed: Option<String>,
    /// How testpmd is started.
    dpdk: Option<String>,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            time: Duration::from_secs(2),
            repeat: 3,
            only: String::new(),
            tap: None,
            feed: None,
            dpdk: None,
            json: None,
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or(format!("{name} needs a value"))?;
            let number = || match value.parse::<u16>() {
                Ok(n @ 1..) => Ok(n),
                _ => Err(format!("{name}: not a number: {value}")),
            };
            match name.as_str() {
                "--seconds" => options.time = Duration::from_secs(number()?.into()),
                "--repeat" => options.repeat = number()?.into(),
                "--only" => options.only = value,
                "--tap" => options.tap = Some(value),
                "--feed" => options.feed = Some(value),
                "--dpdk" => options.dpdk = Some(value),
                "--json" => options.json = Some(value.into()),
                _ => return Err(format!("unknown argument: {name}")),
            }
        }
        Ok(options)
    }

    /// True if this row is to be measured.
    fn wants(&self, row: &str) -> bool {
        row.contains(&self.only)
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The guest sends.
    Tx,
    /// The guest receives.
    Rx,
    /// What it sends comes back.
    Both,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Both => "both",
        }
    }
}

/// Frame sizes, without frame check sequence. The largest leaves the card's header room in 64 KiB.
const SIZES: [u32; 3] = [64, 1514, 65_524];

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut report = Report::new();
    for size in SIZES {
        for copy in memcpy::COPIES {
            if options.wants(&format!("memcpy {copy} {size}")) {
                let samples = (0..options.repeat).map(|_| memcpy::sample(copy, size, options.time));
                report.add("memcpy", copy, size, 1, samples.collect());
            }
        }
    }
    let tap = options.tap.as_ref().map(|name| format!("tap:name={name}"));
    for queues in [1, 2] {
        for size in SIZES {
            let mut rows = vec![
                ("null", Direction::Tx, "null".to_owned()),
                ("null-copy", Direction::Tx, "null:copy".to_owned()),
                ("null", Direction::Rx, format!("null:rx={size}")),
                ("loopback", Direction::Both, "loopback".to_owned()),
            ];
            if let Some(tap) = &tap {
                rows.push(("tap", Direction::Tx, tap.clone()));
                rows.push(("tap", Direction::Rx, tap.clone()));
            }
            for (backend, direction, net) in rows {
                let name = format!("{} {backend} {size} {queues}", direction.name());
                if !options.wants(&name) {
                    continue;
                }
                let feed = match (backend, direction) {
                    ("tap", Direction::Rx) => options.feed.as_deref(),
                    _ => None,
                };
                let samples = card::samples(options, &net, direction, size, queues, feed)?;
                report.add(direction.name(), backend, size, queues, samples);
            }
        }
    }
    if let Some(testpmd) = &options.dpdk {
        for size in [64, 1514] {
            for direction in [Direction::Tx, Direction::Rx] {
                if options.wants(&format!("{} dpdk {size} 1", direction.name())) {
                    let samples = dpdk::samples(options, testpmd, direction, size)?;
                    report.add(direction.name(), "dpdk", size, 1, samples);
                }
            }
        }
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("native_bench: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("native_bench: {e}");
            ExitCode::FAILURE
        }
    }
}
