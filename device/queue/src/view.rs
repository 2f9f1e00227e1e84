// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The memory of a ring and of its buffers, as one batch sees it.
//!
//! Where the parts of the ring lie is looked up once a batch, and not for each of the accesses,
//! of which a frame takes half a dozen. That holds for parts that lie in one range of guest memory;
//! one that a virtual IOMMU has cut up is looked up each time.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, Bytes, GuestAddress, Permissions, VolatileSlice};
use vnet_contract::queue::Error;
use vnet_dma::{DmaMap, Finder};

use crate::Fault;

/// What a batch works on.
#[derive(Debug)]
pub(crate) struct View<'m> {
    /// The descriptor table, in words of 64 bits, two a descriptor.
    pub(crate) desc: Array<'m, u64>,
    /// The entries of the avail ring.
    pub(crate) avail: Array<'m, u16>,
    /// The entries of the used ring, in words of 32 bits, two an entry.
    pub(crate) used: Array<'m, u32>,
    /// For the buffers.
    pub(crate) finder: Finder<'m>,
}

impl<'m> View<'m> {
    /// All of guest memory.
    pub(crate) fn mem(&self) -> &'m DmaMap {
        self.finder.map()
    }
}

/// Aligned numbers in guest memory. Each access is one that the compiler neither splits nor
/// repeats; none orders others.
#[derive(Debug)]
pub(crate) struct Array<'m, T> {
    flat: Option<VolatileSlice<'m>>,
    mem: &'m DmaMap,
    address: u64,
    _numbers: PhantomData<T>,
}

impl<'m, T: AtomicAccess> Array<'m, T> {
    /// `len` numbers from `address` on.
    pub(crate) fn new(
        finder: &mut Finder<'m>,
        address: u64,
        len: usize,
        access: Permissions,
    ) -> Self {
        Self {
            flat: finder.slice(address, len * size_of::<T>(), access),
            mem: finder.map(),
            address,
            _numbers: PhantomData,
        }
    }

    fn at(&self, index: usize) -> u64 {
        self.address.wrapping_add((index * size_of::<T>()) as u64)
    }

    /// Reads the number at `index`, which must be below the length.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> Result<T, Fault> {
        if let Some(flat) = &self.flat {
            if let Ok(value) = flat.load(index * size_of::<T>(), Ordering::Relaxed) {
                return Ok(value);
            }
        }
        self.load_scattered(index)
    }

    #[cold]
    #[inline(never)]
    fn load_scattered(&self, index: usize) -> Result<T, Fault> {
        load(self.mem, self.at(index), Ordering::Relaxed)
    }

    /// Writes the number at `index`, which must be below the length.
    #[inline]
    pub(crate) fn store(&self, index: usize, value: T) -> Result<(), Fault> {
        if let Some(flat) = &self.flat {
            let at = index * size_of::<T>();
            if flat.store(value, at, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
        self.store_scattered(index, value)
    }

    #[cold]
    #[inline(never)]
    fn store_scattered(&self, index: usize, value: T) -> Result<(), Fault> {
        store(self.mem, value, self.at(index), Ordering::Relaxed)
    }
}

/// Reads an aligned number of ring memory.
pub(crate) fn load<T: AtomicAccess>(
    mem: &DmaMap,
    address: u64,
    order: Ordering,
) -> Result<T, Fault> {
    mem.load(GuestAddress(address), order)
        .map_err(|_| Fault::at(Error::RingFault, address))
}

/// Writes an aligned number of ring memory.
pub(crate) fn store<T: AtomicAccess>(
    mem: &DmaMap,
    value: T,
    address: u64,
    order: Ordering,
) -> Result<(), Fault> {
    mem.store(value, GuestAddress(address), order)
        .map_err(|_| Fault::at(Error::RingFault, address))
}
