// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Look-ups, one after the other.

use vm_memory::{Permissions, VolatileSlice};

use crate::range::Range;
use crate::DmaMap;

/// Looks stretches of bus addresses up in a snapshot, and begins with the range that held the last
/// one: the buffers of a driver lie in one or two.
#[derive(Clone, Debug)]
pub struct Finder<'m> {
    map: &'m DmaMap,
    last: Option<&'m Range>,
}

impl<'m> Finder<'m> {
    /// For this snapshot.
    pub fn new(map: &'m DmaMap) -> Self {
        Self { map, last: None }
    }

    /// The snapshot.
    pub fn map(&self) -> &'m DmaMap {
        self.map
    }

    /// The memory of a stretch that lies in one range, if `access` is allowed. What lies in
    /// several is for [`DmaMap`] itself.
    #[inline]
    pub fn slice(
        &mut self,
        addr: u64,
        len: usize,
        access: Permissions,
    ) -> Option<VolatileSlice<'m>> {
        let range = match self.last {
            Some(range) if range.first <= addr && addr <= range.last => range,
            _ => {
                let range = self.map.find(addr)?;
                self.last = Some(range);
                range
            }
        };
        self.map
            .part(range, addr, len, access)
            .filter(|s| s.len() == len)
    }
}
