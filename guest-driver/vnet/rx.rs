// SPDX-License-Identifier: GPL-2.0

//! Receiving.
//!
//! A buffer is a few pages in one piece, so that the longest frame takes few of them. A short frame
//! is copied, and its buffer is posted again as it is: that costs neither pool nor DMA mapping, and
//! the socket is charged for what the frame needs. Of a longer one the protocol headers are copied,
//! and what follows them becomes fragments; what a frame leaves of its last buffer is posted again,
//! if it is worth it. Everything here runs in the poll of the channel, or while the channel is not
//! running.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use netdev::{
    DropReason,
    Features,
    Locked,
    Napi,
    NetDevice,
    PoolBuffer,
    PoolParams,
    RxSkb,
    XdpFrame,
    MAX_FRAGS,
    PAGE_SIZE,
    XDP_HEADROOM,
    XDP_TAILROOM, //
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
    Tables,
    Violation, //
};

use crate::{
    memory::RingMemory,
    nic::Nic,
    shape::Shape,
    stats::RxStats,
    watch::Watch,
    xdp, //
};

/// Frames up to this length are copied.
const COPY: u32 = 2048;

/// Most bytes of headers that are copied of a longer one: Ethernet, two VLAN tags, IPv6 and TCP with
/// all their options, or a good deal of extension headers.
const MAX_HEADERS: u32 = 192;

/// What a frame leaves of a buffer is posted if it is at least so long.
const LEAST_REST: u32 = PAGE_SIZE;

/// Ethernet header with one VLAN tag.
pub(crate) const LINK_HEADER: u32 = 18;

/// Largest MTU whose frames fit into one buffer of any layout.
pub(crate) const MAX_MTU_SINGLE: u32 = PAGE_SIZE - MAX_HEADER as u32 - LINK_HEADER;

/// Longest per-packet header of those that this driver may agree on.
const MAX_HEADER: usize = hdr::size(features::HASH_REPORT);

/// Most buffers of one frame. Each is at least a page, so the longest frame needs no more.
pub(crate) const MAX_BUFFERS: u16 = MAX_FRAGS as u16;
const _: () = assert!(MAX_BUFFERS as usize * PAGE_SIZE as usize >= queue::MAX_FRAME + MAX_HEADER);

// Of transport headers.
const TCP_CHECK: u16 = 16;
const TCP_DATA_OFFSET: u32 = 12;
const UDP_CHECK: u16 = 6;
const UDP_HEADER: u32 = 8;

/// Refill when so many buffers are missing: the card is told less often.
const REFILL: u16 = 16;

/// How receive memory is cut into buffers, decided when a queue starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// A buffer is 2 to this power pages.
    order: u8,
    /// Bytes at both ends of a buffer that the card leaves alone.
    headroom: u32,
    tailroom: u32,
    /// Whether what a frame leaves of a buffer is posted again.
    rests: bool,
}

/// Pages that a ring may hold if they are not to be single ones.
const MAX_PAGES: u32 = 4096;

impl Layout {
    /// With four pages a buffer, the longest frames that TCP makes take four buffers.
    fn of_ring(size: u16) -> Self {
        let pages = |order: &u8| u32::from(size) << order <= MAX_PAGES;
        Self {
            order: (1..=2).rev().find(pages).unwrap_or(0),
            ..Self::PAGES
        }
    }

    /// For when there is no memory in larger pieces.
    const PAGES: Self = Self {
        order: 0,
        headroom: 0,
        tailroom: 0,
        rests: true,
    };

    /// For payload whose headers are elsewhere: pages that can be mapped somewhere else, whole and
    /// alone.
    const PAYLOAD: Self = Self {
        rests: false,
        ..Self::PAGES
    };

    /// For XDP programs: room around a frame in a page of its own, behind a header of this length.
    const fn program(header: u32) -> Self {
        Self {
            order: 0,
            headroom: XDP_HEADROOM - header,
            tailroom: XDP_TAILROOM,
            rests: false,
        }
    }
}

/// Memory that the card may write.
pub(crate) struct RxBuffer(pub(crate) PoolBuffer);

impl Buffer for RxBuffer {
    #[inline]
    fn addr(&self) -> u64 {
        self.0.addr()
    }

    #[inline]
    fn length(&self) -> u32 {
        self.0.length()
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
    /// Headers or payload are longer than their buffer, or than the frame.
    Split,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ring(violation) => violation.fmt(f),
            Self::BufferCount(n) => write!(f, "a frame of {n} buffers"),
            Self::Empty => f.write_str("an empty buffer in a frame"),
            Self::Split => f.write_str("a frame split in an impossible place"),
            Self::Incomplete => f.write_str("a frame whose last buffers are missing"),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Ring(violation)
    }
}

/// The per-packet header of a frame, as it was in memory at one time.
pub(crate) struct Header {
    pub(crate) base: NetHdr,
    /// Members of the base that say what the stack has to do about checksum and segments.
    offload: [u8; 10],
    /// Value and kind of the hash, if there can be one.
    hash: Option<(u32, u16)>,
}

/// A poll: what the user wants, and what was received.
pub(crate) struct Batch {
    checksum: bool,
    hash: bool,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// State of a receive queue.
pub(crate) struct Rx {
    pub(crate) ring: Ring<RingMemory, KVec<Slot<RxBuffer, ()>>>,
    pub(crate) stats: Arc<RxStats>,
    pub(crate) index: u16,
    pub(crate) features: u64,
    /// What a frame leaves of a buffer is posted again.
    rests: bool,
    /// Length of the per-packet header.
    pub(crate) header: u32,
    /// Buffers that any frame fits into.
    enough: u16,
    /// The card broke a rule; said once.
    failed: bool,
    /// Buffers are laid out for an XDP program.
    program: bool,
    /// Frames that it sends.
    pub(crate) pending: KVec<XdpFrame>,
    /// What is known of the interrupt that the channel waits for.
    pub(crate) watch: Watch,
    /// Headers have buffers of their own, of which these wait for a page to be posted with.
    pub(crate) heads: Option<KVec<RxBuffer>>,
}

impl Rx {
    pub(crate) fn new(nic: &Nic<'_>, pair: u16, shape: Shape) -> Result<Self> {
        let size = shape.rx_ring;
        let mut slots = KVec::with_capacity(usize::from(size), GFP_KERNEL)?;
        for _ in 0..size {
            slots.push(Slot::new(), GFP_KERNEL)?;
        }
        let memory = RingMemory::new(nic.dev.as_ref(), size, Tables::NONE)?;
        let (_, stats) = nic.queue_stats.get(usize::from(pair)).ok_or(EINVAL)?;
        let features = nic.identity.features;
        let header = hdr::size(features) as u32;
        Ok(Self {
            ring: Ring::new(memory, slots).map_err(|_| EINVAL)?,
            stats: stats.clone(),
            index: queue::rx_index(pair),
            features,
            rests: false,
            header,
            // Large frames are as long, whatever the MTU is.
            enough: (queue::MAX_FRAME as u32 + header).div_ceil(LEAST_REST) as u16,
            failed: false,
            program: shape.program.is_some(),
            pending: xdp::pending(shape.program)?,
            watch: Watch::default(),
            heads: if shape.split {
                Some(KVec::with_capacity(usize::from(size / 2), GFP_KERNEL)?)
            } else {
                None
            },
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
        let layouts: &[Layout] = if self.program {
            &[Layout::program(self.header)]
        } else if self.heads.is_some() {
            &[Layout::PAYLOAD]
        } else {
            &[Layout::of_ring(self.ring.size()), Layout::PAGES]
        };
        for layout in layouts {
            let params = PoolParams {
                buffers: self.ring.size(),
                order: layout.order,
                headroom: layout.headroom,
                tailroom: layout.tailroom,
            };
            // The buffers go before their pool is replaced.
            self.ring.reset(drop);
            dev.create_pool(pair, params)?;
            self.make_heads(|| dev.alloc_buffer(pair))?;
            // Without mergeable buffers any frame has to fit into each.
            self.rests = layout.rests && self.features & features::MRG_RXBUF != 0;
            self.post(|| dev.alloc_buffer(pair));
            if self.ring.free() <= self.ring.size() / 2 {
                return Ok(());
            }
        }
        Err(ENOMEM)
    }

    /// Shows the card what was posted; returns the avail index.
    pub(crate) fn publish(&mut self) -> u16 {
        // The card is told when it starts; the ring began at index 0.
        let _ = self.ring.publish();
        self.ring.in_flight()
    }

    fn post(&mut self, alloc: impl Fn() -> Option<PoolBuffer>) {
        if self.heads.is_some() {
            return self.post_split(alloc);
        }
        while self.ring.free() > 0 {
            let Some(buffer) = alloc() else {
                self.stats.queue.alloc_failed.add(1);
                return;
            };
            if self.ring.post(RxBuffer(buffer)).is_err() {
                return;
            }
        }
    }

    /// Replaces the buffers that were taken. `Some`: ring the doorbell with this value.
    #[inline]
    pub(crate) fn refill(&mut self, napi: &Napi<'_, Nic<'_>>, force: bool) -> Option<u16> {
        if self.ring.free() >= REFILL || force {
            self.post(|| napi.alloc_buffer());
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
        let wanted = napi.device().features();
        let mut batch = Batch {
            checksum: wanted.contains(Features::RX_CHECKSUM),
            hash: wanted.contains(Features::RX_HASH),
            packets: 0,
            bytes: 0,
        };
        let xdp = napi.xdp();
        let outcome = loop {
            if *done >= budget || self.failed {
                break Ok(());
            }
            let frame = match &xdp {
                None if self.heads.is_some() => self.frame_split(napi, &mut batch),
                None => self.frame(napi, &mut batch),
                Some(xdp) => self.frame_for_program(napi, xdp, &mut batch),
            };
            match frame {
                Ok(false) => break Ok(()),
                Ok(true) => {
                    *done += 1;
                    // Keep the card supplied in a long poll; the doorbell follows at its end.
                    if self.ring.free() >= self.ring.size() / 2 {
                        self.post(|| napi.alloc_buffer());
                        if self.ring.free() >= self.ring.size() / 2 {
                            break Ok(());
                        }
                    }
                }
                Err(failure) => break Err(failure),
            }
        };
        self.send_pending(napi);
        self.stats.queue.packets.add(batch.packets);
        self.stats.queue.bytes.add(batch.bytes);
        outcome
    }

    /// Takes one frame from the ring. False if there is none.
    #[inline]
    fn frame(&mut self, napi: &Napi<'_, Nic<'_>>, batch: &mut Batch) -> Result<bool, Failure> {
        let (skip, features) = (self.header, self.features);
        let Some((RxBuffer(buffer), len)) = self.ring.peek()? else {
            return Ok(false);
        };
        buffer.sync_for_cpu(len);
        let Some(header) = Header::read(buffer, len, features) else {
            self.ring.repost();
            self.stats.queue.bad_frames.add(1);
            return Ok(true);
        };
        let buffers = header.buffers(features)?;
        let first = len - skip;
        let headers = if first > COPY || header.base.gso_type != hdr::GSO_NONE {
            header.length(napi.device(), buffer, skip, first)
        } else {
            first
        };
        let (skb, total) = if buffers == 1 && first <= COPY {
            let skb = RxSkb::copy(napi, buffer, skip, first);
            buffer.sync_for_device(len);
            self.ring.repost();
            self.stats.queue.copied.add(1);
            (skb, first)
        } else {
            let linear = headers.min(MAX_HEADERS);
            let skb = RxSkb::copy(napi, buffer, skip, linear);
            self.gather(skb, buffers, skip + linear)?
        };
        match skb {
            Some(skb) => self.deliver(napi, skb, &header, total, headers, batch),
            None => self.stats.queue.dropped.add(1),
        }
        Ok(true)
    }

    /// Takes the buffers of a frame from the ring, and adds what is in them to the skb, but for the
    /// first `skip` bytes. Gives that and the length of the frame. Without an skb the buffers are
    /// posted again.
    fn gather(
        &mut self,
        mut skb: Option<RxSkb>,
        buffers: u16,
        skip: u32,
    ) -> Result<(Option<RxSkb>, u32), Failure> {
        let mut total = 0;
        for n in 0..buffers {
            let skip = if n == 0 { skip } else { 0 };
            let len = match self.ring.peek() {
                Ok(Some((RxBuffer(buffer), len))) => {
                    buffer.sync_for_cpu(len);
                    len
                }
                // The card makes the buffers of a frame visible at once.
                Ok(None) => return Err(give_up(skb, Failure::Incomplete)),
                Err(violation) => return Err(give_up(skb, violation.into())),
            };
            if len == 0 {
                return Err(give_up(skb, Failure::Empty));
            }
            total += len;
            let Some(skb) = skb.as_mut().filter(|_| len > skip) else {
                self.ring.repost();
                continue;
            };
            if let Ok(Some((RxBuffer(mut buffer), len))) = self.ring.take() {
                let rest = if self.rests {
                    buffer.split_off(len, LEAST_REST)
                } else {
                    None
                };
                // There is room: the buffers were counted, and lengths are checked by the ring.
                let _ = skb.add(buffer, skip, len - skip);
                if let Some(rest) = rest {
                    // In the place that just became free.
                    let _ = self.ring.post(RxBuffer(rest));
                }
            }
        }
        Ok((skb, total - self.header))
    }

    /// Hands a frame of `len` bytes to the stack, the first `headers` of which are protocol headers.
    #[inline]
    pub(crate) fn deliver(
        &self,
        napi: &Napi<'_, Nic<'_>>,
        mut skb: RxSkb,
        header: &Header,
        len: u32,
        headers: u32,
        batch: &mut Batch,
    ) {
        let stats = &self.stats.queue;
        let base = &header.base;
        let (partial, large) = (
            base.flags & hdr::F_NEEDS_CSUM != 0,
            base.gso_type != hdr::GSO_NONE,
        );
        let segments = match len.checked_sub(headers) {
            Some(payload) if large && base.gso_size != 0 => {
                payload.div_ceil(u32::from(base.gso_size)).max(1)
            }
            _ => 1,
        };
        if base.flags & hdr::F_DATA_VALID != 0 && self.features & features::RX_CSUM != 0 {
            if batch.checksum {
                skb.set_checksum_valid();
            }
            stats.csum_unnecessary.add(1);
        }
        let mut good = len <= queue::MAX_FRAME as u32 && header.agreed(self.features);
        if good && (partial || large) {
            let segments = segments.min(u16::MAX.into()) as u16;
            good = skb.set_offload(napi.device(), &header.offload, segments);
        }
        if !good {
            skb.drop_with(DropReason::BadDeviceHeader);
            stats.bad_frames.add(1);
            return;
        }
        if let (Some((hash, kind)), true) = (header.hash, batch.hash) {
            match kind {
                hdr::HASH_IPV4 | hdr::HASH_IPV6 => skb.set_hash(hash, false),
                hdr::HASH_TCPV4 | hdr::HASH_UDPV4 | hdr::HASH_TCPV6 | hdr::HASH_UDPV6 => {
                    skb.set_hash(hash, true);
                }
                _ => {}
            }
        }
        let Some(received) = skb.receive(napi) else {
            stats.bad_frames.add(1);
            return;
        };
        batch.packets += 1;
        batch.bytes += u64::from(len);
        self.stats.protocols.count(received.protocol);
        if received.multicast {
            stats.multicast.add(1);
        }
        if partial {
            stats.csum_partial.add(1);
        }
        if large {
            stats.hw_gro_packets.add(1);
            stats.hw_gro_bytes.add(u64::from(len));
            stats.hw_gro_wire_packets.add(segments.into());
        }
    }

    /// Notes that the queue failed. True the first time.
    pub(crate) fn fail(&mut self, why: &Failure) -> bool {
        if !self.failed {
            let stats = &self.stats.queue;
            stats.errors.add(1);
            match why {
                Failure::Ring(Violation::UsedIndex { .. }) => &stats.bad_index,
                Failure::Ring(Violation::IdRange(_) | Violation::IdNotHeld(_)) => &stats.bad_id,
                Failure::Ring(Violation::Length { .. }) => &stats.bad_length,
                Failure::BufferCount(_) | Failure::Incomplete | Failure::Empty | Failure::Split => {
                    &stats.bad_buffers
                }
            }
            .add(1);
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

/// Drops a frame of which the card did not give all.
pub(crate) fn give_up(skb: Option<RxSkb>, failure: Failure) -> Failure {
    if let Some(skb) = skb {
        skb.drop_with(DropReason::BadDeviceHeader);
    }
    failure
}

impl Header {
    /// The header at the start of a buffer that the card wrote `len` bytes into. `None` if it cannot
    /// be all there.
    #[inline]
    pub(crate) fn read(buffer: &PoolBuffer, len: u32, features: u64) -> Option<Self> {
        const BASE: usize = hdr::SIZE;
        const HASHED: usize = hdr::SIZE + hdr::HASH_SIZE;
        if len < hdr::size(features) as u32 {
            return None;
        }
        let (base, hash) = if features & features::HASH_REPORT != 0 {
            let [base @ .., h0, h1, h2, h3, k0, k1, _, _] = buffer.read::<HASHED>(0)?;
            let hash = u32::from_le_bytes([h0, h1, h2, h3]);
            (base, Some((hash, u16::from_le_bytes([k0, k1]))))
        } else {
            (buffer.read::<BASE>(0)?, None)
        };
        let [offload @ .., _, _] = base;
        Some(Self {
            base: NetHdr::from_bytes(&base),
            offload,
            hash,
        })
    }

    /// Number of buffers of the frame.
    #[inline]
    pub(crate) fn buffers(&self, features: u64) -> Result<u16, Failure> {
        match self.base.num_buffers {
            _ if features & features::MRG_RXBUF == 0 => Ok(1),
            n @ 1..=MAX_BUFFERS => Ok(n),
            n => Err(Failure::BufferCount(n)),
        }
    }

    /// True if the card may say of a frame's checksum and segments what this one says, with these
    /// features.
    #[inline]
    fn agreed(&self, features: u64) -> bool {
        let mut needs = 0;
        if self.base.flags & hdr::F_NEEDS_CSUM != 0 {
            needs |= features::RX_CSUM;
        }
        if self.base.gso_type & hdr::GSO_ECN != 0 {
            needs |= features::RX_ECN;
        }
        needs |= match self.base.gso_type & !hdr::GSO_ECN {
            hdr::GSO_NONE => 0,
            // The checksum tells where the headers are that all segments repeat.
            _ if self.base.flags & hdr::F_NEEDS_CSUM == 0 => return false,
            hdr::GSO_TCPV4 => features::RX_TSO4,
            hdr::GSO_TCPV6 => features::RX_TSO6,
            hdr::GSO_UDP_L4 => features::RX_USO,
            _ => return false,
        };
        features & needs == needs
    }

    /// Length of the protocol headers of a frame whose first `len` bytes are in the buffer, at
    /// `offset`.
    pub(crate) fn length(
        &self,
        dev: &NetDevice<Nic<'_>>,
        buffer: &PoolBuffer,
        offset: u32,
        len: u32,
    ) -> u32 {
        // Where the transport header and, in it, the checksum is, tells enough of TCP and UDP.
        if self.base.flags & hdr::F_NEEDS_CSUM != 0 {
            let start = u32::from(self.base.csum_start);
            let transport = match self.base.csum_offset {
                TCP_CHECK => buffer
                    .read::<1>(offset + start + TCP_DATA_OFFSET)
                    .map(|[words]| u32::from(words >> 4) * 4),
                UDP_CHECK => Some(UDP_HEADER),
                _ => None,
            };
            match transport {
                Some(transport) if start + transport <= len => return start + transport,
                _ => {}
            }
        }
        buffer.headers(dev, offset, len)
    }
}
