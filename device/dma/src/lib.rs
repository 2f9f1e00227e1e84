// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The DMA address space: guest memory as the card may reach it.
//!
//! The client describes the space with map and unmap messages; the message thread applies them to
//! an [`AddressSpace`]. Workers take a [`DmaMap`] from it at the start of every batch: an
//! immutable snapshot that they read without a lock. A snapshot keeps its memory mapped for as
//! long as it lives, so a worker that still holds an old one reads stale memory at worst, never
//! unmapped memory. Whoever removes a range waits for the workers to finish their batches before
//! it answers the client.
//!
//! A range without a file descriptor cannot be mapped. A [`DmaMap`] does not reach it, unless it is
//! one of [`AddressSpace::mirrored`]: that has a local copy of the range, which a [`Relay`] fills
//! and empties by messages to the client. A read-only range refuses writes. With bus mastering off
//! there is no snapshot of either kind.
//!
//! # Trust
//!
//! The client is trusted not to shorten a file that it gave as memory. To touch a page that is cut
//! off raises SIGBUS, which ends the process, whatever card it serves. A memfd that allows seals is
//! sealed against that when it is mapped, as QEMU's `memory-backend-memfd` does by itself; a memfd
//! without seals and the files of `memory-backend-file` and `memory-backend-shm` cannot be sealed.
//! Nor is there anything to be done about a page that the file system cannot provide, as it is full.
//! A guest has no part in this: its memory is the virtual machine's file, not the guest's.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod area;
mod budget;
mod files;
mod finder;
mod map;
mod mirror;
mod range;
mod relay;
mod space;
mod sync;

pub use finder::Finder;
pub use map::{DmaMap, Slices};
pub use range::{MapError, Mapping, PAGE_SIZE};
pub use relay::{Ask, Failure, Relay, Stretch, Turn, Way, PATIENCE};
pub use space::{AddressSpace, Snapshot, MAX_MAPPINGS};
