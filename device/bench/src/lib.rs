// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What scripts/bench measures with.
//!
//! `serve` runs on the host, beside QEMU: it is the peer of all traffic, and it takes the CPU time
//! of every process of the set-up. `measure` runs in the guest, takes one sample and prints it as a
//! line of JSON. `report` makes the table, the plots and the document of the samples.

#![forbid(unsafe_code)]

pub mod account;
pub mod control;
pub mod datagram;
pub mod driver;
pub mod error;
pub mod interface;
pub mod markdown;
pub mod measure;
pub mod pattern;
pub mod pktgen;
pub mod report;
pub mod rows;
pub mod sample;
pub mod search;
pub mod server;
pub mod stream;
pub mod svg;
