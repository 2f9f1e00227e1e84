// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The seam between the card and what carries its frames.
//!
//! An [`Endpoint`] is what the user names on the command line; it says what it can do
//! ([`Capabilities`]) and yields one [`Queue`] per queue pair. A queue belongs to one worker
//! thread: its methods take `&mut self`, and nothing on the path is shared or locked.
//!
//! Life of a transmitted frame: the worker walks the transmit ring, validates each chain, and
//! lends the guest's own buffers as a batch of [`Frame`]s to [`Queue::transmit`]. The backend
//! reads them where they are. When it returns, the buffers go back to the guest.
//!
//! Life of a received frame: when [`Queue::readiness`] is readable or [`Queue::deadline`] has
//! passed, the worker calls [`Queue::receive`] with an [`RxRing`]. The backend asks for room,
//! writes the frame straight into the guest's buffers and commits it.
//!
//! Backends know nothing of rings, registers or interrupts; the card knows nothing of sockets.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bucket;
pub mod checksum;
mod fifo;
mod frame;
mod losses;
mod mix;
#[cfg(feature = "mock")]
pub mod mock;
mod offloads;
mod relay;

pub use bucket::{BadRate, Bucket, Rate};
pub use fifo::Fifo;
pub use frame::{Checksum, Frame, Gso, GsoKind, Meta};
pub use losses::Losses;
pub use mix::mix;
pub use offloads::{Offloads, SharedOffloads};
pub use relay::{Relay, Taker};

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use vm_memory::VolatileSlice;

/// Longest frame that crosses the seam: 64 KiB of payload with Ethernet header and VLAN tag.
pub const MAX_FRAME: usize = 65_535 + 18;

/// What an endpoint can do. The card never offers its driver more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Metadata that [`Queue::receive`] can be told to deliver with [`Endpoint::set_offloads`].
    pub receive: Offloads,
    /// Most queues that [`Endpoint::open`] yields.
    pub max_queues: u16,
    /// Largest MTU.
    pub max_mtu: u16,
}

/// State of the link behind an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Carrier.
    pub up: bool,
    /// Mbit/s, if it is known.
    pub speed: Option<u32>,
}

/// Why a backend cannot be set up. The message is one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the user named does not exist, is busy or must not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the name of the object.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request that this backend cannot serve.
    #[error("{0}")]
    Unsupported(String),
}

/// A factory of queues, and the control side of a backend. Used by one
/// thread at a time: the message thread, or the one that watches the link.
pub trait Endpoint: Send {
    /// What the endpoint can do.
    fn capabilities(&self) -> Capabilities;

    /// State of the link now.
    fn link(&self) -> Link {
        Link {
            up: true,
            speed: None,
        }
    }

    /// Opens `queues` queues, `1..=max_queues`. Called once.
    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error>;

    /// Says which metadata the driver accepts with received frames, a subset of
    /// `capabilities().receive`. Until called: none. Called on negotiation and on reset; may be
    /// called while the queues run. Waits for nobody: the guest waits for who calls it.
    fn set_offloads(&mut self, receive: Offloads);

    /// Frames for the card that were lost before any queue saw them, since none took them in time: a
    /// count that only grows, from wherever it begins. It is what is so now, not what was a while ago.
    fn missed(&self) -> u64 {
        0
    }
}

/// The data side of a backend for one queue pair, owned by one worker thread.
///
/// No method blocks (but see [`Queue::is_shared`]), and none touches a lent buffer after it
/// returns.
pub trait Queue: Send {
    /// Takes frames from the front of the batch and returns how many it took: sent or, where the
    /// medium loses frames, lost. The worker offers the rest again later; a queue that took fewer
    /// becomes ready or due when it can take more.
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize;

    /// Metadata that [`Self::transmit`] takes now. Frames with other metadata do not get there: the
    /// card does for them what is to be done. May change from call to call, but is right for the
    /// `transmit` that follows.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// Delivers frames until it has none or `ring` gives no more room. Frames without room stay
    /// in the backend, which may drop the oldest or newest within its own bounds.
    fn receive(&mut self, ring: &mut dyn RxRing);

    /// A descriptor that is readable while the queue wants to be called; `receive` (or
    /// `transmit`) makes it unreadable again when nothing is left. Constant for a queue's life.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When `receive` must be called even if nothing becomes ready.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// When `transmit` must be called again, with an empty batch if nothing else, for frames that it
    /// took and has yet to send; at once if the time has passed. `None`: there are none, or nothing is
    /// to be done for them. Until then [`Self::readiness`] may ask for the call. It matters while the
    /// driver does not receive: `receive` and `deadline` see to the same.
    fn owes(&self) -> Option<Instant> {
        None
    }

    /// True if the next call of `receive` goes on with something that takes several, though no
    /// frame comes of this one. The worker then comes back at once, for as long as it is true.
    fn has_work(&self) -> bool {
        false
    }

    /// True if a call may wait for one on another queue of the endpoint to end. The message thread
    /// then leaves all doorbells to the worker. Constant for a queue's life.
    fn is_shared(&self) -> bool {
        false
    }

    /// For an endpoint that spreads frames over its queues by itself: the way to tell it that this
    /// one's driver does not receive. Asked for once; the queue is attached then.
    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        None
    }

    /// True if `receive` would deliver a frame now. Asked after `transmit`, so that a backend
    /// which answers at once needs no descriptor to say so.
    fn has_frames(&self) -> bool {
        false
    }

    /// Frames that the backend itself lost since it was opened.
    fn losses(&self) -> Losses {
        Losses::default()
    }

    /// Forgets the frames that wait for the driver. Called for each queue when the card is reset, with
    /// none of them running. Whoever is at the other end of the wire does not notice more than that.
    fn reset(&mut self) {}

    /// Forgets the machine, which is gone: the next one to have the card may be another. Called for each
    /// queue after [`Self::reset`].
    fn disconnect(&mut self) {}
}

/// What connects one queue of an endpoint with the traffic: while it is detached, frames for the
/// card go to the endpoint's other queues.
///
/// Used by the worker thread of that queue alone, without any lock: a change may wait for the
/// system.
pub trait Attachment: Send {
    /// Whether the queue was attached when it was opened: another process may have detached it.
    fn was_attached(&self) -> bool {
        true
    }

    /// Attaches or detaches the queue. Frames that it holds when it is detached are lost.
    fn set_attached(&mut self, attached: bool);
}

/// The receive ring of one queue pair, as a backend sees it: room for one frame at a time.
pub trait RxRing {
    /// Guest buffers of at least `len` bytes in all, behind the per-packet header. `None`: the
    /// guest has not posted enough, or the batch is full; stop and wait to be called again.
    ///
    /// Asking again without [`Self::commit`] gives the same buffers, or more of them.
    fn room(&mut self, len: usize) -> Option<Room<'_>>;

    /// Delivers the `len` bytes that were written to the last room. `len` must not exceed it.
    /// The card may still drop the frame (receive filter).
    fn commit(&mut self, len: usize, meta: Meta);
}

/// Guest buffers that wait for one frame.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// The buffers in order.
    pub parts: &'a [VolatileSlice<'a>],
}

impl Room<'_> {
    /// Copies a whole frame in, as far as there is room, and returns the number of bytes copied.
    pub fn write(&self, frame: &[u8]) -> usize {
        let mut done = 0;
        for part in self.parts {
            let n = part.len().min(frame.len() - done);
            // `copy_from` is element-wise for `u8` and bounded by both sides.
            part.copy_from(&frame[done..done + n]);
            done += n;
            if done == frame.len() {
                break;
            }
        }
        done
    }
}
