// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: writes down what passes before any other backend, for as long as the card is there.
//!
//! [`Recorded`] is an endpoint in front of an endpoint. What the card sends and what it receives goes into
//! pcapng files of a limited size, of which a limited number is kept. It sees what a cable would; what became
//! of a frame in the rings, `vnetctl capture` knows. Both have the same writer (`vnet-capture`), which holds
//! nobody up: what it does not get written is counted.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod queue;
mod recorded;

pub use config::{BadRecord, Config};
pub use recorded::{Record, Recorded};
