// SPDX-License-Identifier: GPL-2.0

//! Socket buffers and who owns them.
//!
//! A frame to send passes through two types: [`SkBuff`] is in the driver's hands, which must say
//! what becomes of it, and [`InFlightSkb`] waits in a ring while the card reads its memory. A
//! received frame is an [`RxSkb`] from the first page to the stack.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};

use crate::{
    bindings as b,
    dma::{
        Segment,
        SegmentSpace,
        Segments,
        SharedMemory, //
    },
    Napi,
    NetDevice,
    Operations,
    PoolBuffer, //
};

/// Most fragments that an skb has beside its linear part.
pub const MAX_FRAGS: u32 = b::ND_MAX_SKB_FRAGS;

/// Why a frame was dropped: what `dropwatch` and the `skb:kfree_skb` event show.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_queue.rs
/// match len {
///     ..SHORTEST => return Err(DropReason::TooSmall),
///     SHORTEST..=LONGEST => {}
///     _ => return Err(DropReason::TooBig),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// The device is not ready to send.
    DeviceNotReady = b::skb_drop_reason_SKB_DROP_REASON_DEV_READY,
    /// No descriptor was free.
    RingFull = b::skb_drop_reason_SKB_DROP_REASON_FULL_RING,
    /// Memory or a DMA mapping was not to be had.
    NoMemory = b::skb_drop_reason_SKB_DROP_REASON_NOMEM,
    /// What the device said of the frame contradicts itself.
    BadDeviceHeader = b::skb_drop_reason_SKB_DROP_REASON_DEV_HDR,
    /// The frame has a partial checksum that makes no sense.
    BadChecksum = b::skb_drop_reason_SKB_DROP_REASON_SKB_CSUM,
    /// The frame is to be cut into segments in a way that the device does not know.
    BadSegmentation = b::skb_drop_reason_SKB_DROP_REASON_SKB_GSO_SEG,
    /// The frame is shorter than an Ethernet header.
    TooSmall = b::skb_drop_reason_SKB_DROP_REASON_PKT_TOO_SMALL,
    /// The frame is longer than the device takes.
    TooBig = b::skb_drop_reason_SKB_DROP_REASON_PKT_TOO_BIG,
    /// The queue was emptied.
    Purged = b::skb_drop_reason_SKB_DROP_REASON_QUEUE_PURGE,
}

/// Where the device has to put the checksum of a frame.
///
/// What [`TxMeta::checksum`] returns. Both come from whoever made the frame, and may lie behind its end.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// let Some(checksum) = meta.checksum() else {
///     return if meta.is_segmented() {
///         Err(DropReason::BadSegmentation)
///     } else {
///         Ok(NetHdr::default())
///     };
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Offset in the frame at which the sum starts.
    pub start: u16,
    /// Offset from there at which it is stored.
    pub offset: u16,
}

/// How a frame is cut into segments.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// SegmentKind::TcpV4 => (hdr::GSO_TCPV4, TCP_HLEN),
/// SegmentKind::TcpV6 => (hdr::GSO_TCPV6, TCP_HLEN),
/// SegmentKind::Udp => (hdr::GSO_UDP_L4, UDP_HLEN),
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, a datagram per segment.
    Udp,
}

/// What the device needs to know to cut a frame into segments.
///
/// What [`TxMeta::segmentation`] returns. It comes from whoever made the frame: to be checked before a device is told.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// let how = meta.segmentation().ok_or(DropReason::BadSegmentation)?;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The protocol.
    pub kind: SegmentKind,
    /// The first segment has CWR set, and no other.
    pub ecn: bool,
    /// Payload bytes of a segment.
    pub size: u16,
    /// Number of segments.
    pub count: u16,
    /// Bytes of headers that each segment begins with.
    pub header_len: u16,
}

/// What a driver wants to know of a frame to send.
///
/// Read once, before the driver has the frame: later the frame may be gone.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase6_statistics.rs
/// if ring.send(queue, skb, meta.len()) {
///     self.counters.queued(meta.protocol());
/// } else {
///     self.counters.add(Count::TxDropped, 1);
/// }
/// ```
#[derive(Clone, Copy)]
pub struct TxMeta(b::nd_tx_meta);

impl TxMeta {
    /// Bytes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.0.len
    }

    /// True if there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// EtherType, in CPU byte order.
    #[inline]
    pub fn protocol(&self) -> u16 {
        self.0.protocol
    }

    /// Another frame follows at once.
    #[inline]
    pub fn more(&self) -> bool {
        self.0.more
    }

    /// Index of the transmit queue.
    #[inline]
    pub(crate) fn queue(&self) -> u16 {
        self.0.queue
    }

    /// The checksum that is still to be completed.
    #[inline]
    pub fn checksum(&self) -> Option<PartialChecksum> {
        self.0.csum_partial.then_some(PartialChecksum {
            start: self.0.csum_start,
            offset: self.0.csum_offset,
        })
    }

    /// True if the frame is to be cut into segments.
    #[inline]
    pub fn is_segmented(&self) -> bool {
        self.0.gso_size != 0
    }

    /// How to cut a frame that is to be cut; `None` in a way for which there is no
    /// [`Features`](crate::Features).
    #[inline]
    pub fn segmentation(&self) -> Option<Segmentation> {
        // The core has looked at headers from outside before it leaves them to a device, and a fixed
        // IPv4 id may become a growing one (NETIF_F_TSO_MANGLEID, which the core adds to TSO).
        let ignored = b::ND_GSO_DODGY | b::ND_GSO_FIXEDID;
        let ecn = self.0.gso_type & b::ND_GSO_ECN != 0;
        let kind = match self.0.gso_type & !(b::ND_GSO_ECN | ignored) {
            b::ND_GSO_TCPV4 => SegmentKind::TcpV4,
            b::ND_GSO_TCPV6 => SegmentKind::TcpV6,
            b::ND_GSO_UDP_L4 => SegmentKind::Udp,
            _ => return None,
        };
        Some(Segmentation {
            kind,
            ecn,
            size: self.0.gso_size,
            count: self.0.gso_segs,
            header_len: self.0.header_len,
        })
    }
}

/// A frame to send, owned by the driver.
///
/// It must be disposed of by one of the methods that take `self`, so that each freed frame says
/// why: a path that merely drops it does not link.
///
/// # Invariants
///
/// The pointer is to a valid skb, which is owned.
///
/// Any context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_queue.rs
/// match self.put(&skb, meta.len() as usize) {
///     Ok(()) => {
///         nic.tx_packets.add(1);
///         nic.tx_bytes.add(meta.len().into());
///         // The copy is on its way, so this is no longer needed.
///         skb.consume::<Nic<'_>>(None);
///     }
///     Err(reason) => {
///         nic.tx_dropped.add(1);
///         skb.drop_with(reason);
///     }
/// }
/// ```
#[must_use]
pub struct SkBuff(NonNull<b::sk_buff>);

// SAFETY: an owned skb may be handed to another context.
unsafe impl Send for SkBuff {}

impl SkBuff {
    /// # Safety
    ///
    /// `skb` is valid, and the caller passes it on.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: NonNull<b::sk_buff>) -> Self {
        Self(skb)
    }

    #[inline]
    fn into_raw(self) -> *mut b::sk_buff {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Length, protocol, checksum and so on. Only within a transmit callback.
    #[inline]
    pub(crate) fn meta(&self) -> TxMeta {
        let mut m = b::nd_tx_meta::default();
        // SAFETY: the skb is valid.
        unsafe { b::nd_skb_tx_meta(self.0.as_ptr(), &mut m) };
        TxMeta(m)
    }

    /// Maps the frame for the device to read, and takes its software time stamp if one is wanted.
    ///
    /// `header`, which the device wants before the frame, is written in front of the frame's first
    /// byte if there is room and no clone of the skb could see it; else it has to be passed otherwise.
    ///
    /// The skb must stay alive until the segments are dropped, or the device would read memory
    /// that has another owner: keep it as [`InFlightSkb`].
    #[inline]
    pub fn map<'s, 'a>(
        &self,
        dev: &'a Device<Bound>,
        header: &[u8],
        space: &'s mut SegmentSpace,
    ) -> Result<Segments<'s, 'a>> {
        Segments::map(dev, self.0, header, space)
    }

    /// Copies the frame, behind `header`, to shared memory for the device to read, and takes its
    /// software time stamp if one is wanted. `None` if it does not lie inside the memory, or cannot be
    /// read.
    #[inline]
    pub fn copy(
        &self,
        memory: &SharedMemory,
        offset: usize,
        header: &[u8],
    ) -> Option<Segment<'static>> {
        Segment::copy(memory, offset, header, self.0)
    }

    /// Copies bytes at `offset` out of the frame, wherever they lie. `None` if it does not have them.
    pub fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let (offset, len) = (c_int::try_from(offset).ok()?, c_int::try_from(N).ok()?);
        // SAFETY: the skb is valid, and there is room for so many bytes; the function checks the
        // range.
        let copied =
            unsafe { b::skb_copy_bits(self.0.as_ptr(), offset, bytes.as_mut_ptr().cast(), len) };
        (copied == 0).then_some(bytes)
    }

    /// Frees the frame as dropped. Any context.
    pub fn drop_with(self, reason: DropReason) {
        // SAFETY: ownership is passed on.
        unsafe { b::dev_kfree_skb_any_reason(self.into_raw(), reason as u32) }
    }

    /// Hands the frame to the card.
    #[inline]
    pub fn into_flight(self) -> InFlightSkb {
        let this = ManuallyDrop::new(self);
        InFlightSkb(this.0)
    }

    /// Frees the frame as sent. In a poll freeing is batched; else any context will do.
    #[inline]
    pub fn consume<T: Operations>(self, napi: Option<&Napi<'_, T>>) {
        let budget = napi.map_or(0, Napi::budget);
        // SAFETY: ownership is passed on; the budget is that of the running poll, or zero.
        unsafe { b::napi_consume_skb(self.into_raw(), budget) }
    }
}

impl Drop for SkBuff {
    #[inline(always)]
    fn drop(&mut self) {
        kernel::build_error!("an skb must be disposed of explicitly");
    }
}

/// A frame that the card may be reading. Dropped, it counts as purged from the queue.
///
/// Any context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_ring.rs
/// pub(crate) fn push(&mut self, skb: SkBuff, bytes: u32) -> bool {
///     if self.is_full() {
///         skb.drop_with(DropReason::RingFull);
///         return false;
///     }
///     self.slots[(self.head % SIZE) as usize] = Some((skb.into_flight(), bytes));
///     self.head = self.head.wrapping_add(1);
///     true
/// }
/// ```
pub struct InFlightSkb(NonNull<b::sk_buff>);

// SAFETY: as for `SkBuff`.
unsafe impl Send for InFlightSkb {}

impl InFlightSkb {
    /// The card is done with the frame.
    #[inline]
    pub fn complete(self) -> SkBuff {
        let this = ManuallyDrop::new(self);
        SkBuff(this.0)
    }
}

impl Drop for InFlightSkb {
    fn drop(&mut self) {
        // SAFETY: the skb is owned.
        unsafe { b::dev_kfree_skb_any_reason(self.0.as_ptr(), DropReason::Purged as u32) }
    }
}

/// A received frame under construction.
///
/// # Invariants
///
/// The pointer is to a valid skb, which is owned.
///
/// Dropped, it is freed. [`RxSkb::copy`], [`RxSkb::add`] and [`RxSkb::receive`] are for a poll.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase4_rx_ring.rs
/// match RxSkb::new(dev, &frame).and_then(|skb| skb.receive_later(dev)) {
///     Some(_) => self.rx_packets.add(1),
///     None => self.rx_dropped.add(1),
/// }
/// ```
pub struct RxSkb {
    skb: NonNull<b::sk_buff>,
    /// What the stack is told of it in the end.
    meta: b::nd_rx_meta,
}

// SAFETY: as for `SkBuff`.
unsafe impl Send for RxSkb {}

/// The C type has 16-bit members.
#[repr(C, align(2))]
struct AlignedHeader([u8; 10]);

/// What the stack made of a received frame.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/counters.rs
/// let Some(Received { protocol, .. }) = taken else {
///     return self.add(Count::RxDropped, 1);
/// };
/// self.add(Count::RxPackets, 1);
/// self.add(Count::RxBytes, bytes);
/// let count = match protocol {
///     0x0806 => Count::RxArp,
///     0x0800 => Count::RxIpv4,
///     0x86dd => Count::RxIpv6,
///     _ => Count::RxOther,
/// };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// EtherType, in CPU byte order.
    pub protocol: u16,
    /// True for a multicast frame that is no broadcast.
    pub multicast: bool,
}

impl Received {
    #[inline]
    fn from_raw(what: u32) -> Self {
        Self {
            protocol: what as u16,
            multicast: what & b::ND_RX_MULTICAST != 0,
        }
    }
}

impl RxSkb {
    /// # Safety
    ///
    /// `skb` is valid, and the caller passes it on.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: NonNull<b::sk_buff>) -> Self {
        Self {
            skb,
            meta: b::nd_rx_meta::default(),
        }
    }

    /// Makes an skb with a copy of `len` bytes of a buffer at `offset` as its linear part. `None` if
    /// there is no memory, or the bytes are not inside the buffer.
    ///
    /// Its memory comes from a pool of the channel and returns there. That of the slab allocator would
    /// be cleared for each frame, as kernels are built today: some 700 bytes for 64 of frame.
    #[inline]
    pub fn copy<T: Operations>(
        napi: &Napi<'_, T>,
        buffer: &PoolBuffer,
        offset: u32,
        len: u32,
    ) -> Option<Self> {
        let data = buffer.at(offset, len)?;
        let heads = napi.head_pool()?;
        // SAFETY: a poll is softirq context and has the exclusive use of its pool, and the bytes are
        // valid; should the device still write them, the copy has what they were at some time.
        let skb = NonNull::new(unsafe { b::nd_skb_copy(heads.as_ptr(), data.cast(), len) })?;
        // SAFETY: a new skb.
        Some(unsafe { Self::from_raw(skb) })
    }

    /// Makes an skb with a copy of a frame as its linear part. `None` if there is no memory. Any
    /// context.
    pub fn new<T: Operations>(dev: &NetDevice<T>, frame: &[u8]) -> Option<Self> {
        let len = u32::try_from(frame.len()).ok()?;
        // SAFETY: the device is valid, as are the bytes.
        let skb = unsafe { b::nd_skb_new(dev.as_raw(), frame.as_ptr().cast(), len) };
        // SAFETY: a new skb.
        NonNull::new(skb).map(|skb| unsafe { Self::from_raw(skb) })
    }

    /// Adds `len` bytes of a buffer at `offset` as a fragment, and charges the skb for all of the
    /// buffer. Gives it back if the skb has no room for another, or the bytes are not inside.
    #[inline]
    pub fn add(&mut self, buffer: PoolBuffer, offset: u32, len: u32) -> Result<(), PoolBuffer> {
        // SAFETY: the skb is valid.
        let frags = unsafe { b::nd_skb_frags(self.skb.as_ptr()) };
        if frags >= MAX_FRAGS || buffer.at(offset, len).is_none() {
            return Err(buffer);
        }
        let (start, truesize) = (buffer.start() + offset, buffer.length());
        // SAFETY: the skb is owned and has room for a fragment. It takes the reference to the page
        // over and is marked for recycling, so it gives that back to the pool.
        unsafe { b::nd_skb_add_page(self.skb.as_ptr(), buffer.into_page(), start, len, truesize) };
        Ok(())
    }

    /// Marks the checksum as verified by the device.
    #[inline]
    pub fn set_checksum_valid(&mut self) {
        self.meta.csum_unnecessary = true;
    }

    /// Has the stack complete the checksum, or take the frame for one of many segments, as a header
    /// in the form of `struct virtio_net_hdr` says. False if that contradicts itself or the frame.
    ///
    /// The stack is told to trust the headers of a large frame no more than the device is
    /// (`SKB_GSO_DODGY`): should it be split again, they are looked at first.
    #[must_use]
    #[inline]
    pub fn set_offload<T: Operations>(
        &mut self,
        dev: &NetDevice<T>,
        header: &[u8; 10],
        segments: u16,
    ) -> bool {
        if !self.has_header() {
            return false;
        }
        let (skb, header) = (self.skb.as_ptr(), AlignedHeader(*header));
        // SAFETY: the skb is owned and has an Ethernet header, and the device is valid. The header has
        // size and alignment of the C type, and the function is made for any content of it.
        unsafe { b::nd_skb_set_offload(dev.as_raw(), skb, (&raw const header).cast(), segments) }
    }

    /// Sets the hash of the frame's flow; `ports` says that it covers ports.
    #[inline]
    pub fn set_hash(&mut self, hash: u32, ports: bool) {
        self.meta.hash = hash;
        self.meta.hash_l3 = !ports;
        self.meta.hash_l4 = ports;
    }

    /// False if the linear part does not hold the Ethernet header, which the stack relies on.
    #[inline]
    fn has_header(&self) -> bool {
        const ETH_HLEN: u32 = 14;
        // SAFETY: the skb is owned.
        let (len, data_len) = unsafe { (self.skb.as_ref().len, self.skb.as_ref().data_len) };
        len.wrapping_sub(data_len) >= ETH_HLEN
    }

    /// Hands the frame to the stack. The linear part must hold at least the Ethernet header; shorter
    /// frames are dropped, with `None`.
    #[inline]
    pub fn receive<T: Operations>(self, napi: &Napi<'_, T>) -> Option<Received> {
        if !self.has_header() {
            self.drop_with(DropReason::TooSmall);
            return None;
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: ownership is passed on, within a poll of the context.
        let what = unsafe {
            b::nd_skb_receive(napi.as_raw(), this.skb.as_ptr(), napi.index(), &this.meta)
        };
        Some(Received::from_raw(what))
    }

    /// The same outside of a poll: the stack has it wait in a queue of this CPU. Any context.
    pub fn receive_later<T: Operations>(self, dev: &NetDevice<T>) -> Option<Received> {
        if !self.has_header() {
            self.drop_with(DropReason::TooSmall);
            return None;
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: ownership is passed on; the device is valid.
        let what = unsafe { b::nd_skb_receive_later(dev.as_raw(), this.skb.as_ptr(), &this.meta) };
        Some(Received::from_raw(what))
    }

    /// Frees the frame as dropped.
    pub fn drop_with(self, reason: DropReason) {
        let this = ManuallyDrop::new(self);
        // SAFETY: ownership is passed on.
        unsafe { b::dev_kfree_skb_any_reason(this.skb.as_ptr(), reason as u32) }
    }
}

impl Drop for RxSkb {
    fn drop(&mut self) {
        // SAFETY: the skb is owned.
        unsafe { b::dev_kfree_skb_any_reason(self.skb.as_ptr(), DropReason::Purged as u32) }
    }
}
