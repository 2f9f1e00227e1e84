// SPDX-License-Identifier: GPL-2.0

//! Sending.
//!
//! A frame is a chain: the per-packet header, which lies in an array of its own that is mapped
//! all the time, then the parts of the skb. Everything here runs under the lock of the transmit
//! queue, so stopping and waking it cannot race.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use netdev::{
    dma::{
        Segment,
        SharedMemory, //
    },
    trace,
    DropReason,
    InFlightSkb,
    Napi,
    NetDevice,
    SkBuff,
    TxMeta,
    TxQueue,
    MAX_FRAGS, //
};
use vnet_contract::{
    hdr::{
        self,
        NetHdr, //
    },
    queue, //
};
use vnet_ring::{
    tx::Ring,
    Buffer,
    Slot,
    Violation, //
};

use crate::{
    memory::RingMemory,
    nic::Nic,
    stats::TxStats, //
};

/// Descriptors that the longest chain takes: header, linear part, fragments.
const MAX_CHAIN: u16 = 2 + MAX_FRAGS as u16;
const _: () = assert!(
    MAX_CHAIN < queue::MIN_SIZE / 2,
    "the smallest ring holds two chains"
);

/// Distance of headers in their array: a power of two, so that none crosses a page.
const HEADER_STRIDE: usize = 16;
const _: () = assert!(hdr::SIZE == 12 && hdr::SIZE <= HEADER_STRIDE);

/// Shortest frame: an Ethernet header.
const MIN_FRAME: u32 = 14;

/// What a descriptor of a chain points to.
enum TxBuffer<'a> {
    Header(u64),
    Data(Segment<'a>),
}

impl Buffer for TxBuffer<'_> {
    #[inline]
    fn addr(&self) -> u64 {
        match self {
            Self::Header(addr) => *addr,
            Self::Data(segment) => segment.addr(),
        }
    }

    #[inline]
    fn length(&self) -> u32 {
        match self {
            Self::Header(_) => hdr::SIZE as u32,
            Self::Data(segment) => segment.length(),
        }
    }
}

/// A frame that the card has.
struct Sent {
    skb: InFlightSkb,
    bytes: u32,
    header: u16,
}

/// The per-packet headers, and which of them are free.
struct Headers {
    memory: SharedMemory,
    free: KVec<u16>,
}

impl Headers {
    fn new(nic: &Nic<'_>, count: u16) -> Result<Self> {
        let mut free = KVec::with_capacity(usize::from(count), GFP_KERNEL)?;
        for i in (0..count).rev() {
            free.push(i, GFP_KERNEL)?;
        }
        let memory = SharedMemory::new(nic.dev.as_ref(), usize::from(count) * HEADER_STRIDE)?;
        Ok(Self { memory, free })
    }

    /// Writes a header and returns its bus address.
    #[inline]
    fn write(&self, index: u16, header: NetHdr) -> u64 {
        let at = usize::from(index) * HEADER_STRIDE;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = header.to_bytes();
        self.memory
            .write64(at, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        self.memory
            .write32(at + 8, u32::from_le_bytes([i, j, k, l]));
        self.memory.dma_address() + at as u64
    }

    /// Takes a header back. There is room, as it was taken from here.
    #[inline]
    fn put(&mut self, index: u16) {
        let _ = self.free.push_within_capacity(index);
    }
}

/// State of a transmit queue.
pub(crate) struct Tx<'a> {
    ring: Ring<RingMemory, KVec<Slot<TxBuffer<'a>, Sent>>>,
    headers: Headers,
    stats: Arc<TxStats>,
    index: u16,
    /// The card broke a rule; said once.
    failed: bool,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(nic: &Nic<'a>, pair: u16, size: u16) -> Result<Self> {
        let mut slots = KVec::with_capacity(usize::from(size), GFP_KERNEL)?;
        for _ in 0..size {
            slots.push(Slot::new(), GFP_KERNEL)?;
        }
        let memory = RingMemory::new(nic.dev.as_ref(), size)?;
        let (stats, _) = nic.queue_stats.get(usize::from(pair)).ok_or(EINVAL)?;
        Ok(Self {
            ring: Ring::new(memory, slots).map_err(|_| EINVAL)?,
            // A chain has at least two descriptors.
            headers: Headers::new(nic, size / 2)?,
            stats: stats.clone(),
            index: queue::tx_index(pair),
            failed: false,
        })
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    pub(crate) fn memory(&self) -> &RingMemory {
        self.ring.memory()
    }

    /// Sends a frame, or drops it and counts why.
    #[inline]
    pub(crate) fn send(
        &mut self,
        nic: &Nic<'a>,
        dev: &NetDevice<Nic<'a>>,
        queue: &TxQueue<'_>,
        skb: SkBuff,
        more: bool,
    ) {
        let meta = skb.meta();
        let tell = match self.enqueue(nic, skb, &meta) {
            Ok(()) => {
                self.stats.protocols.count(meta.protocol);
                if nic.wants(netdev::MSG_TX_QUEUED) {
                    netdev::debug!(dev, "queued {} bytes, {} fragments\n", meta.len, meta.frags);
                }
                queue.sent(meta.len, more)
            }
            Err(()) => {
                self.stats.queue.dropped.add(1);
                !more
            }
        };
        // Stopping before the ring is full means that no frame ever comes back to the stack.
        let full = self.ring.free() < MAX_CHAIN || self.headers.free.is_empty();
        if full {
            queue.stop();
            self.stats.queue.stops.add(1);
        }
        if tell || full {
            if let Some(avail) = self.ring.publish() {
                trace::doorbell(dev, self.index, avail);
                if nic.wants(netdev::MSG_TX_QUEUED) {
                    netdev::debug!(dev, "doorbell of queue {}: {avail}\n", self.index);
                }
                self.stats.queue.doorbells.add(1);
                nic.regs.ring_doorbell(self.index, avail);
            }
        }
    }

    /// Puts a frame into the ring. On error it is dropped.
    #[inline]
    fn enqueue(&mut self, nic: &Nic<'a>, skb: SkBuff, meta: &TxMeta) -> Result<(), ()> {
        if meta.len < MIN_FRAME {
            skb.drop_with(DropReason::TooSmall);
            return Err(());
        }
        let header = match meta.checksum {
            None => NetHdr::default(),
            Some(checksum) => NetHdr {
                flags: hdr::F_NEEDS_CSUM,
                csum_start: checksum.start,
                csum_offset: checksum.offset,
                ..NetHdr::default()
            },
        };
        let Some(mut chain) = self.ring.begin(2 + u16::from(meta.frags)) else {
            skb.drop_with(DropReason::RingFull);
            return Err(());
        };
        let Some(index) = self.headers.free.pop() else {
            skb.drop_with(DropReason::RingFull);
            return Err(());
        };
        let mut pushed = chain
            .push(TxBuffer::Header(self.headers.write(index, header)))
            .is_ok();
        for segment in skb.segments(nic.dev.as_ref()) {
            pushed &= segment.is_ok_and(|s| chain.push(TxBuffer::Data(s)).is_ok());
            if !pushed {
                break;
            }
        }
        if !pushed {
            // Dropped, the chain unmaps what was mapped: before the skb goes.
            drop(chain);
            self.headers.put(index);
            skb.drop_with(DropReason::NoMemory);
            return Err(());
        }
        let sent = Sent {
            skb: skb.into_flight(),
            bytes: meta.len,
            header: index,
        };
        if let Err(sent) = chain.commit(sent) {
            self.headers.put(sent.header);
            sent.skb.complete().drop_with(DropReason::RingFull);
            return Err(());
        }
        if meta.checksum.is_some() {
            self.stats.queue.csum.add(1);
        }
        Ok(())
    }

    /// Frees the frames that the card is done with, and wakes the queue if there is room again.
    #[inline]
    pub(crate) fn reclaim(
        &mut self,
        dev: &NetDevice<Nic<'a>>,
        queue: &TxQueue<'_>,
        napi: &Napi<'_, Nic<'a>>,
    ) -> Result<(), Violation> {
        let (mut frames, mut bytes) = (0, 0u32);
        // Ends: nothing is added to the ring meanwhile.
        let outcome = loop {
            match self.ring.reclaim() {
                Ok(Some(sent)) => {
                    frames += 1;
                    bytes = bytes.wrapping_add(sent.bytes);
                    self.headers.put(sent.header);
                    sent.skb.complete().consume(napi);
                }
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        if frames > 0 {
            self.stats.queue.packets.add(u64::from(frames));
            self.stats.queue.bytes.add(u64::from(bytes));
            trace::complete(dev, napi.index(), frames, bytes);
            if dev.ops().wants(netdev::MSG_TX_DONE) {
                netdev::debug!(dev, "completed {frames} frames, {bytes} bytes\n");
            }
            queue.completed(frames, bytes);
        }
        // Not while the device is detached, which stopped the queue for a reason of its own.
        // Waking with a quarter of the ring free keeps stop and wake from alternating.
        let room = self.ring.free() >= (self.ring.size() / 4).max(2 * MAX_CHAIN);
        if queue.is_stopped() && room && !self.failed && outcome.is_ok() && dev.is_present() {
            self.stats.queue.wakes.add(1);
            queue.wake();
        }
        outcome
    }

    /// Notes that the queue failed. True the first time.
    pub(crate) fn fail(&mut self, queue: &TxQueue<'_>) -> bool {
        queue.stop();
        if !self.failed {
            self.stats.queue.errors.add(1);
        }
        !core::mem::replace(&mut self.failed, true)
    }

    /// Asks the card not to interrupt for completed frames.
    #[inline]
    pub(crate) fn disable_interrupts(&mut self) {
        self.ring.disable_interrupts();
    }

    /// Asks the card to interrupt for the next completed frame. False if there already is one.
    ///
    /// Every frame in flight is so bound to be reclaimed soon after the card is done with it.
    #[inline]
    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.ring.enable_interrupts()
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        // The queue was stopped or the card is gone. Buffers are unmapped before the skbs go.
        let dropped = &self.stats.queue.dropped;
        self.ring.reset(|sent| {
            dropped.add(1);
            drop(sent);
        });
    }
}
