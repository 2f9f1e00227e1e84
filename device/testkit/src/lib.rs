// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Everything that a test needs in place of a guest.
//!
//! From the outside in: [`Server`] runs vnetd with a socket of its own, [`Cards`] with many; [`Wire`] speaks vfio-user
//! to it, message by message, and can say what no well-behaved client would; [`Card`] makes
//! registers, DMA mappings and interrupts of those messages; [`Nic`] is a driver on top, with the
//! same ring code as the kernel module (`vnet-ring`). [`RawQueue`] is a ring without a driver, for
//! rings that are wrong on purpose. [`Qemu`] runs QEMU without a guest and drives the card through
//! QEMU's own vfio-user client.
//!
//! Nothing here is forgiving: every wait has a limit, and what is unexpected is an error.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod card;
mod error;
mod keeper;
mod killer;
mod memory;
mod nic;
mod process;
mod qemu;
mod qtest;
mod ring;
mod server;
mod wire;

pub use card::{Card, Vector};
pub use error::{Error, Result};
pub use keeper::{Keeper, Manners};
pub use killer::Killer;
pub use memory::GuestRam;
pub use nic::{Nic, Options, Received};
pub use process::Process;
pub use qemu::{Function, Qemu};
pub use qtest::Qtest;
pub use ring::{DmaRing, RawQueue};
pub use server::{Cards, Server};
pub use wire::{command, irq, region, Reply, Wire, NO_REPLY};

use std::time::Duration;

/// Longest wait for something that must happen. Far above what it takes, so that a busy machine
/// does not fail a test.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long to watch that something does not happen.
pub const QUIET: Duration = Duration::from_millis(150);
