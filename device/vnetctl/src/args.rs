// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Steers the cards of a vnetd that runs: what they do, what they are connected to, how they
/// misbehave.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Control socket of vnetd, as its --control or its configuration says
    #[arg(
        long,
        short,
        global = true,
        value_name = "PATH",
        env = "VNETD_CONTROL",
        default_value = "/run/vnetd/control.sock"
    )]
    pub(crate) socket: PathBuf,

    /// Print what vnetd answered as JSON, as docs/vnetd.md describes it
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List all cards
    #[command(visible_alias = "ls")]
    List,

    /// Show all that is known of a card
    Show {
        /// Name of the card
        card: String,
    },

    /// Show frames, bytes, drops, errors, doorbells and interrupts of each queue
    Counters {
        /// Name of the card; all if there is none
        card: Option<String>,
        /// Go on, with rates, every so many seconds
        #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
              value_parser = clap::value_parser!(u32).range(1..=3600))]
        watch: Option<u32>,
        /// With --watch: so many times
        #[arg(long, short = 'n', value_name = "TIMES", requires = "watch")]
        count: Option<u32>,
    },

    /// Watch the queues at work: rates, drops by reason, rings, and how long batches take
    ///
    /// On a terminal the view is drawn anew each time, as far as it has lines; else one comes after the
    /// other. From the first time on, vnetd times batches for as long as it runs.
    Top {
        /// Name of the card; all if there is none
        card: Option<String>,
        /// Every so many seconds
        #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = 1,
              value_parser = clap::value_parser!(u32).range(1..=3600))]
        every: u32,
        /// So many times
        #[arg(long, short = 'n', value_name = "TIMES")]
        count: Option<u32>,
        /// Once
        #[arg(long, conflicts_with = "count")]
        once: bool,
    },

    /// List the switches, and frames, bytes and drops of their ports
    Switches,

    /// Pull the cable of a card, plug it in again, or say how fast it is
    ///
    /// The guest sees it as its carrier. While the cable is pulled, frames are lost in both
    /// directions, and counted as drops.
    Link {
        /// Name of the card
        card: String,
        /// Whether there is a cable
        #[arg(required_unless_present = "speed")]
        state: Option<LinkState>,
        /// Speed to tell the guest, in Mbit/s; 0: what the backend says
        #[arg(long, value_name = "MBITS")]
        speed: Option<u32>,
    },

    /// Give a card another permanent MAC address
    ///
    /// The guest's driver reads it when it is loaded.
    Mac {
        /// Name of the card
        card: String,
        /// Six hexadecimal bytes with colons
        address: String,
    },

    /// Connect a card with something else, under traffic
    ///
    /// Frames that the guest has sent and nobody has taken yet go to the new backend. Frames that
    /// the old one still had for the guest are lost, and counted as drops.
    Backend {
        /// Name of the card
        card: String,
        /// As for --net of vnetd
        backend: String,
    },

    /// Add a card
    Add {
        /// Name of the card
        card: String,
        /// Settings as in the configuration file: socket=PATH, and net=, mac=, queues= and so on
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
    },

    /// Remove a card; its virtual machine loses it
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the card
        card: String,
    },

    /// Show how a card misbehaves, or have it do so
    Faults {
        /// Name of the card
        card: String,
        /// A line of a plan as docs/faults.md has them; repeat it for more
        #[arg(value_name = "FAULT", conflicts_with_all = ["file", "off"])]
        plan: Vec<String>,
        /// File with a plan
        #[arg(long, short, value_name = "FILE", conflicts_with = "off")]
        file: Option<PathBuf>,
        /// Have it behave
        #[arg(long)]
        off: bool,
    },

    /// List the rules that the driver of a card broke
    Rules {
        /// Name of the card
        card: String,
    },

    /// Write the frames of a card to a file, with what became of each: docs/capture.md
    ///
    /// In pcapng, which Wireshark and tshark read. Goes on until Ctrl-C, or until --count or --seconds
    /// are reached. The card does not wait for the file: what does not get there in time is counted.
    Capture(Capture),

    /// Make a trace of a capture that Perfetto opens
    ///
    /// Queues and threads are tracks, with a slice for each stage of a batch of frames, and arrows from the
    /// doorbell to the interrupt. Needs no vnetd.
    Timeline {
        /// A file of vnetctl capture
        capture: PathBuf,
        /// File to write, in the JSON format of Chrome's trace events
        trace: PathBuf,
    },

    /// Have a card, or one of its queues, stop where it is
    ///
    /// Frames wait until it is resumed or stepped. The guest goes on, and notices what a card that is
    /// very slow would have it notice. It stays so if the guest resets the card.
    Pause(OfQueue),

    /// Have a paused card do one step, and say what that was and what comes next
    ///
    /// A frame takes six: fetch, read, hand, use, decide, signal. Without a queue, the one is stepped
    /// that has most to do.
    Step {
        #[command(flatten)]
        of: OfQueue,
        /// So many steps
        #[arg(long, short = 'n', value_name = "STEPS", default_value_t = 1,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },

    /// Let a card, or one of its queues, run again
    Resume(OfQueue),

    /// Print a script that has a shell complete commands
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

/// A capture.
#[derive(Debug, clap::Args)]
pub(crate) struct Capture {
    /// Name of the card, and which of its queues: rx, tx, the number of a pair, or both as in
    /// nic0:tx0; all if there is none
    #[arg(value_name = "CARD[:QUEUE]")]
    pub(crate) card: String,
    /// File to write, which is emptied first; - for standard output
    #[arg(required_unless_present_any = ["stop", "show"])]
    pub(crate) file: Option<PathBuf>,
    /// Keep no more of each frame than this
    #[arg(long, short = 'l', value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) snaplen: Option<u32>,
    /// End after so many frames
    #[arg(long, short = 'n', value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after so much time
    #[arg(long, short = 't', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: Option<u32>,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) background: bool,
    /// End the capture of this card
    #[arg(long, conflicts_with_all = ["file", "show", "background", "snaplen", "count", "seconds"])]
    pub(crate) stop: bool,
    /// Say how far the capture of this card is
    #[arg(long, conflicts_with_all = ["file", "background", "snaplen", "count", "seconds"])]
    pub(crate) show: bool,
}

/// A card, or one of its queues.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OfQueue {
    /// Name of the card; with a colon and rx or tx and a number, that queue alone
    #[arg(value_name = "CARD[:QUEUE]")]
    pub(crate) place: String,
}

/// Whether there is a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkState {
    /// The link is what the backend's is
    Up,
    /// The cable is pulled
    Down,
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("KEY=VALUE is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn watching_has_a_usual_pace() {
        let watch = |args: &[&str]| {
            let all = ["vnetctl", "counters"].iter().chain(args);
            match Args::try_parse_from(all).map(|args| args.command) {
                Ok(Command::Counters { watch, .. }) => Ok(watch),
                _ => Err(()),
            }
        };
        assert_eq!(watch(&[]), Ok(None));
        assert_eq!(watch(&["vm1", "--watch"]), Ok(Some(1)));
        assert_eq!(watch(&["--watch", "5", "-n", "2"]), Ok(Some(5)));
        for bad in [&["--watch", "0"][..], &["-n", "2"]] {
            assert_eq!(watch(bad), Err(()), "{bad:?}");
        }
    }

    #[test]
    fn what_a_link_is_to_be_must_be_said() {
        let link = |args: &[&str]| {
            let all = ["vnetctl", "link", "a"].iter().chain(args);
            Args::try_parse_from(all).is_ok()
        };
        assert!(link(&["up"]) && link(&["down", "--speed", "10"]) && link(&["--speed", "10"]));
        assert!(!link(&[]) && !link(&["sideways"]));
    }
}
