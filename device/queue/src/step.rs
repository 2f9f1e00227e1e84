// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue that is worked a step at a time, by somebody who wants to see what it does.
//!
//! Between two steps nothing is borrowed and nothing is locked. What was read of a chain is kept as a
//! copy ([`Held`]); its buffers are looked up again, with the same checks, in the memory that there is
//! when a step needs them. The ring stands where it stood before the chain was fetched until
//! its used entry is written. So the queue may go at any time, and the chain counts as not fetched.

use vnet_backend::{Meta, Queue};
use vnet_contract::ring::{Desc, DESC_F_INDIRECT};
use vnet_dma::DmaMap;

use crate::chain::Chain;
use crate::ring::Ring;
use crate::view::View;
use crate::{Fault, Handed, Outcome, Steer};

/// What the device found when it looked for the next chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A chain.
    Chain {
        /// Index of the entry in the avail ring, which runs freely.
        index: u16,
        /// The place that this is in the ring.
        entry: u16,
        /// What stands there: the first descriptor of the chain, not checked yet.
        head: u16,
        /// The driver's avail index.
        avail: u16,
    },
    /// No chain. The device has asked for a doorbell.
    Nothing {
        /// The driver's avail index, and the entry that would come next.
        avail: u16,
        /// The event index that was written.
        event: u16,
    },
}

/// A descriptor that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u16,
    /// It is in an indirect table, and so is its index.
    pub in_table: bool,
    /// What it says.
    pub desc: Desc,
}

/// A chain that was read and found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its first descriptor.
    pub head: u16,
    /// All that were read.
    pub links: Vec<Link>,
    /// Bytes of its buffers.
    pub bytes: usize,
    descriptors: u16,
    first: usize,
}

impl Held {
    pub(crate) fn new(chain: &Chain, links: Vec<Link>) -> Self {
        Self {
            head: chain.head,
            links,
            bytes: chain.bytes,
            descriptors: chain.descriptors,
            first: chain.first,
        }
    }

    /// Address and length of each buffer.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        let buffers = self.links.iter().map(|link| link.desc);
        buffers
            .filter(|desc| desc.flags & DESC_F_INDIRECT == 0)
            .map(|desc| (desc.addr, desc.len as usize))
    }

    /// The chain, with its parts up to here.
    pub(crate) fn chain(&self, parts_end: usize) -> Chain {
        Chain {
            head: self.head,
            descriptors: self.descriptors,
            bytes: self.bytes,
            first: self.first,
            parts_end,
        }
    }
}

/// The descriptors that a walk tells of.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) list: Vec<Link>,
    in_table: bool,
}

impl Links {
    pub(crate) fn note(&mut self, index: u16, desc: Desc) {
        let in_table = self.in_table;
        self.in_table |= desc.flags & DESC_F_INDIRECT != 0;
        self.list.push(Link {
            index,
            in_table,
            desc,
        });
    }
}

/// A transmitted frame that was read, but not handed over yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Where it is.
    pub chain: Held,
    /// What its header says.
    pub meta: Meta,
    /// Bytes of the frame.
    pub len: usize,
}

/// The start of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// Bytes of the whole frame.
    pub len: usize,
    /// The first of them, [`FRAME_START`](crate::FRAME_START) at most.
    pub start: Vec<u8>,
}

/// What came of handing a frame to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// As of a batch of this frame alone. If it waits for the backend, or for nothing, it was not taken.
    pub outcome: Outcome,
    /// The frame.
    pub frame: Glimpse,
}

impl Offered {
    /// True if the frame was sent, lost or refused.
    pub fn is_done(&self) -> bool {
        self.outcome.frames + self.outcome.drops > 0
    }
}

/// Where the next frame to receive comes from.
pub enum Source<'s> {
    /// What lies behind the card.
    Backend(&'s mut dyn Queue),
    /// The same, and it may belong to another queue.
    Steered(&'s mut dyn Queue, &'s mut dyn Steer),
    /// Another queue.
    Handed(&'s mut dyn Handed),
}

/// What became of a frame to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// There is none.
    None,
    /// It is in the buffers.
    Delivered,
    /// It does not fit the buffers that are in hand, and may fit more of them.
    Waits {
        /// Bytes that it needs, or might.
        wanted: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// It belongs to another queue, and went there.
    Elsewhere,
    /// It does not fit the buffers, nor would it fit more of them. It was dropped.
    TooLong,
    /// The filter does not want it, or it needs a feature that was not accepted. It was dropped.
    Unwanted,
}

/// What came of asking for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// What became of it.
    pub fate: Fate,
    /// The frame, if there was one and it was seen.
    pub frame: Option<Glimpse>,
    /// Used entries that are to be written: first descriptor, and bytes in its chain.
    pub entries: Vec<(u16, u32)>,
    /// As of a batch of this frame alone.
    pub outcome: Outcome,
}

/// What was written to the used ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Place in the ring, first descriptor, and bytes written, of each entry.
    pub entries: Vec<(u16, u16, u32)>,
    /// The used index before.
    pub old: u16,
    /// The used index now.
    pub new: u16,
}

impl Ring {
    /// Looks for the chain `ahead` places behind the next one, and leaves it there. Asks for a doorbell
    /// if there is none.
    pub(crate) fn look(&mut self, mem: &DmaMap, ahead: u16) -> Result<Look, Fault> {
        let view = self.view(mem);
        // Has the avail index read.
        self.skip(ahead);
        let taken = self.take(&view);
        let index = self.indices().0;
        let avail = self.seen();
        match taken {
            Ok(Some(head)) => {
                self.give_back(ahead.wrapping_add(1));
                let index = index.wrapping_sub(1);
                Ok(Look::Chain {
                    index,
                    entry: index & (self.size() - 1),
                    head,
                    avail,
                })
            }
            Ok(None) => {
                self.give_back(ahead);
                // News are there for the next look.
                self.rearm(mem)?;
                Ok(Look::Nothing {
                    avail,
                    event: avail,
                })
            }
            Err(fault) => {
                self.give_back(ahead);
                Err(fault)
            }
        }
    }

    /// Shows the driver that the next chains are used, with these heads and lengths.
    pub(crate) fn finish(
        &mut self,
        view: &View<'_>,
        entries: &[(u16, u32)],
    ) -> Result<Moved, Fault> {
        let (_, old) = self.indices();
        let mask = self.size() - 1;
        self.skip(entries.len() as u16);
        let mut written = Vec::with_capacity(entries.len());
        for (ahead, &(head, len)) in (0..).zip(entries) {
            self.put_used(view, ahead, head, len)?;
            written.push((self.used_after(ahead) & mask, head, len));
        }
        self.publish(view, entries.len() as u16)?;
        Ok(Moved {
            entries: written,
            old,
            new: self.used_after(0),
        })
    }
}
