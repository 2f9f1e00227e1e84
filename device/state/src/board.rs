// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Lines of text with a count each, which outlive the process that writes them.
//!
//! A memory of its own, since not every card has one. A line counts from the first count on, and is
//! written before that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use vm_memory::{MmapRegion, VolatileMemory};

use crate::memory::{map, Error};

/// Lines that there can be; of others nothing is kept.
pub const LINES: usize = 64;

/// Bytes of a line with its numbers.
const LINE: usize = 1024;
const TOTAL: usize = 0;
const LENGTH: usize = 8;
const TEXT: usize = 16;
const SIZE: usize = LINES * LINE;

/// The lines.
#[derive(Debug)]
pub struct Board {
    file: File,
    region: MmapRegion<()>,
}

impl Board {
    /// Makes an empty one.
    pub fn create() -> Result<Self, Error> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("vnet-findings", flags).map_err(io::Error::from)?);
        file.set_len(SIZE as u64)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
        Self::with(file)
    }

    /// Opens what another process made.
    pub fn open(fd: OwnedFd) -> Result<Self, Error> {
        let file = File::from(fd);
        match file.metadata()?.len() == SIZE as u64 {
            true => Self::with(file),
            false => Err(Error::Foreign),
        }
    }

    fn with(file: File) -> Result<Self, Error> {
        let region = map(file.try_clone()?.into(), SIZE)?;
        Ok(Self { file, region })
    }

    /// Writes a line that is not counted yet, as far as there is room for it.
    pub fn write(&self, index: usize, text: &str) {
        let Some(at) = at(index) else { return };
        let mut len = text.len().min(LINE - TEXT);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        if let Ok(bytes) = self.region.get_slice(at + TEXT, len) {
            bytes.copy_from(&text.as_bytes()[..len]);
        }
        self.set(at + LENGTH, len as u64);
    }

    /// Says how often a line counts.
    pub fn count(&self, index: usize, total: u64) {
        if let Some(at) = at(index) {
            self.set(at + TOTAL, total);
        }
    }

    /// The lines up to the first one that does not count.
    pub fn lines(&self) -> Vec<(String, u64)> {
        (0..LINES).map_while(|index| self.line(index)).collect()
    }

    fn line(&self, index: usize) -> Option<(String, u64)> {
        let at = at(index)?;
        let total = self.get(at + TOTAL);
        let len = usize::try_from(self.get(at + LENGTH)).ok()?;
        let mut text = vec![0; len.min(LINE - TEXT)];
        let bytes = self.region.get_slice(at + TEXT, text.len()).ok()?;
        bytes.copy_to(&mut text[..]);
        let text = String::from_utf8_lossy(&text).into_owned();
        (total != 0).then_some((text, total))
    }

    fn set(&self, at: usize, value: u64) {
        if let Ok(word) = self.region.get_atomic_ref::<AtomicU64>(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn get(&self, at: usize) -> u64 {
        let word = self.region.get_atomic_ref::<AtomicU64>(at);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn at(index: usize) -> Option<usize> {
    (index < LINES).then_some(index * LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_what_counts() {
        let board = Board::create().unwrap();
        board.write(0, "one");
        board.count(0, 3);
        board.write(1, &"ä".repeat(LINE));
        board.count(1, 1);
        board.count(1, 2);
        board.write(2, "not finished");
        board.write(LINES, "too many");
        board.count(LINES, 1);
        let other = Board::open(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let lines = other.lines();
        assert_eq!(lines[0], ("one".to_owned(), 3));
        assert_eq!(lines[1], ("ä".repeat((LINE - TEXT) / 2), 2));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn nothing_else_is_opened() {
        let other = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(Board::open(other), Err(Error::Foreign)));
    }
}
