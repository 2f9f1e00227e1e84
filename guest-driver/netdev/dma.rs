// SPDX-License-Identifier: GPL-2.0

//! Memory that the driver shares with the device: streaming mappings of frames, and coherent
//! memory that both sides access all the time.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use core::{
    mem::MaybeUninit,
    num::NonZeroU32,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    prelude::*, //
};

use crate::{
    bindings as b,
    series, //
};

pub(crate) fn as_raw(dev: &Device<Bound>) -> *mut b::device {
    // `device::Device` is transparent over `struct device`, whose changes C code synchronizes.
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// Memory for the device to read: a mapped part of an skb, or of [`SharedMemory`]. Dropping it unmaps
/// the former.
///
/// # Invariants
///
/// The bytes are mapped for the device to read, or part of coherent memory, and are at least one. Who has it keeps what the
/// memory belongs to: the skb, or the [`SharedMemory`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_queue.rs
/// impl Buffer for Part {
///     fn addr(&self) -> u64 {
///         self.0.addr()
///     }
///
///     fn length(&self) -> u32 {
///         self.0.length()
///     }
/// }
/// ```
pub struct Segment<'a> {
    /// For whom to unmap it, if that is necessary.
    mapped: Option<&'a Device<Bound>>,
    addr: u64,
    len: NonZeroU32,
}

impl Segment<'_> {
    /// Bytes of shared memory, which must be kept for as long as the device reads. `None` if they do
    /// not lie inside it, or are none.
    #[inline]
    pub fn shared(memory: &SharedMemory, offset: usize, len: u32) -> Option<Self> {
        if offset.checked_add(len as usize)? > memory.bytes {
            return None;
        }
        Some(Self {
            mapped: None,
            addr: memory.dma_address() + offset as u64,
            len: NonZeroU32::new(len)?,
        })
    }

    /// Copies an skb to shared memory, with `header` before it.
    #[inline]
    pub(crate) fn copy(
        memory: &SharedMemory,
        offset: usize,
        header: &[u8],
        skb: NonNull<b::sk_buff>,
    ) -> Option<Self> {
        // SAFETY: the skb is valid.
        let frame = unsafe { skb.as_ref().len } as usize;
        let len = header.len().checked_add(frame)?;
        let segment = Self::shared(memory, offset, u32::try_from(len).ok()?)?;
        let to = memory.memory.as_mut_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: the skb is valid, and so many bytes lie inside the memory, which nobody holds
        // references to; what the device reads meanwhile is its own affair.
        let copied = unsafe {
            b::nd_skb_copy_out(
                skb.as_ptr(),
                header.as_ptr().cast(),
                header.len() as u32,
                to.cast(),
            )
        };
        copied.then_some(segment)
    }

    /// Bus address.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes, at least one.
    #[inline]
    pub fn length(&self) -> u32 {
        self.len.get()
    }
}

impl Drop for Segment<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(dev) = self.mapped {
            // SAFETY: `Segments` mapped this with this device, address and length.
            unsafe { b::nd_dma_unmap(as_raw(dev), self.addr, self.len.get()) }
        }
    }
}

/// Room for the segments of one frame. Not initialized, as it is large.
///
/// To be made where it is used, on the stack.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// let mut space = SegmentSpace::new();
/// let Ok(mut segments) = skb.map(nic.dev.as_ref(), header, &mut space) else {
///     skb.drop_with(DropReason::NoMemory);
///     return Err(());
/// };
/// ```
pub struct SegmentSpace(MaybeUninit<b::nd_tx_parts>);

impl SegmentSpace {
    /// Empty space.
    #[inline]
    pub fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

impl Default for SegmentSpace {
    fn default() -> Self {
        Self::new()
    }
}

/// The segments of a mapped frame, in order. Those that are not taken are unmapped.
///
/// An iterator, to be used in the context of [`Operations::start_xmit`](crate::Operations::start_xmit) or of a poll.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// let Ok(mut segments) = skb.map(nic.dev.as_ref(), header, &mut space) else {
///     skb.drop_with(DropReason::NoMemory);
///     return Err(());
/// };
/// let apart = !segments.hold_header();
/// ```
pub struct Segments<'s, 'a> {
    dev: &'a Device<Bound>,
    parts: &'s SegmentSpace,
    next: u16,
    count: u16,
    header: bool,
    unmap: bool,
}

impl<'s, 'a> Segments<'s, 'a> {
    /// Maps an skb, if possible with `header` in its headroom.
    #[inline]
    pub(crate) fn map(
        dev: &'a Device<Bound>,
        skb: NonNull<b::sk_buff>,
        header: &[u8],
        space: &'s mut SegmentSpace,
    ) -> Result<Self> {
        // SAFETY: the device is bound, the skb is valid and its headroom nobody else's, for it is in
        // the hands of the driver; there is room for as many parts as it may have.
        let mapped = unsafe {
            b::nd_skb_map(
                as_raw(dev),
                skb.as_ptr(),
                header.as_ptr().cast(),
                header.len() as u32,
                space.0.as_mut_ptr(),
            )
        };
        // SAFETY: the parts were set if this is true.
        unsafe { Self::new(dev, space, mapped) }
    }

    /// Maps a frame of an XDP program with `header` in its headroom, which must have the room.
    #[inline]
    pub(crate) fn map_xdp(
        dev: &'a Device<Bound>,
        frame: NonNull<b::xdp_frame>,
        header: &[u8],
        space: &'s mut SegmentSpace,
    ) -> Result<Self> {
        // SAFETY: as in `map`; the frame has one owner.
        let mapped = unsafe {
            b::nd_xdp_map(
                as_raw(dev),
                frame.as_ptr(),
                header.as_ptr().cast(),
                header.len() as u32,
                space.0.as_mut_ptr(),
            )
        };
        // SAFETY: the parts were set if this is true.
        unsafe { Self::new(dev, space, mapped) }
    }

    /// # Safety
    ///
    /// If `mapped`, the parts in `space` were mapped for the device and set.
    #[inline]
    unsafe fn new(
        dev: &'a Device<Bound>,
        space: &'s mut SegmentSpace,
        mapped: bool,
    ) -> Result<Self> {
        if !mapped {
            return Err(ENOMEM);
        }
        let p = space.0.as_ptr();
        // SAFETY: by the caller.
        let (count, header, unmap) = unsafe { ((*p).count, (*p).header, (*p).unmap) };
        Ok(Self {
            dev,
            parts: space,
            next: 0,
            count,
            header,
            unmap,
        })
    }

    /// True if the first segment begins with the header that was given.
    #[inline]
    pub fn hold_header(&self) -> bool {
        self.header
    }

    /// How many are left.
    #[inline]
    pub fn left(&self) -> u16 {
        self.count.wrapping_sub(self.next)
    }
}

impl<'a> Iterator for Segments<'_, 'a> {
    type Item = Segment<'a>;

    #[inline]
    fn next(&mut self) -> Option<Segment<'a>> {
        if self.next >= self.count {
            return None;
        }
        // SAFETY: the first `count` parts, which the array has, were initialized in `map`.
        let part = unsafe {
            (&raw const (*self.parts.0.as_ptr()).part)
                .cast::<b::nd_tx_part>()
                .add(usize::from(self.next))
                .read()
        };
        self.next += 1;
        Some(Segment {
            mapped: self.unmap.then_some(self.dev),
            addr: part.addr,
            // None is empty; `None` would leave the mapping behind, which harms nobody.
            len: NonZeroU32::new(part.len)?,
        })
    }
}

impl Drop for Segments<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// Coherent memory that the device may read and write at any time.
///
/// Accesses are single, volatile and in CPU byte order; the memory is little-endian. Those outside
/// of the memory, or not aligned, read as zero and write nothing. Ordering is up to the caller,
/// with [`load_acquire`](Self::load_acquire), [`store_release`](Self::store_release) and
/// [`full_barrier`].
///
/// Any context, but for making and dropping it, which is for process context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_queue.rs
/// frames: SharedMemory::new(dev, usize::from(SIZE) * STRIDE)?,
/// ```
pub struct SharedMemory {
    memory: Coherent<[u64]>,
    bytes: usize,
}

impl SharedMemory {
    /// At least `bytes` zeroed bytes.
    pub fn new(dev: &Device<Bound>, bytes: usize) -> Result<Self> {
        let memory = Coherent::zeroed_slice(dev, bytes.div_ceil(8), GFP_KERNEL)?;
        let bytes = memory.size();
        Ok(Self { memory, bytes })
    }

    /// Bus address of the first byte. The memory is aligned to its size, up to a page.
    pub fn dma_address(&self) -> u64 {
        series::dma_address(&self.memory)
    }

    /// Pointer to an element, if it lies inside the memory and is aligned.
    #[inline]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if offset.checked_add(size_of::<T>())? > self.bytes || offset % align_of::<T>() != 0 {
            return None;
        }
        Some(
            self.memory
                .as_mut_ptr()
                .cast::<u8>()
                .wrapping_add(offset)
                .cast(),
        )
    }

    /// Reads a 16-bit value.
    #[inline]
    pub fn read16(&self, offset: usize) -> u16 {
        let Some(p) = self.at::<u16>(offset) else {
            return 0;
        };
        // SAFETY: the pointer is valid and aligned; volatile, as the device may write.
        u16::from_le(unsafe { p.read_volatile() })
    }

    /// Writes a 16-bit value.
    #[inline]
    pub fn write16(&self, offset: usize, value: u16) {
        if let Some(p) = self.at::<u16>(offset) {
            // SAFETY: as in `read16`.
            unsafe { p.write_volatile(value.to_le()) }
        }
    }

    /// Reads a 32-bit value.
    #[inline]
    pub fn read32(&self, offset: usize) -> u32 {
        let Some(p) = self.at::<u32>(offset) else {
            return 0;
        };
        // SAFETY: as in `read16`.
        u32::from_le(unsafe { p.read_volatile() })
    }

    /// Writes a 32-bit value.
    #[inline]
    pub fn write32(&self, offset: usize, value: u32) {
        if let Some(p) = self.at::<u32>(offset) {
            // SAFETY: as in `read16`.
            unsafe { p.write_volatile(value.to_le()) }
        }
    }

    /// Writes a 64-bit value.
    #[inline]
    pub fn write64(&self, offset: usize, value: u64) {
        if let Some(p) = self.at::<u64>(offset) {
            // SAFETY: as in `read16`.
            unsafe { p.write_volatile(value.to_le()) }
        }
    }

    /// Writes bytes, in no particular order.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            if let Some(p) = self.at::<u8>(offset.wrapping_add(i)) {
                // SAFETY: as in `read16`.
                unsafe { p.write_volatile(*byte) }
            }
        }
    }

    /// Reads a 16-bit value before everything that the program reads later.
    #[inline]
    pub fn load_acquire(&self, offset: usize) -> u16 {
        let value = self.read16(offset);
        series::dma_read_barrier();
        value
    }

    /// Writes a 16-bit value after everything that the program wrote before.
    #[inline]
    pub fn store_release(&self, offset: usize, value: u16) {
        series::dma_write_barrier();
        self.write16(offset, value);
    }

    /// Sets all bytes to zero.
    pub fn clear(&self) {
        for offset in (0..self.bytes).step_by(8) {
            self.write64(offset, 0);
        }
    }
}

/// Orders all accesses before against all after, as the device sees them.
///
/// The device may be a thread of the host: a barrier meant for other CPUs of this machine, which
/// `smp_mb()` is, would not do where the machine is emulated.
#[inline]
pub fn full_barrier() {
    series::memory_barrier();
}
