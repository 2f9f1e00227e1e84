// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Names the rule of the contract that a driver broke.
//!
//! A [`Sanitizer`] belongs to a card. It collects [`Finding`]s: those that the card reports about
//! registers and queue set-up, and those of the [`Shadow`]s, of which each watches one running
//! queue through the engine's [`Observer`](vnet_queue::Observer) interface.
//!
//! A shadow knows which chains the device owns, from the moment that the avail index covers them
//! to the moment before the used index does, and what they looked like when it first saw them. It
//! reads guest memory itself, and judges only what cannot look wrong in a driver that keeps to the
//! rules, whatever the timing. What a driver must do sooner or later counts as never done after
//! some seconds in which the guest did other things: time in which it showed no life does not
//! count, since somebody may have stopped it.
//!
//! `docs/rules.md` says for each [`Rule`] why there is one, and what to do about it.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod buffers;
mod chain;
mod finding;
mod header;
mod life;
mod listener;
mod owned;
mod refusal;
mod rules;
mod sanitizer;
mod shadow;
mod taken;
mod waits;

pub use finding::Finding;
pub use listener::Listener;
pub use rules::{Rule, Severity};
pub use sanitizer::{Count, Findings, Sanitizer, KEPT};
pub use shadow::{Ring, Shadow};
