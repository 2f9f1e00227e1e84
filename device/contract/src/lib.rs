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
//!
//! Each definition is written once, in a macro that gives both the constant and its row in a
//! list ([`Constant`], [`Member`], [`regs::Register`], [`regs::Bit`], [`regs::Field`],
//! [`features::Feature`], [`queue::Error::ALL`]). The lists are what the data sheet is compared
//! with; a constant outside them fails that test.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[macro_use]
mod macros;

pub mod features;
pub mod hdr;
pub mod pci;
pub mod queue;
pub mod regs;
pub mod ring;

/// A named number of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Its value, whatever the type of the constant is.
    pub value: u64,
}

/// A member of a structure that lies in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Offset from the start of the structure in bytes.
    pub offset: usize,
    /// Width in bits.
    pub width: u32,
}
