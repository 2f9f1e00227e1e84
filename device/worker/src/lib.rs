// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Threads that serve queue pairs.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod counters;
mod pair;
mod report;

pub use counters::Counters;
pub use pair::{Options, Pair};
pub use report::Report;
pub use vnet_contract::queue::Kind;
pub use vnet_queue::{Fault, RingConfig, RxFilter};
