// SPDX-License-Identifier: GPL-2.0

//! The page pool: pages that are mapped for DMA once and come back when their frame is freed.
//!
//! C header: [`include/net/page_pool/types.h`](srctree/include/net/page_pool/types.h)

use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    error::from_err_ptr,
    prelude::*, //
};

use crate::{
    bindings as b,
    Locked,
    Operations, //
};

/// Size of a page of a pool.
pub const PAGE_SIZE: u32 = b::ND_PAGE_SIZE;

/// A pool of pages for one receive queue.
///
/// Dropping it is allowed while pages are out: the last that comes back frees it.
pub struct PagePool<'a> {
    pool: NonNull<b::page_pool>,
    _dev: PhantomData<&'a Device<Bound>>,
}

// SAFETY: the pool may be used from any context, by one at a time: allocation takes `&mut self`.
unsafe impl Send for PagePool<'_> {}

impl<'a> PagePool<'a> {
    /// A pool for the receive queue of a channel that does not run yet. The device writes
    /// `len` bytes of each page from `offset` on.
    pub fn new<T: Operations>(
        netdev: &Locked<'_, T>,
        dev: &'a Device<Bound>,
        channel: u16,
        pages: u16,
        offset: u32,
        len: u32,
    ) -> Result<Self> {
        let napi = netdev.channel(channel).ok_or(EINVAL)?.napi();
        let params = b::nd_page_pool_params {
            dev: crate::dma::as_raw(dev),
            netdev: netdev.as_raw(),
            napi,
            queue: u32::from(channel),
            pages: u32::from(pages),
            offset,
            len,
        };
        // SAFETY: the parameters are valid; the NAPI context outlives the pool, which is dropped
        // after the channel stopped and stops using the context then.
        let pool = from_err_ptr(unsafe { b::nd_page_pool_create(&params) })?;
        Ok(Self {
            pool: NonNull::new(pool).ok_or(ENOMEM)?,
            _dev: PhantomData,
        })
    }

    /// A page, mapped for the device to write. Does not sleep.
    #[inline]
    pub fn alloc(&mut self) -> Option<PoolPage> {
        // SAFETY: the pool is valid, and `&mut self` excludes other allocations.
        NonNull::new(unsafe { b::nd_page_pool_alloc(self.pool.as_ptr()) }).map(PoolPage)
    }
}

impl Drop for PagePool<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`.
        unsafe { b::page_pool_destroy(self.pool.as_ptr()) }
    }
}

/// A page of a pool, owned. Dropped, it returns to the pool, which lives at least as long.
pub struct PoolPage(NonNull<b::page>);

// SAFETY: a page may be handed to, and freed from, any context.
unsafe impl Send for PoolPage {}

impl PoolPage {
    pub(crate) fn as_raw(&self) -> *mut b::page {
        self.0.as_ptr()
    }

    /// Passes the ownership on.
    pub(crate) fn into_raw(self) -> *mut b::page {
        ManuallyDrop::new(self).as_raw()
    }

    /// Bus address of the page.
    #[inline]
    pub fn dma_address(&self) -> u64 {
        // SAFETY: the page belongs to a pool that maps its pages.
        unsafe { b::nd_page_pool_dma_addr(self.as_raw()) }
    }

    /// Makes `len` bytes that the device wrote, from the pool's offset on, visible to the CPU.
    #[inline]
    pub fn sync_for_cpu(&self, len: u32) {
        // SAFETY: the page belongs to a pool that maps its pages.
        unsafe { b::nd_page_pool_sync_for_cpu(self.as_raw(), 0, len) }
    }

    /// Copies bytes at `offset` out of the page. The device may still write it, so the bytes are
    /// what they were at some time. `None` if they are not inside the page.
    #[inline]
    pub fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset.checked_add(N)? > PAGE_SIZE as usize {
            return None;
        }
        // SAFETY: pages of a pool come from the page allocator and are mapped in the kernel; the
        // bytes are inside. An array of bytes may be read volatile from any address.
        unsafe {
            let at = b::nd_page_address(self.as_raw()).cast::<u8>().add(offset);
            Some(at.cast::<[u8; N]>().read_volatile())
        }
    }
}

impl Drop for PoolPage {
    fn drop(&mut self) {
        // SAFETY: the page is owned and its pool is valid for as long as a page is out. Without
        // proof of the pool's NAPI context, the page takes the way that is safe from any.
        unsafe { b::nd_page_pool_put(self.as_raw(), false) }
    }
}
