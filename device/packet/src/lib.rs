// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: an interface of the host that exists, by a packet socket (`AF_PACKET`).
//!
//! The card is on the wire that the interface is on, beside the host: it gets what comes in there, in
//! promiscuous mode, and what it sends goes out there. The host itself is not on that wire, as it
//! does not see what goes out, nor the card what the host sends. For a card that talks to the host
//! there is a TAP.
//!
//! Before each frame the socket speaks the header that a TAP speaks (`PACKET_VNET_HDR`), so that
//! checksums and segmentation stay undone where the kernel has put frames together or will take
//! them apart; [`vnet_tap::Port`] does the work. Frames are read into the guest's buffers, and
//! written from them, by a system call each. The memory rings of packet sockets (TPACKET) would save
//! some of the calls, but cost a copy of every frame, and make each wait: the third version shows
//! frames by the block, when it is full or a millisecond or more is over.
//!
//! A VLAN tag that the interface has taken off comes beside the frame (`PACKET_AUXDATA`) and is put
//! back. The kernel puts frames together whatever the guest takes: where that is less, they are taken
//! apart here ([`vnet_segment`]).

#![deny(missing_docs)]
#![deny(unsafe_code)]

mod finish;
mod packet;
mod sys;
mod wire;

pub use packet::{Config, Packet};
