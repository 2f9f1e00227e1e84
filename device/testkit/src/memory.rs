// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Memory of a guest that is not there.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use vm_memory::{
    AtomicAccess, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap,
};

use crate::{Error, Result};

/// A stretch of memory that two processes share, at a bus address of the test's choice.
#[derive(Debug)]
pub struct GuestRam {
    file: File,
    memory: GuestMemoryMmap<()>,
    base: u64,
    size: u64,
    next: AtomicU64,
}

impl GuestRam {
    /// Fresh memory of `size` bytes at bus address `base`.
    pub fn new(base: u64, size: u64) -> Result<Self> {
        let file = File::from(memfd_create("vnet-testkit", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, size)?;
        let offset = FileOffset::new(file.try_clone()?, 0);
        let range = (GuestAddress(base), size as usize, Some(offset));
        let memory = GuestMemoryMmap::from_ranges_with_files([range])
            .map_err(|e| Error::Answer(format!("guest memory: {e}")))?;
        Ok(Self {
            file,
            memory,
            base,
            size,
            next: AtomicU64::new(base),
        })
    }

    /// First bus address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// First bus address behind the memory.
    pub fn end(&self) -> u64 {
        self.base + self.size
    }

    /// The file to hand over.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sets `size` bytes aside, never to be given back, and returns their bus address.
    pub fn alloc(&self, size: u64, align: u64) -> u64 {
        let mut at = 0;
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                at = next.next_multiple_of(align);
                Some(at + size)
            })
            .ok();
        assert!(at + size <= self.end(), "guest memory is used up");
        at
    }

    /// Copies bytes in.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(addr))
            .expect("inside guest memory");
    }

    /// Copies bytes out.
    pub fn read(&self, addr: u64, bytes: &mut [u8]) {
        self.memory
            .read_slice(bytes, GuestAddress(addr))
            .expect("inside guest memory");
    }

    /// Copies bytes out into a new vector.
    pub fn read_vec(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(addr, &mut bytes);
        bytes
    }

    /// Stores an aligned value in one piece.
    pub fn store<T: AtomicAccess>(&self, addr: u64, value: T, order: Ordering) {
        self.memory
            .store(value, GuestAddress(addr), order)
            .expect("inside guest memory");
    }

    /// Loads an aligned value in one piece.
    pub fn load<T: AtomicAccess>(&self, addr: u64, order: Ordering) -> T {
        self.memory
            .load(GuestAddress(addr), order)
            .expect("inside guest memory")
    }

    /// True if the memory covers the bus address.
    pub fn contains(&self, addr: u64) -> bool {
        self.memory.address_in_range(GuestAddress(addr))
    }
}
