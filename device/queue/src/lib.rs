// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The queue engine: split rings to frames and back.
//!
//! [`Tx`] fetches chains from a transmit ring, checks them, and lends the guest's buffers to a
//! backend as a batch of frames. [`Rx`] lends posted buffers to a backend, which writes frames
//! into them. Both work on a snapshot of guest memory, one bounded batch at a time, and allocate
//! nothing per frame.
//!
//! Nothing that the driver wrote is trusted. The first rule that it breaks ends the queue with a
//! [`Fault`], which names the rule and what broke it. Every value is read from guest memory once
//! and checked after it was read.
//!
//! The engine neither sleeps nor signals: its caller asks [`Tx::interrupt_due`] after a batch
//! and [`Tx::rearm`] before it sleeps. `rearm` tells whether work arrived in between, so no
//! doorbell is lost.
//!
//! A queue may lie in memory that has to be fetched first ([`Outline`]).
//!
//! A queue can also be worked a step at a time, as by a debugger: see [`Look`].
//!
//! An [`Observer`] may watch a queue, and a [`Recorder`](vnet_capture::Recorder) keep its frames. A queue
//! that has neither pays a branch a batch for each.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod batch;
mod chain;
mod config;
mod due;
mod fault;
mod filter;
mod header;
mod indirect;
mod mischief;
#[cfg(feature = "test-utils")]
pub mod mock;
mod observer;
mod picture;
mod progress;
mod record;
mod ring;
mod rx;
mod shelf;
mod split;
mod steer;
mod step;
mod tx;
mod unshared;
mod view;

pub use batch::{Budget, Outcome, Waits};
pub use config::RingConfig;
pub use due::{Due, Wish};
pub use fault::Fault;
pub use filter::RxFilter;
pub use observer::{Observer, Position};
pub use picture::Picture;
pub use progress::{Progress, Recovered};
pub use rx::Rx;
pub use steer::{Drain, Handed, Steer, FRAME_START};
pub use step::{Came, Fate, Glimpse, Held, Link, Look, Moved, Offered, Packet, Source};
pub use tx::Tx;
pub use unshared::{Lack, Outline, Written};
