// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The table of DMA ranges.
//!
//! Each row is written before the word that makes it count, and counts no more when that word is
//! cleared; so a worker that dies in between leaves a row that is whole, or none.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::memory::{Memory, EXTENT_AT, MAPS_AT};

/// Rows: as many as there can be ranges.
pub const ROWS: usize = 32_768;

const ROW: usize = 64;
pub(crate) const MAPS_SIZE: usize = ROWS * ROW;

/// Offsets in a row.
const FLAGS: usize = 0;
const ADDRESS: usize = 8;
const SIZE: usize = 16;
const OFFSET: usize = 24;
const FILE: usize = 32;

/// Flags of a row. With none of them, the row is free.
const COUNTS: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const HAS_FILE: u64 = 1 << 3;

/// A range as the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// First bus address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// Where in the file the range starts.
    pub offset: u64,
    /// The card may read.
    pub read: bool,
    /// The card may write.
    pub write: bool,
    /// Number of the file that holds the memory, if there is one.
    pub file: Option<u32>,
}

/// The table, and where in it each range is.
#[derive(Debug)]
pub struct Maps {
    memory: Arc<Memory>,
    /// Row of each range, by its address.
    rows: BTreeMap<u64, usize>,
    /// Free rows among the first `extent`; all behind those are free, too.
    free: Vec<usize>,
    extent: usize,
}

impl Maps {
    /// Reads the table.
    pub fn load(memory: &Arc<Memory>) -> (Self, Vec<Row>) {
        let mut maps = Self {
            memory: Arc::clone(memory),
            rows: BTreeMap::new(),
            free: Vec::new(),
            extent: 0,
        };
        let extent = memory.word(EXTENT_AT).load(Ordering::Acquire);
        maps.extent = usize::try_from(extent).map_or(ROWS, |extent| extent.min(ROWS));
        let mut found = Vec::new();
        for index in 0..maps.extent {
            match maps.read(index) {
                // Two of the same address cannot be, and one of them would be lost to us.
                Some(row) if !maps.rows.contains_key(&row.address) => {
                    maps.rows.insert(row.address, index);
                    found.push(row);
                }
                Some(_) => {
                    maps.clear(index);
                    maps.free.push(index);
                }
                None => maps.free.push(index),
            }
        }
        (maps, found)
    }

    /// Adds a range. False if the table is full.
    #[must_use]
    pub fn insert(&mut self, row: &Row) -> bool {
        let Some(index) = self.take() else {
            return false;
        };
        let at = at(index);
        let store = |offset, value| {
            self.memory
                .word(at + offset)
                .store(value, Ordering::Relaxed)
        };
        store(ADDRESS, row.address);
        store(SIZE, row.size);
        store(OFFSET, row.offset);
        store(FILE, row.file.unwrap_or(0).into());
        let flags = [
            (row.read, READ),
            (row.write, WRITE),
            (row.file.is_some(), HAS_FILE),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(COUNTS, |flags, (_, flag)| flags | flag);
        self.memory.word(at + FLAGS).store(flags, Ordering::Release);
        if let Some(former) = self.rows.insert(row.address, index) {
            self.clear(former);
            self.free.push(former);
        }
        true
    }

    /// True if this very range is there, in whatever file.
    pub fn contains(&self, row: &Row) -> bool {
        let found = self
            .rows
            .get(&row.address)
            .and_then(|&index| self.read(index));
        found.is_some_and(|found| {
            Row {
                file: row.file,
                ..found
            } == *row
        })
    }

    /// Removes the ranges for which `keep` is false of their address and size.
    pub fn retain(&mut self, mut keep: impl FnMut(u64, u64) -> bool) {
        let memory = Arc::clone(&self.memory);
        let free = &mut self.free;
        self.rows.retain(|&address, &mut index| {
            let size = memory.word(at(index) + SIZE).load(Ordering::Relaxed);
            let kept = keep(address, size);
            if !kept {
                memory.word(at(index) + FLAGS).store(0, Ordering::Release);
                free.push(index);
            }
            kept
        });
    }

    /// A free row.
    fn take(&mut self) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = self.extent;
        if index == ROWS {
            return None;
        }
        // Before the row counts, or nobody would find it.
        self.extent += 1;
        self.memory
            .word(EXTENT_AT)
            .store(self.extent as u64, Ordering::Release);
        Some(index)
    }

    fn read(&self, index: usize) -> Option<Row> {
        let load = |offset| self.memory.word(at(index) + offset).load(Ordering::Relaxed);
        let flags = self.memory.word(at(index) + FLAGS).load(Ordering::Acquire);
        (flags & COUNTS != 0).then(|| Row {
            address: load(ADDRESS),
            size: load(SIZE),
            offset: load(OFFSET),
            read: flags & READ != 0,
            write: flags & WRITE != 0,
            file: (flags & HAS_FILE != 0).then(|| load(FILE) as u32),
        })
    }

    fn clear(&self, index: usize) {
        self.memory
            .word(at(index) + FLAGS)
            .store(0, Ordering::Release);
    }
}

fn at(index: usize) -> usize {
    MAPS_AT + index * ROW
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(address: u64) -> Row {
        Row {
            address,
            size: 0x1000,
            offset: address / 2,
            read: !address.is_multiple_of(3),
            write: !address.is_multiple_of(2),
            file: (!address.is_multiple_of(5)).then_some(address as u32),
        }
    }

    fn loaded(memory: &Arc<Memory>) -> Vec<Row> {
        let (_, mut rows) = Maps::load(memory);
        rows.sort_by_key(|r| r.address);
        rows
    }

    proptest! {
        #[test]
        fn the_next_worker_finds_what_the_last_one_left(
            steps in prop::collection::vec((any::<bool>(), 0..20u64), 0..60)
        ) {
            let memory = Memory::create().unwrap();
            let (mut maps, _) = Maps::load(&memory);
            let mut model = BTreeMap::new();
            for (add, address) in steps {
                if add {
                    prop_assert!(maps.insert(&row(address)));
                    model.insert(address, row(address));
                } else {
                    maps.retain(|a, size| a > address || a + size < address);
                    model.retain(|a, r| *a > address || a + r.size < address);
                }
            }
            prop_assert_eq!(loaded(&memory), model.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_takes_as_many_as_it_has_rows() {
        let memory = Memory::create().unwrap();
        let (mut maps, _) = Maps::load(&memory);
        for n in 0..ROWS as u64 {
            assert!(maps.insert(&row(n)));
        }
        assert!(!maps.insert(&row(ROWS as u64)));
        maps.retain(|address, _| address != 77);
        let (mut maps, rows) = Maps::load(&memory);
        assert_eq!(rows.len(), ROWS - 1);
        assert!(maps.insert(&row(77)));
    }

    #[test]
    fn a_row_that_was_not_finished_does_not_count() {
        let memory = Memory::create().unwrap();
        let (mut maps, _) = Maps::load(&memory);
        assert!(maps.insert(&row(9)));
        let next = maps.take().unwrap();
        maps.free.push(next);
        for offset in [ADDRESS, SIZE, OFFSET, FILE] {
            memory.word(at(next) + offset).store(8, Ordering::Relaxed);
            assert_eq!(loaded(&memory), [row(9)]);
        }
        assert!(maps.insert(&row(8)));
        assert_eq!(loaded(&memory), [row(8), row(9)]);
    }
}
