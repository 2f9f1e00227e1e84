// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a TAP interface of the host.
//!
//! [`Tap`] attaches to an interface that exists, or makes one that lives as long as it does. To
//! make one takes `CAP_NET_ADMIN`; to attach to one that was made for the user takes nothing:
//!
//! ```text
//! ip tuntap add mode tap user "$USER" vnet_hdr name tap0
//! ```
//!
//! (with `multi_queue`, if the card has several queues). Addresses, bridges and the state of the
//! interface are the user's affair.
//!
//! Before each frame TAP speaks the same header as the card does, so that checksums and
//! segmentation stay undone between a guest and a host that can both do without. Frames are read
//! into the guest's buffers and written from them by one system call each, without a copy of ours.
//!
//! [`Port`] does that for any descriptor that speaks this header, also for other backends.

#![deny(missing_docs)]
#![deny(unsafe_code)]

mod attach;
mod bridge;
mod drops;
mod header;
mod interface;
mod name;
mod netns;
mod port;
mod sys;
mod tap;
mod teller;
mod tun;
mod vectors;

pub use interface::Interface;
pub use name::Name;
pub use port::{Port, Received, Shared, Wire};
pub use tap::{Config, Tap};
pub use vectors::{Vectors, MAX_PARTS};
