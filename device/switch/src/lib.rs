// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a learning switch (IEEE 802.1Q) that joins the cards of one process with each other, and
//! by an [`Uplink`] with any other backend.
//!
//! The way of a frame: the sender's worker reads the head, once (`head.rs`), learns its source and
//! looks its destination up (`table.rs`), and copies it from the guest's buffers to where the
//! receiver finds it (`inbox.rs`), with the tag that the receiver's VLANs ask for ([`vlan`]). The
//! receiver's worker is woken, and copies it into its own guest's buffers. Offload metadata goes
//! along: a large TCP frame crosses whole if the receiver's driver takes it, and is cut on the way
//! to a receiver that does not ([`vnet_segment`]).
//!
//! Nobody waits for a receiver. Frames wait for it within bounds, and those beyond are lost and
//! counted at its port. Of the room, what is sent to everybody may fill half, so a storm leaves
//! room for the rest; the work of a storm is that of the worker whose card sends it.
//!
//! Frames to a multicast group go to all, or if the switch listens to who is a member (`message.rs`),
//! to those (`groups.rs`). Nothing of that is on the way of other frames.
//!
//! There is no spanning tree: a loop of uplinks is for who makes one to avoid.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod groups;
mod head;
mod inbox;
mod member;
mod message;
mod port;
mod switch;
mod table;
mod uplink;
pub mod vlan;

use std::sync::atomic::Ordering::Relaxed;

use vnet_backend::Rate;

pub use groups::{MAX_MEMBERSHIPS, MAX_PER_PORT as MAX_MEMBERSHIPS_PER_PORT};
pub use port::Port;
pub use switch::{Switch, MAX_PORTS};
pub use table::{AGEING, MAX_ADDRESSES, MAX_PER_PORT};
pub use uplink::Uplink;
pub use vlan::Vlans;

/// How a port is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Its name, which no other port of the switch has.
    pub port: Option<String>,
    /// What reports call it that has no name.
    pub label: Option<String>,
    /// Its VLANs.
    pub vlans: Vlans,
    /// Most bits a second that it sends into the switch; more wait in the guest.
    pub rate: Option<Rate>,
    /// The switch brings multicast to those who ask for it (IGMP and MLD snooping), for as long as it has
    /// a port that says so.
    pub snooping: bool,
    /// This port gets all multicast nevertheless.
    pub all_multicast: bool,
    /// It takes no part, but gets a copy of the frames of others.
    pub mirror: Option<Mirror>,
}

/// Whose frames a port gets copies of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// All that come in.
    All,
    /// Those that come in or go out at the port of this name.
    Port(String),
}

/// The counters of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its name, or its label.
    pub port: Option<String>,
    /// Frames that the port sent into the switch.
    pub frames_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Frames that the switch had for the port.
    pub frames_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Frames that were lost as the port had no room for them.
    pub full: u64,
    /// Frames that the port sent and that were not let in: by VLAN, without good addresses, or damaged
    /// messages about groups.
    pub refused: u64,
}

impl Report {
    /// Adds the counters of another port.
    pub fn add(&mut self, other: &Self) {
        self.frames_in += other.frames_in;
        self.bytes_in += other.bytes_in;
        self.frames_out += other.frames_out;
        self.bytes_out += other.bytes_out;
        self.full += other.full;
        self.refused += other.refused;
    }

    fn of(member: &member::Member) -> Self {
        let counters = &member.counters;
        Self {
            port: member.config.port.clone().or(member.config.label.clone()),
            frames_in: counters.frames_in.load(Relaxed),
            bytes_in: counters.bytes_in.load(Relaxed),
            frames_out: counters.frames_out.load(Relaxed),
            bytes_out: counters.bytes_out.load(Relaxed),
            full: counters.full.load(Relaxed),
            refused: counters.refused.load(Relaxed),
        }
    }
}
