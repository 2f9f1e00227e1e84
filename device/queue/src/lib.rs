// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The queue engine: split rings to frames and back.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod fault;
mod filter;

pub use config::RingConfig;
pub use fault::Fault;
pub use filter::RxFilter;
