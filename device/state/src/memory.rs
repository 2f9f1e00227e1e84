// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The memory and its layout.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::cell::CELLS_SIZE;
use crate::maps::MAPS_SIZE;
use crate::snapshot::SNAPSHOTS_SIZE;

/// "vnetstat".
const MAGIC: u64 = u64::from_le_bytes(*b"vnetstat");
/// Where things are. What a newer version adds to cells, rows and records does not change it.
const LAYOUT: u64 = 1;

const PAGE: usize = 4096;
const MAGIC_AT: usize = 0;
const LAYOUT_AT: usize = 8;
/// Rows of the table of ranges that were ever used: all others need not be looked at.
pub(crate) const EXTENT_AT: usize = 16;
pub(crate) const CELLS_AT: usize = PAGE;
pub(crate) const SNAPSHOTS_AT: usize = CELLS_AT + CELLS_SIZE;
pub(crate) const MAPS_AT: usize = SNAPSHOTS_AT + SNAPSHOTS_SIZE;
const SIZE: usize = MAPS_AT + MAPS_SIZE;

/// Why there is no state to go on with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("state: {0}")]
    System(#[from] io::Error),
    /// The memory is not the state of a card, or of a version that is laid out differently.
    #[error("state: of another kind or version")]
    Foreign,
}

/// Memory that a worker leaves to the next. Pages that nobody writes do not exist.
#[derive(Debug)]
pub struct Memory {
    file: Arc<File>,
    region: MmapRegion<()>,
}

impl Memory {
    /// Makes an empty one.
    pub fn create() -> Result<Arc<Self>, Error> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("vnet-state", flags).map_err(io::Error::from)?);
        file.set_len(SIZE as u64)?;
        // A worker of another version must not be able to cut it off under this one.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
        let memory = Self::map(file)?;
        memory.word(LAYOUT_AT).store(LAYOUT, Ordering::Relaxed);
        memory.word(MAGIC_AT).store(MAGIC, Ordering::Release);
        Ok(Arc::new(memory))
    }

    /// Opens what another worker made.
    pub fn open(fd: OwnedFd) -> Result<Arc<Self>, Error> {
        let file = File::from(fd);
        if file.metadata()?.len() != SIZE as u64 {
            return Err(Error::Foreign);
        }
        let memory = Self::map(file)?;
        let magic = memory.word(MAGIC_AT).load(Ordering::Acquire);
        let layout = memory.word(LAYOUT_AT).load(Ordering::Relaxed);
        match (magic, layout) {
            (MAGIC, LAYOUT) => Ok(Arc::new(memory)),
            _ => Err(Error::Foreign),
        }
    }

    fn map(file: File) -> Result<Self, Error> {
        let file = Arc::new(file);
        let region = map(Arc::clone(&file), SIZE)?;
        Ok(Self { file, region })
    }

    /// The word at this offset, which is a constant of this crate or checked by it.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        match self.region.get_atomic_ref(at) {
            Ok(word) => word,
            Err(_) => unreachable!("offsets are aligned and within the memory"),
        }
    }

    /// Bytes at this offset; as above.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> VolatileSlice<'_> {
        match self.region.get_slice(at, len) {
            Ok(bytes) => bytes,
            Err(_) => unreachable!("offsets are within the memory"),
        }
    }
}

/// Maps a file from its start on.
pub(crate) fn map(file: Arc<File>, size: usize) -> Result<MmapRegion<()>, Error> {
    let start = FileOffset::from_arc(file, 0);
    Ok(MmapRegion::from_file(start, size).map_err(io::Error::other)?)
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_worker_makes_another_opens() {
        let memory = Memory::create().unwrap();
        memory.word(CELLS_AT).store(7, Ordering::Relaxed);
        let other = Memory::open(memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.word(CELLS_AT).load(Ordering::Relaxed), 7);
    }

    #[test]
    fn nothing_else_is_opened() {
        let empty = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(Memory::open(empty), Err(Error::Foreign)));
        let zeros = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&zeros, SIZE as u64).unwrap();
        assert!(matches!(Memory::open(zeros), Err(Error::Foreign)));
        let memory = Memory::create().unwrap();
        memory.word(LAYOUT_AT).store(LAYOUT + 1, Ordering::Relaxed);
        let newer = memory.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(Memory::open(newer), Err(Error::Foreign)));
    }

    #[test]
    fn its_size_is_fixed() {
        let memory = Memory::create().unwrap();
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        assert!(rustix::fs::ftruncate(&memory, 2 * SIZE as u64).is_err());
    }
}
