// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Receive side scaling (data sheet, section 13): from the first bytes of a frame to its hash and
//! the queue pair that the hash chooses.
//!
//! Three steps, a module each. [`flow`] finds the addresses and ports of a frame. [`Toeplitz`]
//! hashes them. [`Rss`] puts both together as the registers say, and looks the pair up. Nothing
//! here allocates for a frame or has state: an [`Rss`] is made when the driver changes a register,
//! and then shared by all that receive.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod flow;
mod rules;
mod toeplitz;

pub use rules::{Choice, Rss, RssConfig, HASH_TYPES, TABLE_SIZE};
pub use toeplitz::{Toeplitz, KEY_SIZE};
