// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What vnetd and those who steer it say to each other; docs/vnetd.md is the reference.
//!
//! One JSON object a line, in the form of QEMU's QMP: the server begins with a [`Greeting`]; a client
//! sends a [`Request`] and gets an [`Answer`], in order. This crate has the types of both sides, and
//! a [`Client`] that waits.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod client;
mod error;
mod request;
mod state;
mod step;

pub use answer::{Answer, Greeting, Version};
pub use client::{Client, ClientError};
pub use error::{Class, Error};
pub use request::{
    Add, Backend, Capture, Command, CountersOf, Faults, Link, Mac, OfCapture, OfCard, OfNothing,
    OfQueue, Request, Settings, COMMANDS,
};
pub use state::{
    BackendChanged, Bucket, CaptureEnd, CaptureQueue, CaptureState, Card, Counters, Direction,
    FaultPlan, Findings, Generator, Lane, LinkState, Peer, Port, Queue, Ring, RuleBroken, Shape,
    Status, Switch, Times,
};
pub use step::{Paused, PausedQueue, StepName, Stepped, Words};

/// Version of the protocol. Within one, members and commands are only ever added.
pub const PROTOCOL: u32 = 1;

/// Longest line that the server reads, in bytes, without its end.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Longest line that a client needs to read: a list of as many cards as there can be fits.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
