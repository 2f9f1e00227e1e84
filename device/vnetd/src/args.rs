// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The command line.

use std::path::PathBuf;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;
use vnet_contract::pci::MAX_QUEUE_PAIRS;

use crate::mac::Mac;
use crate::net::Net;
use crate::sanitize::Mode;

/// Serves a vnet network card to a virtual machine.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Socket to listen on; the virtual machine's vfio-user device connects to it
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,

    /// What the card is connected to
    #[arg(long, value_name = "BACKEND", default_value = "gateway", long_help = Net::HELP)]
    pub(crate) net: Net,

    /// MAC address of the card [default: made from the path of the socket]
    #[arg(long)]
    pub(crate) mac: Option<Mac>,

    /// Number of queue pairs
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUE_PAIRS)))]
    pub(crate) queues: u16,

    /// Largest MTU that the driver may set
    #[arg(long, value_name = "BYTES", default_value_t = 9000,
          value_parser = clap::value_parser!(u16).range(1500..))]
    pub(crate) mtu_max: u16,

    /// Longest time that an idle queue goes on looking for work before it sleeps, in microseconds
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) poll_us: u16,

    /// How often a queue that sends one frame after the other is looked at, in microseconds, instead
    /// of by doorbell; 0: never
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) tx_timer_us: u16,

    /// Faults that the card is to have, as docs/faults.md describes; SIGHUP has the file read again
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// What to do about rules that the driver breaks; docs/rules.md has them all
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Off)]
    pub(crate) sanitize: Mode,

    /// How long a driver may put off what it must do before it counts as never done, in seconds
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) sanitize_patience: u16,

    /// Outlive the death of the process that serves the card: another one goes on, and the guest
    /// does not notice. SIGUSR2 has a new version of the program take over
    #[arg(long)]
    pub(crate) survive: bool,

    /// Serve the card for a process that outlives this one, which is standard input
    #[arg(long, hide = true)]
    pub(crate) worker: bool,

    /// What to log on standard error: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: LevelFilter,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Args, ErrorKind> {
        let all = ["vnetd", "--socket", "s"].iter().chain(args);
        Args::try_parse_from(all).map_err(|e| e.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.queues, args.mtu_max), (1, 9000));
        assert_eq!((args.poll_us, args.tx_timer_us), (200, 50));
        assert_eq!((args.net, args.mac), (Net::Gateway, None));
        assert_eq!(args.faults, None);
        assert_eq!((args.sanitize, args.sanitize_patience), (Mode::Off, 10));
        assert_eq!(args.log, LevelFilter::WARN);
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            &["--queues", "0"],
            &["--queues", "17"],
            &["--mtu-max", "1499"],
            &["--mtu-max", "65536"],
            &["--poll-us", "1001"],
            &["--log", "loud"],
            &["--sanitize-patience", "0"],
            &["--mac", "ff:ff:ff:ff:ff:ff"],
            &["--net", "carrier-pigeon"],
        ] {
            assert_eq!(
                parse(bad).unwrap_err(),
                ErrorKind::ValueValidation,
                "{bad:?}"
            );
        }
        let no_socket = Args::try_parse_from(["vnetd"]).unwrap_err();
        assert_eq!(no_socket.kind(), ErrorKind::MissingRequiredArgument);
    }
}
