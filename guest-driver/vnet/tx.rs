// SPDX-License-Identifier: GPL-2.0

//! Sending.
//!
//! A frame is a chain: the per-packet header, then the parts of the skb. The header lies in the
//! skb's headroom, where it costs no descriptor and no mapping of its own, or, if that is small or
//! not the skb's alone, in an array that is mapped all the time. A short frame is copied to that array
//! behind its header, as it costs less to copy than to map. Everything here runs under the lock of the
//! transmit queue, so stopping and waking it cannot race.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use netdev::{
    dma::{
        Segment,
        SegmentSpace,
        SharedMemory, //
    },
    trace,
    DropReason,
    InFlightSkb,
    Napi,
    NetDevice,
    ReturnedFrames,
    SegmentKind,
    SkBuff,
    TxMeta,
    TxQueue,
    XdpFrame,
    MAX_FRAGS, //
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
    tx::{
        Chain,
        Ring, //
    },
    Buffer,
    Slot,
    Tables,
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

/// Tables of a ring, each for one long chain, if the card reads such: one for so many descriptors, but
/// no more than the most. Those hold 2 MiB in large frames, which byte queue limits seldom allow.
const DESCRIPTORS_PER_TABLE: u16 = 8;
const MAX_TABLES: u16 = 32;
const _: () = assert!(MAX_TABLES <= vnet_ring::MAX_TABLES);

/// Distance of headers in their array: a power of two, so that none crosses a page. A frame that fits
/// between two of them is short.
const HEADER_STRIDE: usize = 128;
/// Longest header, with all that the features that this driver knows append.
const MAX_HEADER: usize = hdr::size(crate::probe::WANTED);
const _: () = assert!(MAX_HEADER <= HEADER_STRIDE);

/// Ethernet header: the shortest frame, and what no checksum covers.
const ETH_HLEN: u32 = 14;
/// The longest frame that the card takes.
const MAX_FRAME: u32 = queue::MAX_FRAME as u32;
/// Shortest headers of TCP and UDP.
const TCP_HLEN: u32 = 20;
const UDP_HLEN: u32 = 8;

/// Frames that the card has at which the next transmission looks for some to free: so many that
/// looking and telling of it costs little for each.
const RECLAIM_AT: u16 = 16;

/// What a descriptor of a chain points to.
struct Part<'a>(Segment<'a>);

impl Buffer for Part<'_> {
    #[inline]
    fn addr(&self) -> u64 {
        self.0.addr()
    }

    #[inline]
    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// A frame that the card has.
struct Sent {
    frame: InFlight,
    bytes: u32,
}

/// Whose frame it is.
enum InFlight {
    Stack(InFlightSkb),
    /// Of an XDP program.
    Program(XdpFrame),
}

type Slots<'a> = KVec<Slot<Part<'a>, Sent>>;
type TxChain<'r, 'a> = Chain<'r, RingMemory, Slots<'a>, Part<'a>, Sent>;

/// State of a transmit queue.
pub(crate) struct Tx<'a> {
    ring: Ring<RingMemory, Slots<'a>>,
    /// Headers of frames that have no room for them, and short frames behind theirs, by the first
    /// descriptor of the chain.
    headers: SharedMemory,
    /// Bytes of a header.
    header_len: usize,
    stats: Arc<TxStats>,
    pair: u16,
    /// The card moderates interrupts: it waits with one for completed frames, and sends none if they
    /// are reclaimed meanwhile. Else the interrupt is on its way when there is something to reclaim.
    moderated: bool,
    /// The card is to interrupt for the next completed frame.
    armed: bool,
    /// Frames of XDP programs in the ring.
    programs: u32,
    /// The card broke a rule; said once.
    failed: bool,
    /// Chains taken back when that was last checked, and checks since that changed.
    checked: (u16, u32),
}

impl<'a> Tx<'a> {
    pub(crate) fn new(nic: &Nic<'a>, pair: u16, size: u16) -> Result<Self> {
        let tables = if nic.identity.features & features::INDIRECT_DESC != 0 {
            Tables {
                count: (size / DESCRIPTORS_PER_TABLE).min(MAX_TABLES),
                entries: MAX_CHAIN,
            }
        } else {
            Tables::NONE
        };
        let count = usize::from(size) + tables.slots();
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            slots.push(Slot::new(), GFP_KERNEL)?;
        }
        let memory = RingMemory::new(nic.dev.as_ref(), size, tables)?;
        let (stats, _) = nic.queue_stats.get(usize::from(pair)).ok_or(EINVAL)?;
        Ok(Self {
            ring: Ring::new(memory, slots).map_err(|_| EINVAL)?,
            headers: SharedMemory::new(nic.dev.as_ref(), usize::from(size) * HEADER_STRIDE)?,
            header_len: hdr::size(nic.identity.features),
            stats: stats.clone(),
            pair,
            moderated: nic.identity.features & features::MODERATION != 0,
            armed: false,
            programs: 0,
            failed: false,
            checked: (0, 0),
        })
    }

    pub(crate) fn index(&self) -> u16 {
        queue::tx_index(self.pair)
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
        meta: &TxMeta,
    ) {
        if self.moderated && self.ring.in_flight() >= RECLAIM_AT {
            self.reclaim_early(dev, queue);
        }
        let tell = match self.enqueue(nic, skb, meta) {
            Ok(()) => {
                self.stats.protocols.count(meta.protocol());
                if nic.wants(netdev::MSG_TX_QUEUED) {
                    netdev::debug!(dev, "queued {} bytes\n", meta.len());
                }
                queue.sent(meta.len(), meta.more())
            }
            Err(()) => {
                self.stats.queue.dropped.add(1);
                !meta.more()
            }
        };
        let full = self.hold_if_full(queue);
        if tell || full {
            self.tell(nic, dev);
        }
    }

    /// Puts a frame into the ring. On error it is dropped.
    #[inline]
    fn enqueue(&mut self, nic: &Nic<'a>, skb: SkBuff, meta: &TxMeta) -> Result<(), ()> {
        // The MTU binds neither a process that may send raw frames nor a guest behind a macvtap, and the
        // card stops a queue over one that is too long.
        let reason = match meta.len() {
            ..ETH_HLEN => Some(DropReason::TooSmall),
            ETH_HLEN..=MAX_FRAME => None,
            _ => Some(DropReason::TooBig),
        };
        if let Some(reason) = reason {
            skb.drop_with(reason);
            return Err(());
        }
        let header = match self.header(meta) {
            Ok(header) => header,
            Err(reason) => {
                skb.drop_with(reason);
                return Err(());
            }
        };
        // What features append has a meaning only for received frames.
        let mut bytes = [0; MAX_HEADER];
        bytes[..hdr::SIZE].copy_from_slice(&header.to_bytes());
        let header = &bytes[..self.header_len];
        if meta.len() as usize <= HEADER_STRIDE - header.len() {
            self.enqueue_copy(skb, header, meta)
        } else {
            self.enqueue_mapped(nic, skb, header, meta)
        }
    }

    /// Puts a copy of a short frame into the ring. The skb is kept as if the card read it, so that its
    /// sender is held back as it is with others.
    #[inline]
    fn enqueue_copy(&mut self, skb: SkBuff, header: &[u8], meta: &TxMeta) -> Result<(), ()> {
        let Some(mut chain) = self.ring.begin(1) else {
            skb.drop_with(DropReason::RingFull);
            return Err(());
        };
        let at = usize::from(chain.head()) * HEADER_STRIDE;
        let Some(segment) = skb.copy(&self.headers, at, header) else {
            drop(chain);
            skb.drop_with(DropReason::NoMemory);
            return Err(());
        };
        self.stats.queue.copied.add(1);
        // There is room for the one that the chain was begun with.
        let _ = chain.push(Part(segment));
        Self::commit(chain, skb, meta)
    }

    /// Maps a frame, and puts it into the ring.
    #[inline]
    fn enqueue_mapped(
        &mut self,
        nic: &Nic<'a>,
        skb: SkBuff,
        header: &[u8],
        meta: &TxMeta,
    ) -> Result<(), ()> {
        let mut space = SegmentSpace::new();
        let Ok(mut segments) = skb.map(nic.dev.as_ref(), header, &mut space) else {
            skb.drop_with(DropReason::NoMemory);
            return Err(());
        };
        let apart = !segments.hold_header();
        let Some(mut chain) = self.ring.begin(u16::from(apart) + segments.left()) else {
            drop(segments);
            skb.drop_with(DropReason::RingFull);
            return Err(());
        };
        if chain.is_indirect() {
            self.stats.queue.indirect.add(1);
        }
        let mut pushed = true;
        if apart {
            let at = usize::from(chain.head()) * HEADER_STRIDE;
            self.headers.write(at, header);
            pushed = Segment::shared(&self.headers, at, header.len() as u32)
                .is_some_and(|segment| chain.push(Part(segment)).is_ok());
            self.stats.queue.header_apart.add(1);
        }
        pushed &= segments.all(|segment| chain.push(Part(segment)).is_ok());
        // Dropped, chain and segments unmap what was mapped: before the skb goes.
        drop(segments);
        if !pushed {
            drop(chain);
            skb.drop_with(DropReason::RingFull);
            return Err(());
        }
        Self::commit(chain, skb, meta)
    }

    /// Finishes the chain of a frame.
    #[inline]
    fn commit(chain: TxChain<'_, 'a>, skb: SkBuff, meta: &TxMeta) -> Result<(), ()> {
        let sent = Sent {
            frame: InFlight::Stack(skb.into_flight()),
            bytes: meta.len(),
        };
        match chain.commit(sent) {
            Ok(()) => Ok(()),
            Err(sent) => {
                if let InFlight::Stack(skb) = sent.frame {
                    skb.complete().drop_with(DropReason::RingFull);
                }
                Err(())
            }
        }
    }

    /// Puts a frame of an XDP program into the ring, or gives it back if there is no room.
    /// [`Self::tell`] must follow.
    pub(crate) fn send_frame(
        &mut self,
        nic: &Nic<'a>,
        queue: &TxQueue<'_>,
        frame: XdpFrame,
    ) -> Result<(), XdpFrame> {
        let outcome = self.enqueue_frame(nic, frame);
        match &outcome {
            Ok(()) => {
                self.programs = self.programs.wrapping_add(1);
                self.stats.queue.xdp_xmit.add(1);
                self.hold_if_full(queue);
            }
            Err(_) => self.stats.queue.xdp_full.add(1),
        }
        outcome
    }

    fn enqueue_frame(&mut self, nic: &Nic<'a>, frame: XdpFrame) -> Result<(), XdpFrame> {
        let bytes = frame.len();
        if !(ETH_HLEN..=MAX_FRAME).contains(&bytes) {
            return Err(frame);
        }
        let header = &[0; MAX_HEADER][..self.header_len];
        let mut space = SegmentSpace::new();
        let Ok(mut segments) = frame.map(nic.dev.as_ref(), header, &mut space) else {
            return Err(frame);
        };
        let Some(mut chain) = self.ring.begin(segments.left()) else {
            // Dropped, the segments are unmapped: before the frame goes.
            drop(segments);
            return Err(frame);
        };
        let pushed = segments.all(|segment| chain.push(Part(segment)).is_ok());
        drop(segments);
        if !pushed {
            drop(chain);
            return Err(frame);
        }
        let sent = Sent {
            frame: InFlight::Program(frame),
            bytes,
        };
        match chain.commit(sent) {
            Err(Sent {
                frame: InFlight::Program(frame),
                ..
            }) => Err(frame),
            _ => Ok(()),
        }
    }

    /// Has the stack hold frames back before the ring is full, so that none ever comes back to it.
    #[inline]
    fn hold_if_full(&self, queue: &TxQueue<'_>) -> bool {
        let full = !self.ring.has_room(MAX_CHAIN);
        if full && !queue.is_stopped() {
            queue.stop();
            self.stats.queue.stops.add(1);
        }
        full
    }

    /// Shows the card what is in the ring.
    #[inline]
    pub(crate) fn tell(&mut self, nic: &Nic<'a>, dev: &NetDevice<Nic<'a>>) {
        if let Some(avail) = self.ring.publish() {
            let index = self.index();
            trace::doorbell(dev, index, avail);
            if nic.wants(netdev::MSG_TX_QUEUED) {
                netdev::debug!(dev, "doorbell of queue {index}: {avail}\n");
            }
            self.stats.queue.doorbells.add(1);
            nic.regs.ring_doorbell(index, avail);
        }
    }

    /// The header of a frame. Counts what is left to the card.
    ///
    /// The card stops a queue over a header that contradicts itself, and a process that may send
    /// raw frames can have the stack ask for almost anything: so that is checked.
    #[inline]
    fn header(&self, meta: &TxMeta) -> Result<NetHdr, DropReason> {
        let Some(checksum) = meta.checksum() else {
            return if meta.is_segmented() {
                Err(DropReason::BadSegmentation)
            } else {
                Ok(NetHdr::default())
            };
        };
        let start = u32::from(checksum.start);
        if start < ETH_HLEN || start + u32::from(checksum.offset) + 2 > meta.len() {
            return Err(DropReason::BadChecksum);
        }
        let mut header = NetHdr {
            flags: hdr::F_NEEDS_CSUM,
            csum_start: checksum.start,
            csum_offset: checksum.offset,
            ..NetHdr::default()
        };
        self.stats.queue.csum.add(1);
        if meta.is_segmented() {
            let how = meta.segmentation().ok_or(DropReason::BadSegmentation)?;
            let (kind, transport) = match how.kind {
                SegmentKind::TcpV4 => (hdr::GSO_TCPV4, TCP_HLEN),
                SegmentKind::TcpV6 => (hdr::GSO_TCPV6, TCP_HLEN),
                SegmentKind::Udp => (hdr::GSO_UDP_L4, UDP_HLEN),
            };
            let covered = u32::from(how.header_len);
            if covered < start + transport || covered > meta.len() {
                return Err(DropReason::BadSegmentation);
            }
            header.gso_type = if how.ecn { kind | hdr::GSO_ECN } else { kind };
            header.gso_size = how.size;
            header.hdr_len = how.header_len;
            self.stats.queue.gso.add(1);
            self.stats.queue.gso_segments.add(u64::from(how.count));
        }
        Ok(header)
    }

    /// Frees the frames that the card is done with, and wakes the queue if there is room again.
    #[inline]
    pub(crate) fn reclaim(
        &mut self,
        dev: &NetDevice<Nic<'a>>,
        queue: &TxQueue<'_>,
        napi: Option<&Napi<'_, Nic<'a>>>,
    ) -> Result<(), Violation> {
        // Memory of XDP programs' frames cannot be returned in hard interrupt context, where netpoll
        // may be: the next poll does it.
        if self.programs > 0 && !napi.is_some_and(Napi::is_scheduled) {
            return Ok(());
        }
        let mut returned = ReturnedFrames::new();
        let (mut program_frames, mut program_bytes) = (0, 0u64);
        let (mut frames, mut bytes) = (0, 0u32);
        // Ends: nothing is added to the ring meanwhile.
        let outcome = loop {
            match self.ring.reclaim() {
                Ok(Some(sent)) => match sent.frame {
                    InFlight::Stack(skb) => {
                        frames += 1;
                        bytes = bytes.wrapping_add(sent.bytes);
                        skb.complete().consume(napi);
                    }
                    InFlight::Program(frame) => {
                        program_frames += 1;
                        program_bytes += u64::from(sent.bytes);
                        if let Some(napi) = napi {
                            returned.add(napi, frame);
                        }
                    }
                },
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        if program_frames > 0 {
            // Byte queue limits do not know of them.
            self.programs = self.programs.wrapping_sub(program_frames);
            self.stats.queue.packets.add(u64::from(program_frames));
            self.stats.queue.bytes.add(program_bytes);
        }
        if frames > 0 {
            self.stats.queue.packets.add(u64::from(frames));
            self.stats.queue.bytes.add(u64::from(bytes));
            trace::complete(dev, self.pair, frames, bytes);
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

    /// Frees what the card is done with before another frame is sent. While transmissions follow
    /// each other, that keeps them from needing an interrupt at all.
    #[inline]
    fn reclaim_early(&mut self, dev: &NetDevice<Nic<'a>>, queue: &TxQueue<'_>) {
        // Ends: nothing is added to the ring meanwhile. Frames of XDP programs are for the poll to free.
        while self.programs == 0 && self.ring.has_used() {
            // The ring remembers a violation, and the next poll acts on it.
            if self.reclaim(dev, queue, None).is_err() || !self.armed {
                return;
            }
            // The interrupt that was asked for is for frames that are gone: ask for a later one.
            if self.ring.enable_interrupts() {
                return;
            }
        }
    }

    /// Notes that the queue failed: that the card broke a rule, or else that it says so itself. True
    /// the first time.
    pub(crate) fn fail(&mut self, queue: &TxQueue<'_>, why: Option<Violation>) -> bool {
        queue.stop();
        if !self.failed {
            let stats = &self.stats.queue;
            stats.errors.add(1);
            match why {
                Some(Violation::UsedIndex { .. }) => stats.bad_index.add(1),
                Some(Violation::IdRange(_) | Violation::IdNotHeld(_)) => stats.bad_id.add(1),
                Some(Violation::Length { .. }) => stats.bad_length.add(1),
                None => {}
            }
        }
        !core::mem::replace(&mut self.failed, true)
    }

    /// Called in equal intervals: true if the card has had frames for so many of them, and is done
    /// with none. The stack's watchdog looks only at queues that it may not send to.
    pub(crate) fn is_stuck(&mut self, intervals: u32) -> bool {
        let (taken, idle) = &mut self.checked;
        if *taken != self.ring.taken() || self.ring.in_flight() == 0 {
            (*taken, *idle) = (self.ring.taken(), 0);
        } else {
            *idle = idle.saturating_add(1);
        }
        *idle >= intervals && !self.ring.has_used() && !self.failed
    }

    /// Chains taken back so far, and whether there are more.
    pub(crate) fn look(&self) -> (u16, bool) {
        (self.ring.taken(), self.ring.has_used())
    }

    /// Asks the card not to interrupt for completed frames.
    #[inline]
    pub(crate) fn disable_interrupts(&mut self) {
        self.armed = false;
        self.ring.disable_interrupts();
    }

    /// Asks the card to interrupt for the next completed frame. False if there already is one.
    ///
    /// Every frame in flight is so bound to be reclaimed soon after the card is done with it: as
    /// soon as moderation allows.
    #[inline]
    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.armed = self.ring.enable_interrupts();
        self.armed
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        // The queue was stopped or the card is gone. What it had sent by then is no loss.
        while let Ok(Some(sent)) = self.ring.reclaim() {
            self.stats.queue.packets.add(1);
            self.stats.queue.bytes.add(u64::from(sent.bytes));
            if let InFlight::Stack(skb) = sent.frame {
                skb.complete().consume::<Nic<'_>>(None);
            }
        }
        // Buffers are unmapped before the skbs go.
        let dropped = &self.stats.queue.dropped;
        self.ring.reset(|sent| {
            dropped.add(1);
            drop(sent);
        });
    }
}
