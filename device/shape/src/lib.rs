// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a line with a rate, a delay and losses, before any other backend.
//!
//! [`Shaped`] is an endpoint in front of an endpoint. What the card sends and what it receives each
//! go over a line of their own. There a frame first meets its fate (`chance.rs`): it may be lost,
//! doubled, or overtaken by the next one. Then it takes its time (`line.rs`): as long as its bytes take
//! at the rate, behind those that came before it, and then the delay, which jitter makes shorter or
//! longer, but never so that frames overtake each other by it.
//!
//! What happens to a frame depends on the seed, the direction, the queue and the frame's number, and
//! on nothing else: the same frames in the same order suffer the same again. Counting starts again
//! when the card is reset.
//!
//! A line holds so many frames and bytes, and none are lost because it is full: frames that are sent
//! wait in the guest then, and frames to receive in the backend behind.
//!
//! For plans of misbehaviour, with frames that are corrupt or lie about themselves, there is
//! `vnet-faults`; this is for networks that are slow and far away but do what they should.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod chance;
mod config;
mod line;
mod queue;
mod shaped;

pub use config::{BadShape, Config, Lane};
pub use shaped::{Counters, Report, Shaped};
