// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a small virtual LAN with one peer on it. Needs no privileges and touches nothing of
//! the host but what the user names.
//!
//! The peer answers ARP, IPv6 neighbour discovery and router solicitation, ICMP and ICMPv6 echo of
//! any length, gives addresses by DHCP, and has some services. [`net`] says where it is, [`ports`]
//! where they are:
//!
//! | port | service |
//! |---|---|
//! | 7 TCP, UDP | echo |
//! | 9 TCP, UDP | discard |
//! | 19 TCP, UDP | character generator |
//! | 53 UDP | DNS, for the names that the user gives ([`Config::names`]) and `gateway` |
//! | 67 UDP | DHCP server |
//! | 80 TCP | HTTP: a page about the card |
//! | 5001 TCP | sink: reads until the client closes its direction, then answers `COUNT SHA256\n` |
//! | 5002 TCP | source: reads a line `SIZE SEED\n` and sends SIZE bytes of the pseudo-random stream SEED; to `SIZE SEED sum\n` it answers `SIZE SHA256\n`, the digest of these bytes |
//!
//! Other TCP ports can lead to unix sockets, or ports of the loopback, of the host
//! ([`Config::forwards`]).
//!
//! The stream of a seed is that of the generator SplitMix64, eight bytes per output, the lowest
//! first. Numbers are decimal and the digest is in hexadecimal.
//!
//! Fragments are answered, by fragments, where the answer is the question (echo); other services
//! do not take them.
//!
//! How it works: TCP, ARP and neighbour discovery are [smoltcp]'s. [`Gateway`] has one stack for
//! all its queues, behind a lock that is held for a batch of frames at most. With several queues
//! only their workers take it, as the message thread must not wait. A frame is copied
//! once on its way in, and once on its way out. The stack sends only while few frames wait for
//! the guest, so that a guest that is slow slows its connections down instead of losing frames.
//! A connection that leads to the host is made by a thread of its own, which does nothing else, before
//! the guest has an answer; then the workers carry what is in the buffers of one socket to those of the
//! other. Everything is bounded: connections, waiting frames, leases, and the work of one call. When the
//! card is reset, the frames that wait are lost, as on a wire: connections go on. When its machine is gone, the
//! gateway forgets all but the leases.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod connections;
mod datagram;
mod dhcp;
mod dns;
mod forward;
mod forwarder;
mod gateway;
mod host;
mod hosts;
mod http;
mod neighbour;
pub mod net;
mod outbound;
mod packet;
pub mod ports;
mod reflect;
mod router;
mod service;
mod share;
mod stack;
mod status;
mod steer;
mod stream;
mod window;
mod wire;

pub use config::{BadConfig, Config};
pub use dns::Name;
pub use forward::{Forward, Target};
pub use gateway::{Gateway, MAX_MTU, MIN_MTU};
