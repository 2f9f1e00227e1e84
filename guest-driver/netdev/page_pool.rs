// SPDX-License-Identifier: GPL-2.0

//! The page pool: pages that are mapped for DMA once and come back when their frames are freed.
//!
//! C header: [`include/net/page_pool/types.h`](srctree/include/net/page_pool/types.h)

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

use crate::{
    bindings as b,
    NetDevice,
    Operations, //
};

/// Size of a page.
pub const PAGE_SIZE: u32 = b::ND_PAGE_SIZE;

/// Beyond this the kernel's page allocator does not try hard.
const MAX_ORDER: u8 = 3;

/// What a pool is for.
///
/// For [`Locked::create_pool`](crate::Locked::create_pool): process context, RTNL lock held, before the channel is started.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/rx_queue.rs
/// dev.create_pool(
///     0,
///     PoolParams {
///         buffers: SIZE,
///         order: 0,
///         headroom: 0,
///         tailroom: 0,
///     },
/// )?;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PoolParams {
    /// Buffers that the receive queue holds.
    pub buffers: u16,
    /// Size of a buffer: 2 to this power pages.
    pub order: u8,
    /// Bytes at the start of each that the device leaves alone.
    pub headroom: u32,
    /// Bytes at the end of each that it leaves alone.
    pub tailroom: u32,
}

impl PoolParams {
    /// Bytes of a buffer that the device writes, at most.
    pub const fn length(&self) -> u32 {
        (PAGE_SIZE << self.order).saturating_sub(self.headroom + self.tailroom)
    }
}

/// A pool of pages for the receive queue of a channel, and owned by that.
///
/// Dropping it is allowed while pages are out: the last that comes back frees it.
pub(crate) struct PagePool {
    pool: NonNull<b::page_pool>,
    /// Another one for the linear parts of skbs. The device does not reach its pages: it could
    /// change what the kernel keeps there with every skb.
    heads: NonNull<b::page_pool>,
    params: PoolParams,
}

// SAFETY: a pool may be used from any context, by one at a time.
unsafe impl Send for PagePool {}

impl PagePool {
    /// A pool for the receive queue of the NAPI context's channel.
    ///
    /// # Safety
    ///
    /// `napi` is on the list of `netdev`, which has a parent that is bound; it is disabled, and is
    /// so too when the pool is dropped, which is before the context goes.
    pub(crate) unsafe fn new(
        netdev: *mut b::net_device,
        napi: *mut b::napi_struct,
        channel: u16,
        params: PoolParams,
    ) -> Result<Self> {
        if params.order > MAX_ORDER || params.length() == 0 {
            return Err(EINVAL);
        }
        let raw = b::nd_page_pool_params {
            // SAFETY: the device is valid, and the field does not change.
            dev: unsafe { (*netdev).dev.parent },
            netdev,
            napi,
            queue: u32::from(channel),
            pages: u32::from(params.buffers),
            order: u32::from(params.order),
            offset: params.headroom,
            len: params.length(),
        };
        // SAFETY: the parameters are valid by the caller's promise.
        let pool = from_err_ptr(unsafe { b::nd_page_pool_create(&raw) })?;
        // SAFETY: as above.
        let heads = from_err_ptr(unsafe { b::nd_head_pool_create(netdev, napi, raw.queue) });
        let heads = heads.inspect_err(|_| {
            // SAFETY: just created.
            unsafe { b::page_pool_destroy(pool) }
        })?;
        Ok(Self {
            pool: NonNull::new(pool).ok_or(ENOMEM)?,
            heads: NonNull::new(heads).ok_or(ENOMEM)?,
            params,
        })
    }

    /// The pool of the linear parts of skbs.
    #[inline]
    pub(crate) fn heads(&self) -> NonNull<b::page_pool> {
        self.heads
    }

    pub(crate) fn as_raw(&self) -> *mut b::page_pool {
        self.pool.as_ptr()
    }

    pub(crate) fn params(&self) -> PoolParams {
        self.params
    }

    /// A buffer, mapped for the device to write. Sleeps if it may.
    ///
    /// # Safety
    ///
    /// The caller runs in the poll of the pool's NAPI context; or that is disabled, only one task
    /// has access to the pool, and that may sleep, as `may_sleep` then says.
    #[inline]
    pub(crate) unsafe fn alloc(&self, may_sleep: bool) -> Option<PoolBuffer> {
        // SAFETY: the pool is valid, and nobody else allocates or recycles directly.
        let page = NonNull::new(unsafe {
            b::nd_page_pool_alloc(self.pool.as_ptr(), u32::from(self.params.order), may_sleep)
        })?;
        let start = self.params.headroom;
        // SAFETY: pages of a pool come from the page allocator and are mapped in the kernel.
        let data = unsafe { NonNull::new(b::nd_page_address(page.as_ptr()).cast::<u8>())? };
        // INVARIANT: a page of the pool's order, whole, with the bytes that the pool syncs.
        Some(PoolBuffer {
            page,
            // SAFETY: inside the page.
            data: unsafe { data.add(start as usize) },
            // SAFETY: the pool maps its pages.
            addr: unsafe { b::nd_page_pool_dma_addr(page.as_ptr()) } + u64::from(start),
            start,
            len: self.params.length(),
        })
    }
}

impl Drop for PagePool {
    fn drop(&mut self) {
        // SAFETY: both were created in `new`, by whose contract the NAPI context is disabled.
        unsafe {
            b::page_pool_destroy(self.heads.as_ptr());
            b::page_pool_destroy(self.pool.as_ptr());
        }
    }
}

/// Part of a page of a pool, owned: nobody else reaches these bytes but the device that they are
/// lent to.
///
/// Dropped, it gives its share of the page up; the page returns to the pool, which lives at least as
/// long, with the last.
///
/// # Invariants
///
/// - `page` is the first page of a (compound) page of a pool that maps its pages; a reference of the
///   pool's kind is owned.
/// - The `len` bytes at `start` lie inside it, and between what the pool was told is written. `data`
///   and `addr` are their address and their bus address.
///
/// Made in a poll, or before its channel is started; to be dropped in any context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/rx_queue.rs
/// page.sync_for_cpu(len);
/// let frame = len.saturating_sub(HEADER);
/// let skb = RxSkb::copy(napi, page, HEADER, frame);
/// page.sync_for_device(len);
/// self.0.repost();
/// ```
pub struct PoolBuffer {
    page: NonNull<b::page>,
    data: NonNull<u8>,
    addr: u64,
    start: u32,
    len: u32,
}

// SAFETY: a buffer may be handed to, and freed from, any context.
unsafe impl Send for PoolBuffer {}

impl PoolBuffer {
    pub(crate) fn page(&self) -> *mut b::page {
        self.page.as_ptr()
    }

    /// Where in the page the buffer begins.
    pub(crate) fn start(&self) -> u32 {
        self.start
    }

    /// Passes the reference to the page on.
    pub(crate) fn into_page(self) -> *mut b::page {
        ManuallyDrop::new(self).page.as_ptr()
    }

    /// Bus address.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes.
    #[inline]
    pub fn length(&self) -> u32 {
        self.len
    }

    /// Address of `len` bytes at `offset`, if they are inside.
    #[inline]
    pub(crate) fn at(&self, offset: u32, len: u32) -> Option<*const u8> {
        (offset.checked_add(len)? <= self.len).then(|| {
            self.data
                .as_ptr()
                .wrapping_add(offset as usize)
                .cast_const()
        })
    }

    /// Takes all beyond the first `len` bytes, rounded up to whole cache lines, off the buffer.
    /// `None` if less than `least` would be left.
    #[inline]
    pub fn split_off(&mut self, len: u32, least: u32) -> Option<Self> {
        let len = len.checked_next_multiple_of(b::ND_CACHE_LINE)?;
        let rest = self.len.checked_sub(len)?;
        if rest < least || rest == 0 {
            return None;
        }
        // SAFETY: the page is owned and belongs to a pool; the new owner drops the reference.
        unsafe { b::nd_page_pool_ref(self.page()) };
        self.len = len;
        // INVARIANT: the bytes were part of this buffer, and no longer are.
        Some(Self {
            page: self.page,
            // SAFETY: inside of what the buffer was.
            data: unsafe { self.data.add(len as usize) },
            addr: self.addr + u64::from(len),
            start: self.start + len,
            len: rest,
        })
    }

    /// Makes the first `len` bytes, which the device wrote, visible to the CPU.
    #[inline]
    pub fn sync_for_cpu(&self, len: u32) {
        // SAFETY: by the type invariant; not more than the buffer has.
        unsafe { b::nd_page_pool_sync_for_cpu(self.page(), self.start, len.min(self.len)) }
    }

    /// Lends the first `len` bytes, which the CPU has looked at, to the device again.
    #[inline]
    pub fn sync_for_device(&self, len: u32) {
        // SAFETY: as for `sync_for_cpu`.
        unsafe { b::nd_page_pool_sync_for_device(self.page(), self.start, len.min(self.len)) }
    }

    /// Copies bytes at `offset` out of the buffer. The device may still write it, so the bytes are
    /// what they were at some time. `None` if they are not inside.
    #[inline]
    pub fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        /// Copies as many of `bytes` as are left, `P` at a time.
        ///
        /// # Safety
        ///
        /// The bytes at `at` are valid.
        #[inline(always)]
        unsafe fn pieces<const P: usize>(at: *const u8, bytes: &mut [u8], done: &mut usize) {
            while let Some(piece) = bytes.get_mut(*done..*done + P) {
                // SAFETY: by the caller. An array of bytes may be read volatile from any address.
                let read = unsafe { at.wrapping_add(*done).cast::<[u8; P]>().read_volatile() };
                piece.copy_from_slice(&read);
                *done += P;
            }
        }
        let at = self.at(offset, N as u32)?;
        let (mut bytes, mut done) = ([0; N], 0);
        // SAFETY: inside of a page that the kernel has mapped. A volatile read of more than a word
        // would be one of single bytes.
        unsafe {
            pieces::<8>(at, &mut bytes, &mut done);
            pieces::<4>(at, &mut bytes, &mut done);
            pieces::<2>(at, &mut bytes, &mut done);
            pieces::<1>(at, &mut bytes, &mut done);
        }
        Some(bytes)
    }

    /// Length of the protocol headers of a frame of which the first `len` bytes are at `offset`:
    /// at most `len`, and zero if these are not inside.
    ///
    /// The device may still write the frame, so that this says nothing about what is copied later.
    pub fn headers<T: Operations>(&self, dev: &NetDevice<T>, offset: u32, len: u32) -> u32 {
        let Some(at) = self.at(offset, len) else {
            return 0;
        };
        // SAFETY: the device is valid, and the bytes are inside the page; the flow dissector is made
        // for any content.
        unsafe { b::eth_get_headlen(dev.as_raw(), at.cast(), len) }.min(len)
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        // SAFETY: the reference is owned and its pool is valid for as long as a page is out. Without
        // proof of the pool's NAPI context, the page takes the way that is safe from any.
        unsafe { b::nd_page_pool_put(self.page(), false) }
    }
}
