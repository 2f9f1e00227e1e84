// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card as a vfio-user device.
//!
//! A [`Socket`] is a path with a listener behind it, claimed for one server at a time. A
//! [`Session`] serves the card to one client after another, and when a client goes away takes back
//! all that the client gave. Its thread is the card's message thread: it reads what a client has
//! sent, has [`vnet_protocol`] do what each message asks for with calls of the
//! [`Card`](vnet_card::Card), and sends the answers. For workers it asks the client for memory that
//! is not shared, and takes the answers as they come. It waits for its client, to send or to read,
//! and for nothing else; a [`Control`] ends that at any time.
//!
//! A client is trusted in one thing, the files that it gives as memory: see [`vnet_dma`].

#![deny(unsafe_code)]
#![deny(missing_docs)]

mod asking;
mod closer;
mod connection;
mod control;
mod device;
mod error;
mod layout;
mod lifeline;
mod lock;
mod serve;
mod socket;
mod sys;

pub use closer::hang_up;
pub use control::{ClientId, Control, Peer};
pub use error::Error;
pub use lifeline::Lifeline;
pub use serve::{Session, SharedCard};
pub use socket::Socket;

/// The card behind the protocol, without a socket and a thread.
#[cfg(feature = "test-utils")]
pub mod test_utils {
    use vfio_user::ServerBackend;
    use vnet_protocol::Layout;

    use crate::device::Device;
    use crate::SharedCard;

    /// A card with this many vectors, as clients see it.
    pub fn layout(vectors: u16) -> Layout {
        crate::layout::layout(vectors)
    }

    /// What messages do to a card.
    pub fn device(card: SharedCard) -> impl ServerBackend {
        Device::new(card, Box::new(|_| ()))
    }
}
