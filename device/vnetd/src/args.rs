// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::filter::LevelFilter;
use vnet_contract::pci::MAX_QUEUE_PAIRS;

use crate::mac::Mac;
use crate::name::Name;
use crate::net::Net;
use crate::sandbox;
use crate::sanitize::Mode;
use crate::scrape::Place;
use crate::web::Web;
use crate::without::{self, Without};

/// Serves vnet network cards to virtual machines.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) card: Option<Args>,

    /// File that describes any number of cards, instead of one by arguments; see docs/vnetd.md
    #[arg(long, value_name = "FILE", conflicts_with = "Args")]
    pub(crate) config: Option<PathBuf>,

    /// Socket on which vnetctl, and others, steer the cards; see docs/vnetd.md
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Where Prometheus finds metrics: ADDRESS:PORT, which only this machine can reach, or unix:PATH
    #[arg(long, value_name = "PLACE")]
    pub(crate) metrics: Option<Place>,

    #[command(flatten)]
    pub(crate) web: Web,

    /// Whether the program gives up what it does not need of the system; see docs/trust.md [default: on]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) sandbox: Option<sandbox::Mode>,

    /// Directory, or file, that the sandbox leaves to the program beside those of its cards: for cards
    /// and backends that come later. More than one can be given
    #[arg(long, value_name = "PATH")]
    pub(crate) allow: Vec<PathBuf>,

    /// Outlive the death of the process that serves the card: another one goes on, and the guest
    /// does not notice. SIGUSR2 has a new version of the program take over. For one card that is
    /// described by arguments
    #[arg(long, conflicts_with_all = ["config", "control", "metrics", "web"])]
    pub(crate) survive: bool,

    /// Serve the card for a process that outlives this one, which is standard input
    #[arg(long, hide = true, conflicts_with = "config")]
    pub(crate) worker: bool,

    /// What to log on standard error: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<LevelFilter>,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads a configuration, says what is wrong with it, and serves nothing
    Check {
        /// The configuration
        file: PathBuf,
    },

    /// Print a script that has a shell complete arguments
    Completion {
        /// Which shell
        shell: Shell,
    },

    /// Write manual pages
    Man {
        /// Directory to write them to
        directory: PathBuf,
    },
}

/// One card: arguments of the program, or a table of a configuration.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the card in the log and for vnetctl [default: that of the socket]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// Socket to listen on; the virtual machine's vfio-user device connects to it
    #[arg(
        long,
        value_name = "PATH",
        required = false,
        required_unless_present = "config"
    )]
    pub(crate) socket: PathBuf,

    /// What the card is connected to
    #[arg(long, value_name = "BACKEND", default_value = "gateway", long_help = Net::HELP)]
    pub(crate) net: Net,

    /// A line between the card and that, with a rate, delay and losses: rate=100M,delay=10ms,
    /// jitter=2ms,loss=0.1%,duplicate=0.1%,reorder=0.1%,seed=7, or some of these; send. or receive.
    /// before an option makes it one for that direction
    #[arg(long, value_name = "LINE")]
    pub(crate) shape: Option<vnet_shape::Config>,

    /// Files that all frames are written to, in pcapng: file=PATH,size=64M,files=8,snaplen=96,queue=tx,
    /// where the file may stand alone. Each is called PATH with a number, has so many bytes, and so many
    /// are kept; see docs/capture.md
    #[arg(long, value_name = "FILES")]
    pub(crate) record: Option<vnet_record::Config>,

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

    /// Features of the data sheet, section 5, that the card does not offer, nor what needs them: a
    /// driver has to work without each of them
    #[arg(long, value_name = "FEATURE,...", value_delimiter = ',', ignore_case = true,
          value_parser = without::parser())]
    pub(crate) without: Vec<Without>,

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
}

impl Args {
    /// What the card is called.
    pub(crate) fn name(&self) -> Name {
        self.name
            .clone()
            .unwrap_or_else(|| Name::for_socket(&self.socket))
    }

    /// What the files of its record are called, if there are any.
    pub(crate) fn files(&self) -> Option<PathBuf> {
        std::path::absolute(&self.record.as_ref()?.file).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::CommandFactory;
    use vnet_contract::features::{RSS, TX_USO};

    fn parse(args: &[&str]) -> Result<Cli, ErrorKind> {
        let all = ["vnetd", "--socket", "s"].iter().chain(args);
        Cli::try_parse_from(all).map_err(|e| e.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let cli = parse(&[]).unwrap();
        assert!(cli.log.is_none() && cli.config.is_none());
        let args = cli.card.unwrap();
        assert_eq!(args.name().as_str(), "s");
        assert_eq!((args.queues, args.mtu_max), (1, 9000));
        assert_eq!((args.poll_us, args.tx_timer_us), (200, 50));
        assert_eq!((args.net, args.mac), (Net::Gateway(Box::default()), None));
        assert_eq!(args.faults, None);
        assert!(args.without.is_empty());
        assert_eq!((args.sanitize, args.sanitize_patience), (Mode::Off, 10));
    }

    #[test]
    fn features_are_named_as_in_the_data_sheet() {
        let cli = parse(&["--without", "RSS,tx_uso", "--without", "all"]);
        let args = cli.unwrap().card.unwrap();
        let bits = args.without.iter().map(|w| w.0).collect::<Vec<_>>();
        assert_eq!(bits, [RSS, TX_USO, vnet_card::IMPLEMENTED]);
        // The second is not something that this card has.
        for bad in ["WINGS", "RSS,TIMESTAMP"] {
            let error = parse(&["--without", bad]).unwrap_err();
            assert_eq!(error, ErrorKind::InvalidValue, "{bad}");
        }
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
            &["--metrics", "0.0.0.0:9468"],
            &["--web", "8000"],
        ] {
            assert_eq!(
                parse(bad).unwrap_err(),
                ErrorKind::ValueValidation,
                "{bad:?}"
            );
        }
        for no_socket in [&["vnetd"][..], &["vnetd", "--net", "null"]] {
            let refused = Cli::try_parse_from(no_socket).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument);
        }
    }

    #[test]
    fn one_card_or_a_file() {
        let cli = Cli::try_parse_from(["vnetd", "--config", "f", "--log", "info"]).unwrap();
        assert!(cli.card.is_none() && cli.config.is_some());
        for both in [&["--config", "f"][..], &["--config", "f", "--survive"]] {
            assert_eq!(parse(both).unwrap_err(), ErrorKind::ArgumentConflict);
        }
        let survive = Cli::try_parse_from(["vnetd", "--config", "f", "--survive"]).unwrap_err();
        assert_eq!(survive.kind(), ErrorKind::ArgumentConflict);
        let check = Cli::try_parse_from(["vnetd", "check", "f"]).unwrap();
        assert!(check.command.is_some() && check.card.is_none());
    }
}
