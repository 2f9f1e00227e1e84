// SPDX-License-Identifier: GPL-2.0

//! Receiving.
//!
//! A buffer is a page: headroom, the per-packet header and the frame from there on, and at the end
//! room for what the stack keeps with the linear part of an skb. A frame that needs more buffers
//! goes on at the same offset of the next page. Everything here runs in the poll of the channel,
//! or while the channel is not running.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use netdev::{
    DropReason,
    Locked,
    Napi,
    PartialChecksum,
    PoolPage,
    PoolParams,
    RxSkb,
    MAX_FRAGS,
    PAGE_SIZE,
    RX_HEADROOM,
    RX_TAIL, //
};
use vnet_contract::{
    features,
    hdr::{
        self,
        NetHdr, //
    },
    queue, //
};
use vnet_ring::{
    rx::Ring,
    Buffer,
    Slot,
    Violation, //
};

use crate::{
    memory::RingMemory,
    nic::Nic,
    stats::RxStats, //
};

/// Where in a page the card writes, and how much.
const OFFSET: u32 = RX_HEADROOM;
const LENGTH: u32 = PAGE_SIZE - RX_HEADROOM - RX_TAIL;

const HEADER: u32 = hdr::SIZE as u32;
/// Ethernet header with one VLAN tag.
const LINK_HEADER: u32 = 18;

/// Largest MTU whose frames fit into one buffer.
pub(crate) const MAX_MTU_SINGLE: u32 = LENGTH - HEADER - LINK_HEADER;

/// Most buffers of one frame: the linear part and the fragments.
const MAX_BUFFERS: u16 = 1 + MAX_FRAGS as u16;

/// Refill when so many buffers are missing: the card is told less often.
const REFILL: u16 = 16;

/// A page that the card may write.
struct RxBuffer {
    page: PoolPage,
    addr: u64,
}

impl Buffer for RxBuffer {
    #[inline]
    fn addr(&self) -> u64 {
        self.addr
    }

    #[inline]
    fn length(&self) -> u32 {
        LENGTH
    }
}

/// Why a receive queue cannot go on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// The card broke a rule of the ring.
    Ring(Violation),
    /// The card announced a frame of so many buffers.
    BufferCount(u16),
    /// The card moved the used index in the middle of a frame.
    Incomplete,
    /// The card put nothing into a further buffer of a frame.
    Empty,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ring(violation) => violation.fmt(f),
            Self::BufferCount(n) => write!(f, "a frame of {n} buffers"),
            Self::Empty => f.write_str("an empty buffer in a frame"),
            Self::Incomplete => f.write_str("a frame whose last buffers are missing"),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Ring(violation)
    }
}

/// State of a receive queue.
pub(crate) struct Rx {
    ring: Ring<RingMemory, KVec<Slot<RxBuffer, ()>>>,
    stats: Arc<RxStats>,
    pub(crate) index: u16,
    mergeable: bool,
    /// Buffers that any frame fits into.
    enough: u16,
    checksum: bool,
    /// The card broke a rule; said once.
    failed: bool,
}

impl Rx {
    pub(crate) fn new(nic: &Nic<'_>, pair: u16, size: u16) -> Result<Self> {
        let mut slots = KVec::with_capacity(usize::from(size), GFP_KERNEL)?;
        for _ in 0..size {
            slots.push(Slot::new(), GFP_KERNEL)?;
        }
        let memory = RingMemory::new(nic.dev.as_ref(), size)?;
        let (_, stats) = nic.queue_stats.get(usize::from(pair)).ok_or(EINVAL)?;
        Ok(Self {
            ring: Ring::new(memory, slots).map_err(|_| EINVAL)?,
            stats: stats.clone(),
            index: queue::rx_index(pair),
            mergeable: nic.identity.features & features::MRG_RXBUF != 0,
            enough: ((nic.identity.max_mtu + LINK_HEADER + HEADER).div_ceil(LENGTH)) as u16,
            checksum: nic.identity.features & features::RX_CSUM != 0,
            failed: false,
        })
    }

    pub(crate) fn memory(&self) -> &RingMemory {
        self.ring.memory()
    }

    pub(crate) fn stats(&self) -> &RxStats {
        &self.stats
    }

    /// Posts as many buffers as the ring takes, before the channel of the pair is started. Fails
    /// if there is no memory for even half of them.
    pub(crate) fn fill(&mut self, dev: &Locked<'_, Nic<'_>>, pair: u16) -> Result {
        let params = PoolParams {
            pages: self.ring.size(),
            offset: OFFSET,
            len: LENGTH,
        };
        dev.create_pool(pair, params)?;
        self.post(|| dev.alloc_page(pair));
        if self.ring.free() > self.ring.size() / 2 {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// Shows the card what was posted; returns the avail index.
    pub(crate) fn publish(&mut self) -> u16 {
        // The card is told when it starts; the ring began at index 0.
        let _ = self.ring.publish();
        self.ring.in_flight()
    }

    fn post(&mut self, alloc: impl Fn() -> Option<PoolPage>) {
        while self.ring.free() > 0 {
            let Some(page) = alloc() else {
                self.stats.queue.alloc_failed.add(1);
                return;
            };
            let addr = page.dma_address() + u64::from(OFFSET);
            if self.ring.post(RxBuffer { page, addr }).is_err() {
                return;
            }
        }
    }

    /// Replaces the buffers that were taken. `Some`: ring the doorbell with this value.
    #[inline]
    pub(crate) fn refill(&mut self, napi: &Napi<'_, Nic<'_>>, force: bool) -> Option<u16> {
        if self.ring.free() >= REFILL || force {
            self.post(|| napi.alloc_page());
        }
        // Also what was posted in the middle of the poll.
        self.ring.publish()
    }

    /// True if the card has so few buffers left, as none were to be had, that the next frame may
    /// not fit: then nothing will ever interrupt.
    pub(crate) fn starved(&self) -> bool {
        self.ring.in_flight() < self.enough && !self.failed
    }

    /// Receives at most `budget` frames.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        napi: &Napi<'_, Nic<'_>>,
        budget: u32,
        done: &mut u32,
    ) -> Result<(), Failure> {
        let mut bytes = 0u64;
        let outcome = loop {
            if *done >= budget || self.failed {
                break Ok(());
            }
            match self.frame(napi) {
                Ok(None) => break Ok(()),
                Ok(Some(len)) => {
                    *done += 1;
                    bytes += u64::from(len);
                    // Keep the card supplied in a long poll; the doorbell follows at its end.
                    if self.ring.free() >= self.ring.size() / 2 {
                        self.post(|| napi.alloc_page());
                        if self.ring.free() >= self.ring.size() / 2 {
                            break Ok(());
                        }
                    }
                }
                Err(failure) => break Err(failure),
            }
        };
        self.stats.queue.bytes.add(bytes);
        outcome
    }

    /// Takes one frame from the ring. Gives its length, which is zero if it was dropped.
    #[inline]
    fn frame(&mut self, napi: &Napi<'_, Nic<'_>>) -> Result<Option<u32>, Failure> {
        let Some((buffer, len)) = self.ring.take()? else {
            return Ok(None);
        };
        buffer.page.sync_for_cpu(len);
        // The header, and the destination address, which tells multicast.
        const HEAD: usize = hdr::SIZE + 6;
        let head = buffer.page.read::<HEAD>(OFFSET as usize);
        let (Some(head), true) = (head, len >= HEAD as u32) else {
            self.stats.queue.bad_frames.add(1);
            return Ok(Some(0));
        };
        let [header @ .., d0, d1, d2, d3, d4, d5] = head;
        let to = [d0, d1, d2, d3, d4, d5];
        let header = NetHdr::from_bytes(&header);

        let buffers = if self.mergeable {
            header.num_buffers
        } else {
            1
        };
        if buffers == 0 || buffers > MAX_BUFFERS {
            return Err(Failure::BufferCount(buffers));
        }

        let mut total = len - HEADER;
        let mut skb = match RxSkb::from_page(napi, buffer.page, OFFSET + HEADER, total) {
            Ok(skb) => Some(skb),
            Err(_page) => {
                self.stats.queue.dropped.add(1);
                None
            }
        };
        for _ in 1..buffers {
            // The card makes the buffers of a frame visible at once.
            let Some((buffer, len)) = self.ring.take()? else {
                if let Some(skb) = skb {
                    skb.drop_with(DropReason::BadDeviceHeader);
                }
                return Err(Failure::Incomplete);
            };
            buffer.page.sync_for_cpu(len);
            total += len;
            if len == 0 {
                if let Some(skb) = skb {
                    skb.drop_with(DropReason::BadDeviceHeader);
                }
                return Err(Failure::Empty);
            }
            if let Some(s) = &mut skb {
                // There is room: the buffers were counted. Bytes are inside the page: the ring
                // checked the length.
                let _ = s.add_page(buffer.page, OFFSET, len);
            }
        }
        let Some(skb) = skb else {
            return Ok(Some(0));
        };
        Ok(Some(self.deliver(napi, skb, header, to, total)))
    }

    /// Hands a frame to the stack; gives its length, or zero if it had to be dropped.
    #[inline]
    fn deliver(
        &self,
        napi: &Napi<'_, Nic<'_>>,
        mut skb: RxSkb,
        header: NetHdr,
        to: [u8; 6],
        len: u32,
    ) -> u32 {
        // Segment sizes and partial checksums come only with features that were agreed on.
        let partial = header.flags & hdr::F_NEEDS_CSUM != 0;
        let mut good = header.gso_type == hdr::GSO_NONE && (!partial || self.checksum);
        if good && self.checksum {
            if partial {
                good = skb.set_checksum_partial(PartialChecksum {
                    start: header.csum_start,
                    offset: header.csum_offset,
                });
            } else if header.flags & hdr::F_DATA_VALID != 0 && napi.device().wants_rx_checksum() {
                skb.set_checksum_valid();
            }
            if header.flags != 0 {
                self.stats.queue.csum.add(1);
            }
        }
        if !good {
            skb.drop_with(DropReason::BadDeviceHeader);
            self.stats.queue.bad_frames.add(1);
            return 0;
        }
        match skb.receive(napi) {
            Some(protocol) => {
                self.stats.queue.packets.add(1);
                self.stats.protocols.count(protocol);
                if to[0] & 1 != 0 && to != [0xff; 6] {
                    self.stats.queue.multicast.add(1);
                }
                len
            }
            None => {
                self.stats.queue.bad_frames.add(1);
                0
            }
        }
    }

    /// Notes that the queue failed. True the first time.
    pub(crate) fn fail(&mut self) -> bool {
        if !self.failed {
            self.stats.queue.errors.add(1);
        }
        !core::mem::replace(&mut self.failed, true)
    }

    /// Asks the card not to interrupt for received frames.
    #[inline]
    pub(crate) fn disable_interrupts(&mut self) {
        self.ring.disable_interrupts();
    }

    /// Asks the card to interrupt for the next received frame. False if there already is one.
    #[inline]
    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.failed || self.ring.enable_interrupts()
    }
}
