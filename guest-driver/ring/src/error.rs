// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What can be wrong with a ring.

use core::fmt;

/// The slots and the ring memory do not make a ring: the memory must have a power of two of
/// descriptors, at most [`vnet_contract::queue::MAX_SIZE`], tables as [`crate::Tables`] says, and there
/// must be a slot for each descriptor of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSize;

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ring memory, tables and slots have no common valid size")
    }
}

impl core::error::Error for BadSize {}

/// A rule of the ring that the card broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The used index says that more chains came back than are out.
    UsedIndex {
        /// Used index that was read.
        index: u16,
        /// Used index of the last entry taken.
        last: u16,
    },
    /// The id of a used entry is not below the ring size.
    IdRange(u32),
    /// The id of a used entry is not the head of a chain that the card holds.
    IdNotHeld(u16),
    /// The length of a used entry is more than the chain's writable bytes.
    Length {
        /// Head of the chain.
        id: u16,
        /// Length in the used entry.
        len: u32,
        /// Writable bytes of the chain.
        posted: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UsedIndex { index, last } => {
                write!(f, "used index jumped from {last} to {index}")
            }
            Self::IdRange(id) => write!(f, "used id {id} is not a descriptor"),
            Self::IdNotHeld(id) => write!(f, "used id {id} is not in flight"),
            Self::Length { id, len, posted } => {
                write!(
                    f,
                    "used length {len} of id {id} exceeds the {posted} posted bytes"
                )
            }
        }
    }
}

impl core::error::Error for Violation {}
