// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that break the rules of the ring, one rule at a time, end to end: the queue stops and
//! says why, everything else goes on, and a restart or a reset repairs it.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod flood;
mod indirect;
mod memory;
mod receive;
mod rig;
mod set_up;
mod transmit;
