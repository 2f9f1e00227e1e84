// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card: registers, queues, interrupts and link, composed.
//!
//! A [`Card`] is what a client of the bus sees: config space, the register BAR, the MSI-X BAR,
//! a DMA address space and interrupt vectors. It knows nothing of sockets.
//!
//! One thread, the message thread, owns the card and calls it; every call returns in bounded
//! time. Two kinds of thread work beside it. Workers, one per queue pair, move the frames; they
//! tell what went wrong through `events::Events`, which is all that they share with the
//! registers. The monitor watches the link and writes the log, so that neither of the others ever
//! waits for a system call of a backend or for whoever reads the log.
//!
//! Whoever runs the card has an [`Operator`], which looks on, and pulls the cable, without any part
//! in all this; and changes the backend or the faults with the card in hand.
//!
//! An access to BAR 0 is first decoded (module `decode`): offset, width and direction either name
//! a register of the contract that allows the access, or the access is illegal, which is counted
//! and otherwise harmless.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod card;
mod config;
mod decode;
mod events;
mod filter;
mod limit;
mod mischief;
mod missed;
mod monitor;
mod negotiation;
mod operator;
mod queue;
mod registers;
mod rss;
mod sanitize;
mod survival;

#[cfg(test)]
mod tests;

pub use card::Card;
pub use config::{Config, Error};
pub use events::Forced;
pub use limit::Limit;
pub use negotiation::IMPLEMENTED;
pub use operator::{Changed, Driver, LinkReport, Operator, QueueReport};
pub use survival::Survival;
pub use vnet_sanitizer::{Listener, Sanitizer};
pub use vnet_worker::{
    Came, Did, Drops, Fate, Fault, Fill, Glimpse, Held, Link, Look, Moved, Next, Offered, Options,
    Packet, Picture, Reason, Refused, Step, Times, Wish, Work,
};
