// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The server side of vfio-user, without I/O.
//!
//! Bytes and descriptors that came from a client go into an [`Inbox`], which finds the messages in
//! them. A [`Protocol`] checks each message, does what it asks for with calls of the `vfio_user`
//! crate's [`ServerBackend`](vfio_user::ServerBackend), and writes the reply into a buffer. Who
//! reads and writes the socket, and when, is up to the caller.
//!
//! Three rules hold whatever a client sends:
//!
//! - The place in the stream is never lost. A message that is refused is refused whole, and the
//!   next one is looked for behind it. Only a header with a size that cannot be, and a version
//!   that is not spoken here, end the session ([`Refusal::is_fatal`]).
//! - Every request is answered once, in order, with the error number of what went wrong if
//!   something did; unless it says that it wants no reply.
//! - No size is believed before it was checked. Memory is taken once, when the client comes, but
//!   for replies, which are not longer than the region that they are read from, and for version
//!   data and descriptors, which have a limit.
//!
//! In the other direction, [`Requests`] are made of the client, and their answers checked:
//! `DMA_READ` and `DMA_WRITE`, for memory that comes without a descriptor.
//!
//! Not spoken: migration, dirty page tracking, regions that the client maps, and descriptors for
//! region accesses.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod command;
mod fields;
mod header;
mod inbox;
mod irqs;
mod protocol;
mod refusal;
mod requests;
mod version;

pub use command::Command;
pub use header::{Header, HEADER_SIZE};
pub use inbox::{Inbox, Lost, Message, CAPACITY, MAX_FDS, MAX_MESSAGE};
pub use protocol::{Layout, Protocol};
pub use refusal::Refusal;
pub use requests::{Answer, Requests, MAX_REQUESTS};
pub use version::{Negotiated, MAX_DATA};
