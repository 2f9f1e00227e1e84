// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What of a card outlives the process that serves it.
//!
//! A holder process keeps descriptors and does nothing else; a worker process serves the card, and
//! may be killed at any instruction. All that the next worker cannot find out otherwise is in a
//! [`Memory`], a memfd that each worker maps:
//!
//! - a [snapshot](Memory::commit) of the control state, which is replaced as a whole. There are two
//!   places for it; the one that is not in force is written and then put in force by one store, so
//!   that a worker which dies on the way leaves the former one whole;
//! - the [table of DMA ranges](maps), which can be long, and of which each row comes and goes by one
//!   store;
//! - [cells](Cell), single numbers that change with every batch, each whole by itself.
//!
//! The descriptors go to the holder by way of a [`Keeper`], under a [`Token`] that says what each is.
//!
//! The control state is written in [records], so that workers of different versions can read what
//! the other left.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod board;
mod cell;
mod intake;
mod keeper;
pub mod maps;
mod memory;
#[cfg(feature = "test-utils")]
pub mod mock;
pub mod records;
mod snapshot;

pub use board::{Board, LINES};
pub use cell::{Block, Cell, BLOCKS, CELLS, SESSION};
pub use intake::Intake;
pub use keeper::{Held, Keeper, Token};
pub use memory::{Error, Memory};
