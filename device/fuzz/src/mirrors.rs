// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Guest memory as a device has it that must ask for it, and what a client does that is asked.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vnet_dma::{AddressSpace, DmaMap, Mapping, Stretch};

use crate::guest::{Guest, RANGES};

/// What nobody has pulled: no byte of a ring that a driver would write.
const UNKNOWN: u8 = 0xee;

/// The mirrors of what the device may write. The rest is shared.
pub(crate) struct Mirrors {
    map: Arc<DmaMap>,
}

impl Mirrors {
    pub(crate) fn new(guest: &Guest) -> Self {
        let space = AddressSpace::new();
        assert!(space.set_relayed(true), "a relay");
        let memory = guest.view(0);
        for (address, size, write) in RANGES {
            let file = memory.file(address).expect("memory");
            let shared = || file.try_clone().expect("dup");
            let mapping = Mapping {
                address,
                size,
                file: (!write).then(shared),
                offset: 0,
                read: true,
                write,
            };
            space.map(mapping).expect("mappable");
        }
        space.set_bus_master(true);
        Self {
            map: space.mirrored().expect("bus mastering is on"),
        }
    }

    /// What the device sees.
    pub(crate) fn map(&self) -> &DmaMap {
        &self.map
    }

    /// Forgets what was pulled.
    pub(crate) fn spoil(&self) {
        for (address, size, _) in RANGES.iter().filter(|range| range.2) {
            let unknown = vec![UNKNOWN; *size as usize];
            copy(&unknown, &self.map, *address);
        }
    }

    /// Into the mirrors, as far as there are some.
    pub(crate) fn pull(&self, guest: &Guest, list: &[Stretch]) {
        transfer(guest.memory(), &self.map, list);
    }

    /// From the mirrors.
    pub(crate) fn push(&self, guest: &Guest, list: &[Stretch]) {
        transfer(&self.map, guest.memory(), list);
    }
}

fn transfer(from: &DmaMap, to: &DmaMap, list: &[Stretch]) {
    for part in list.iter().filter(|part| part.len > 0) {
        let end = part.address.saturating_add(part.len as u64 - 1);
        for (address, size, _) in RANGES.iter().filter(|range| range.2) {
            let first = part.address.max(*address);
            let last = end.min(address + (size - 1));
            if first > last {
                continue;
            }
            let mut bytes = vec![0; (last - first) as usize + 1];
            from.read_slice(&mut bytes, GuestAddress(first))
                .expect("memory");
            copy(&bytes, to, first);
        }
    }
}

fn copy(bytes: &[u8], to: &DmaMap, address: u64) {
    to.write_slice(bytes, GuestAddress(address))
        .expect("memory");
}
