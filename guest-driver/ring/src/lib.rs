// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The driver's side of a split ring (virtio 1.2, section 2.7), always with event index.
//!
//! The crate owns the protocol and nothing else: which descriptor is free, what the card may see
//! when, who is to be notified. How ring memory is reached is the caller's ([`Memory`]), and so
//! is where private state is kept ([`Slot`]s in any container that derefs to a slice). So the same
//! source runs in the kernel module, in the userspace driver of the tests, and under loom.
//!
//! # Trust
//!
//! The card is not trusted. Nothing that it can write decides anything here unchecked: the free
//! list, the chain links and the posted lengths live in the slots, which the card never sees, and
//! ring memory that the driver wrote is never read back. What the card does write, the used ring
//! and `avail_event`, is checked against the slots; the first [`Violation`] breaks the ring for
//! good. A broken ring hands out and takes nothing until [`tx::Ring::reset`] or
//! [`rx::Ring::reset`].
//!
//! # Concurrency
//!
//! A ring is not shared: every method that changes it takes `&mut self`, and a driver that fills
//! a ring in one context and reclaims in another holds a lock around it.
//!
//! # Life of a transmitted frame
//!
//! [`tx::Ring::begin`] → [`tx::Chain::push`] for each buffer → [`tx::Chain::commit`] →
//! [`tx::Ring::publish`] (once for a batch; it says whether the doorbell is due) →
//! [`tx::Ring::reclaim`] gives back what was committed.
//!
//! A long chain lies in a table of its own, if the ring memory has some ([`Memory::tables`]) and one
//! is free, and takes a single descriptor of the ring then. Nothing else changes for the driver.
//!
//! # Life of a received frame
//!
//! [`rx::Ring::post`] for each buffer → [`rx::Ring::publish`] → [`rx::Ring::take`] gives back
//! the buffer and how much of it the card says it wrote.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod indirect;
mod memory;
pub mod rx;
mod slot;
mod split;
pub mod tx;

pub use error::{BadSize, Violation};
pub use indirect::{Tables, MAX_TABLES};
pub use memory::{Memory, Used};
pub use slot::{Buffer, Slot};
