// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Tables for long chains (`INDIRECT_DESC`), of which each takes one descriptor of the ring then.

/// Most tables of a ring.
pub const MAX_TABLES: u16 = u64::BITS as u16;

/// The tables that belong to a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// How many: at most [`MAX_TABLES`].
    pub count: u16,
    /// Descriptors of each: at most as many as the ring has.
    pub entries: u16,
}

impl Tables {
    /// No tables: what a ring has without `INDIRECT_DESC`.
    pub const NONE: Self = Self {
        count: 0,
        entries: 0,
    };

    /// Slots that they take besides those of the ring: one a descriptor.
    pub const fn slots(self) -> usize {
        self.count as usize * self.entries as usize
    }

    pub(crate) fn fit(self, size: u16) -> bool {
        self.count <= MAX_TABLES && self.entries <= size
    }
}

/// Which tables are free. The card may be done with chains in any order, so this is a set; the lowest
/// is taken first, which keeps few tables busy, and those in the caches.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    free: u64,
    tables: Tables,
}

impl Pool {
    pub(crate) fn new(tables: Tables) -> Self {
        let mut pool = Self { free: 0, tables };
        pool.refill();
        pool
    }

    /// All are free.
    pub(crate) fn refill(&mut self) {
        self.free = match self.tables.count {
            0 => 0,
            count => u64::MAX >> (MAX_TABLES - count.min(MAX_TABLES)),
        };
    }

    /// The table that the next chain of `count` descriptors can have.
    #[inline]
    pub(crate) fn next(&self, count: u16) -> Option<u16> {
        (self.free != 0 && count <= self.tables.entries).then(|| self.free.trailing_zeros() as u16)
    }

    #[inline]
    pub(crate) fn take(&mut self, table: u16) {
        self.free &= !(1 << table);
    }

    #[inline]
    pub(crate) fn give(&mut self, table: u16) {
        self.free |= 1 << table;
    }

    /// Descriptors of a table.
    #[inline]
    pub(crate) fn entries(&self) -> u16 {
        self.tables.entries
    }

    /// The first slot of a table, behind those of the ring.
    #[inline]
    pub(crate) fn slot(&self, table: u16) -> usize {
        usize::from(table) * usize::from(self.tables.entries)
    }
}
