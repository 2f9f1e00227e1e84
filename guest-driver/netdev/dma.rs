// SPDX-License-Identifier: GPL-2.0

//! Memory that the driver shares with the device: streaming mappings of frames, and coherent
//! memory that both sides access all the time.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use core::ptr::NonNull;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    prelude::*,
    sync::barrier, //
};

use crate::bindings as b;

pub(crate) fn as_raw(dev: &Device<Bound>) -> *mut b::device {
    // `device::Device` is transparent over `struct device`, whose changes C code synchronizes.
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// Part of an skb, mapped for the device to read. Dropping it unmaps it.
pub struct Segment<'a> {
    dev: &'a Device<Bound>,
    addr: u64,
    len: u32,
    /// A fragment, else the linear part: they are unmapped in different ways.
    frag: bool,
}

impl<'a> Segment<'a> {
    /// Maps the linear part (0) or a fragment (from 1 on), which exists.
    #[inline]
    pub(crate) fn map(
        dev: &'a Device<Bound>,
        skb: NonNull<b::sk_buff>,
        index: u32,
    ) -> Result<Option<Self>> {
        let raw = as_raw(dev);
        let mut len = 0;
        let frag = index > 0;
        // SAFETY: the device is bound, the skb valid and the part exists.
        let addr = unsafe {
            if frag {
                b::nd_skb_map_frag(raw, skb.as_ptr(), index - 1, &mut len)
            } else {
                b::nd_skb_map_head(raw, skb.as_ptr(), &mut len)
            }
        };
        // SAFETY: the device is bound; the address came from a mapping function.
        if unsafe { b::nd_dma_mapping_error(raw, addr) } {
            return Err(ENOMEM);
        }
        let segment = Self {
            dev,
            addr,
            len,
            frag,
        };
        Ok((len != 0).then_some(segment))
    }

    /// Bus address.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes, at least one.
    #[inline]
    pub fn length(&self) -> u32 {
        self.len
    }
}

impl Drop for Segment<'_> {
    #[inline]
    fn drop(&mut self) {
        let raw = as_raw(self.dev);
        // SAFETY: mapped in `map` with this device, address and length.
        unsafe {
            if self.frag {
                b::nd_dma_unmap_frag(raw, self.addr, self.len)
            } else {
                b::nd_dma_unmap_head(raw, self.addr, self.len)
            }
        }
    }
}

/// Coherent memory that the device may read and write at any time.
///
/// Accesses are single, volatile and in CPU byte order; the memory is little-endian. Those outside
/// of the memory, or not aligned, read as zero and write nothing. Ordering is up to the caller,
/// with [`load_acquire`](Self::load_acquire), [`store_release`](Self::store_release) and
/// [`full_barrier`].
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
        self.memory.dma_address()
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

    /// Reads a 16-bit value before everything that the program reads later.
    #[inline]
    pub fn load_acquire(&self, offset: usize) -> u16 {
        let value = self.read16(offset);
        barrier::dma_mb(barrier::Read);
        value
    }

    /// Writes a 16-bit value after everything that the program wrote before.
    #[inline]
    pub fn store_release(&self, offset: usize, value: u16) {
        barrier::dma_mb(barrier::Write);
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
    barrier::mb(barrier::Full);
}
