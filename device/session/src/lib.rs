// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card as a vfio-user device.
//!
//! A [`Socket`] is a path with a listener behind it, claimed for one server at a time. A
//! [`Session`] serves the card to one client after another: it drives the loop of the `vfio_user`
//! crate, turns its calls into calls of the [`Card`](vnet_card::Card), and when a client goes away
//! takes back all that the client gave.
//!
//! The loop reads one message at a time and answers it; its thread is the card's message thread.
//! What the crate's loop does wrong with a malformed message (it panics, or loses its place in the
//! stream) costs that client its session and nobody else anything. It also allocates what the size
//! in a message asks for, up to 4 GiB, before the card can have a say.
//!
//! A client is trusted in one thing, the files that it gives as memory: see [`vnet_dma`].

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod device;
mod error;
mod hang_up;
mod layout;
mod lock;
mod serve;
mod socket;

pub use error::Error;
pub use serve::{Session, SharedCard};
pub use socket::Socket;
