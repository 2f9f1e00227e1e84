// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: made-up traffic for the card, and a receiver that measures what comes back of it.
//!
//! A generator is a station with an IPv4 address and a MAC address that answers ARP, and nothing else. It
//! sends the frames that its [`Config`] describes: ARP requests, ICMP echo requests, UDP datagrams and
//! TCP segments, of mixed sizes, at a pace. Which frames these are depends on the seed and on
//! nothing else; only the time in them differs from run to run.
//!
//! All but ARP bear a stamp: which generator made it, its number, and when. So it does not matter how
//! a frame gets back to a generator, this one or another: as the guest's answer to an echo request,
//! from a service that returns what it gets, or over a bridge or router in the guest. The receiver
//! says from the stamp what was lost on the way, what came twice, late or damaged, and how long it took
//! ([`Report`]). Clocks are those of one machine, so between two generators the time is
//! that of one way.
//!
//! Everything from the guest may be forged. That makes the counts wrong that are about the guest itself;
//! what is kept has a fixed size, and what a frame costs is bounded.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod counters;
mod frame;
mod generator;
mod latency;
mod pace;
mod plan;
mod receiver;
mod stamp;
mod track;

pub use config::{BadConfig, Config, Mix, Pace, Protocol, Sizes, MAX_FLOWS};
pub use counters::{Counters, Report};
pub use generator::Generator;
pub use latency::Latency;
