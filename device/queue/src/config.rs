// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the driver programs before it enables a queue.

use std::sync::atomic::Ordering;

use vm_memory::{GuestAddress, GuestMemory, Permissions};
use vnet_contract::queue::{self, Error};
use vnet_contract::ring;
use vnet_dma::DmaMap;

use crate::view::load;
use crate::Fault;

/// The registers of a queue at the moment it is enabled. Nothing in it has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingConfig {
    /// `Q_SIZE`.
    pub size: u32,
    /// Bus address of the descriptor table.
    pub desc: u64,
    /// Bus address of the avail ring.
    pub avail: u64,
    /// Bus address of the used ring.
    pub used: u64,
    /// Next avail entry to fetch.
    pub index_avail: u16,
    /// Next used entry to write.
    pub index_used: u16,
    /// The features that were negotiated, as far as they are in force for this queue.
    pub features: u64,
}

impl RingConfig {
    /// Checks that it is a ring which lies in this memory, and returns its size. Why not, else.
    pub(crate) fn checked(&self, mem: &DmaMap) -> Result<u16, Fault> {
        if !queue::size_is_valid(self.size) {
            return Err(Fault::new(Error::Size, self.size));
        }
        // Valid sizes are small.
        let size = self.size as u16;
        for (address, align, bytes, access) in [
            (
                self.desc,
                ring::DESC_ALIGN,
                ring::desc_bytes(size),
                Permissions::Read,
            ),
            (
                self.avail,
                ring::AVAIL_ALIGN,
                ring::avail_bytes(size),
                Permissions::Read,
            ),
            (
                self.used,
                ring::USED_ALIGN,
                ring::used_bytes(size),
                Permissions::ReadWrite,
            ),
        ] {
            if address % align != 0 {
                return Err(Fault::at(Error::Alignment, address));
            }
            if !mem.check_range(GuestAddress(address), bytes, access) {
                return Err(Fault::at(Error::RingFault, address));
            }
        }
        Ok(size)
    }

    /// For those who look on: how many chains of the ring the driver has made available and not got
    /// back, and how many descriptors it has. `None` if the ring is not in this memory.
    pub fn waiting(&self, mem: &DmaMap) -> Option<(u16, u16)> {
        let size = self.checked(mem).ok()?;
        let index = |ring: u64, at: usize| {
            load::<u16>(mem, ring.checked_add(at as u64)?, Ordering::Relaxed).ok()
        };
        // This one first: the other may move on meanwhile, but not past it.
        let used = index(self.used, ring::RING_IDX)?;
        let avail = index(self.avail, ring::RING_IDX)?;
        // Whatever a driver writes there.
        Some((avail.wrapping_sub(used).min(size), size))
    }

    /// Checks that it is a ring which lies in this memory.
    pub fn check(&self, mem: &DmaMap) -> Result<(), Fault> {
        self.checked(mem).map(drop)
    }
}
