// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The contract of the vnet card.
//!
//! Everything that the card and its driver must agree on is defined here and nowhere else: PCI
//! identity, BAR map, registers, feature bits, queue states and error codes, the split ring and
//! the per-packet header. The device server (`device/`) and the kernel module (`guest-driver/`)
//! compile these same files, and a test compares them with `docs/datasheet.md`.
//!
//! The crate is `no_std`, has no dependencies and does no I/O: constants, plain data and pure
//! functions only. All multi-byte quantities are little-endian on the wire.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod features;
pub mod hdr;
pub mod pci;
pub mod queue;
pub mod regs;
pub mod ring;
