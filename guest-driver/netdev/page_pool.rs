// SPDX-License-Identifier: GPL-2.0

//! The page pool: pages that are mapped for DMA once and come back when their frame is freed.
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

use crate::bindings as b;

/// Size of a page of a pool.
pub const PAGE_SIZE: u32 = b::ND_PAGE_SIZE;

/// What a pool is for.
#[derive(Clone, Copy, Debug)]
pub struct PoolParams {
    /// Pages that the receive queue holds.
    pub pages: u16,
    /// Where in each page the device writes.
    pub offset: u32,
    /// Bytes that it writes there, at most.
    pub len: u32,
}

/// A pool of pages for the receive queue of a channel, and owned by that.
///
/// Dropping it is allowed while pages are out: the last that comes back frees it.
pub(crate) struct PagePool(NonNull<b::page_pool>);

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
        let params = b::nd_page_pool_params {
            // SAFETY: the device is valid, and the field does not change.
            dev: unsafe { (*netdev).dev.parent },
            netdev,
            napi,
            queue: u32::from(channel),
            pages: u32::from(params.pages),
            offset: params.offset,
            len: params.len,
        };
        // SAFETY: the parameters are valid by the caller's promise.
        let pool = from_err_ptr(unsafe { b::nd_page_pool_create(&params) })?;
        Ok(Self(NonNull::new(pool).ok_or(ENOMEM)?))
    }

    /// A page, mapped for the device to write. Sleeps if it may.
    ///
    /// # Safety
    ///
    /// The caller runs in the poll of the pool's NAPI context; or that is disabled, only one task
    /// has access to the pool, and that may sleep, as `may_sleep` then says.
    #[inline]
    pub(crate) unsafe fn alloc(&self, may_sleep: bool) -> Option<PoolPage> {
        // SAFETY: the pool is valid, and nobody else allocates or recycles directly.
        NonNull::new(unsafe { b::nd_page_pool_alloc(self.0.as_ptr(), may_sleep) }).map(PoolPage)
    }
}

impl Drop for PagePool {
    fn drop(&mut self) {
        // SAFETY: created in `new`, by whose contract the NAPI context is disabled.
        unsafe { b::page_pool_destroy(self.0.as_ptr()) }
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
