// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card that misbehaves on command.
//!
//! A [`Plan`] lists faults: what goes wrong ([`Kind`]), on which queue, and when. [`Faults`] is the
//! plan in force, which can be replaced while the card runs. Each place in the card that can do
//! something wrong has a [`Site`] and asks it at every occasion: an *event*, such as a used entry or
//! a register read.
//!
//! What happens at the n-th event of a site depends on the seed, the fault, the site and n, and on
//! nothing else: neither on time (unless the plan speaks of it) nor on what other queues do. So a
//! plan repeats itself as far as the driver repeats itself. docs/faults.md has the format.
//!
//! A card without faults has no sites, and so does not even ask. Nothing here touches guest memory
//! or registers; the crates that do it right also do it wrong.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backend;
mod faults;
mod kind;
mod parse;
mod plan;

pub use backend::Faulty;
pub use faults::{Faults, Hit, Site, Witness};
pub use kind::Kind;
pub use parse::ParseError;
pub use plan::Plan;
