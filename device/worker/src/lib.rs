// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Threads that serve queue pairs.
//!
//! Every queue pair has a [`Pair`], the handle that the message thread uses, and a thread that
//! serves it. All that they share is behind one lock, which is held for one round: a bounded
//! batch of each queue. On the path nobody else wants it. The message thread quiesces a pair by
//! taking it; the lock is fair, so that takes one round at most.
//!
//! The thread sleeps until a doorbell, the backend's descriptor or the backend's deadline wakes
//! it. While it works, the event index keeps the driver from ringing; before it sleeps, it asks
//! for a doorbell and looks at the ring once more. If work tends to come soon after that, it goes on
//! looking for a bounded time first ([`Options::poll`]).
//!
//! An interrupt may be told to wait for more ([`Moderation`]). Whoever serves a round judges it
//! anew, and sets the thread's alarm for the case that nobody comes by in time.
//!
//! With receive side scaling a frame may belong to another pair than the one whose backend queue
//! it came from. [`Steering`] makes the pairs of a card known to each other; frames then travel
//! between them in bounded queues.
//!
//! A capture may keep the frames of a pair ([`Gauge::capture`]).
//!
//! A pair whose rings or buffers are not shared by the client is served by its thread alone, which has
//! the memory fetched before a round and brought back after it.
//!
//! A queue can be paused, and made to go on a step at a time ([`Gauge::step`]).
//!
//! Waking a thread on another core takes much longer than moving a frame. So a doorbell is served
//! where it arrives if the worker is asleep, for one round; what is left goes to the worker.
//! `examples/doorbell.rs` measures both ways.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod alarm;
mod captured;
mod counters;
mod drops;
mod gate;
mod gauge;
mod handover;
mod kick;
mod legacy;
mod mischief;
#[cfg(all(loom, test))]
mod model;
mod moderation;
mod pace;
mod pair;
mod parcel;
mod polling;
mod refill;
mod replace;
mod report;
mod round;
mod shared;
mod slot;
mod state;
mod steering;
mod step;
mod sync;
mod thread;
mod times;
mod unplugged;
mod unshared;

pub use counters::Counters;
pub use drops::{Drops, Reason};
pub use gauge::{Fill, Gauge};
pub use legacy::Legacy;
pub use moderation::Moderation;
pub use pair::{Clock, Options, Pair};
pub use replace::{Replaced, Replacement};
pub use report::Report;
pub use steering::Steering;
pub use step::{Did, Next, Refused, Step, Work};
pub use times::Times;
pub use vnet_contract::queue::Kind;
pub use vnet_queue::{Came, Fate, Glimpse, Held, Link, Look, Moved, Offered, Packet, Wish};
pub use vnet_queue::{Fault, Observer, Picture, RingConfig, RxFilter};
