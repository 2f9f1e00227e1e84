// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is fuzzed, as plain functions from bytes to a verdict: they return, or panic.
//!
//! `scripts/fuzz` looks for new inputs, with the programs in `fuzz_targets/`. Those that it found
//! to be worth keeping are in `corpus/`, a directory for each target; inputs that broke something
//! are in `regressions/`. `tests/corpus.rs` runs each function on all of its inputs as part of the
//! ordinary tests, which need neither the fuzzer nor a nightly compiler.
//!
//! A target decodes its input into the steps of a peer that must not be trusted, and carries them
//! out. What it checks goes beyond "no panic": a model, another implementation, or rules that hold
//! after every step.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backend;
mod client;
mod config;
mod control;
mod device;
mod frames;
mod gateway;
mod generator;
mod guest;
mod input;
mod mirrors;
mod multicast;
mod plan;
mod registers;
mod replay;
mod requests;
mod rss;
mod rx;
mod segment;
mod session;
mod slots;
mod state;
mod stream;
mod switch;
mod takeover;
mod timeline;
mod tx;
mod unshared;
mod witness;

/// A name and what it stands for.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config", config::config),
    ("control", control::control),
    ("device", device::device),
    ("gateway", gateway::gateway),
    ("generator", generator::generator),
    ("plan", plan::plan),
    ("registers", registers::registers),
    ("replay", replay::replay),
    ("requests", requests::requests),
    ("rss", rss::rss),
    ("rx", rx::rx),
    ("segment", segment::segment),
    ("session", session::session),
    ("state", state::state),
    ("stream", stream::stream),
    ("switch", switch::switch),
    ("takeover", takeover::takeover),
    ("timeline", timeline::timeline),
    ("tx", tx::tx),
    ("unshared", unshared::unshared),
];

pub use config::config;
pub use control::control;
pub use device::device;
pub use gateway::gateway;
pub use generator::generator;
pub use plan::plan;
pub use registers::registers;
pub use replay::replay;
pub use requests::requests;
pub use rss::rss;
pub use rx::rx;
pub use segment::segment;
pub use session::session;
pub use state::state;
pub use stream::stream;
pub use switch::switch;
pub use takeover::takeover;
pub use timeline::timeline;
pub use tx::tx;
pub use unshared::unshared;
