// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! PCI config space and capabilities of the card.
//!
//! A [`ConfigSpace`] is bytes, a mask of the bits that software may write, and the few registers
//! whose writes mean something to the card. Those come back as [`Changes`]; acting on them is the
//! card's business.
//!
//! The client emulates part of config space for its guest (BAR decoding, MSI-X masking), but
//! forwards every write. All of it is kept here as a real function would keep it, so that any
//! client and any driver read back what the PCI specification promises.

#![forbid(unsafe_code)]

mod caps;
mod config;
mod layout;

pub use config::{Changes, ConfigSpace, PowerState, CONFIG_SIZE};
