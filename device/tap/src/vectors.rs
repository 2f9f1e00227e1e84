// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Vectors for system calls that read into a guest's memory and write from it.

use std::marker::PhantomData;

use libc::iovec;
use vm_memory::VolatileSlice;

/// Most buffers that one call takes, besides the header and the spill.
pub const MAX_PARTS: usize = 64;

const EMPTY: iovec = iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// A header, the first [`MAX_PARTS`] of some buffers, and a place for what is left. All of it stays
/// borrowed for as long as the vectors are there, for writing what the kernel is to write to.
pub struct Vectors<'m> {
    vectors: [iovec; 2 + MAX_PARTS],
    count: usize,
    memory: PhantomData<(&'m mut [u8], VolatileSlice<'m>)>,
}

impl<'m> Vectors<'m> {
    /// To be written from, and not to.
    pub fn source(header: &'m [u8], parts: &[VolatileSlice<'m>]) -> Self {
        let mut vectors = Self::new();
        vectors.push(header.as_ptr().cast_mut(), header.len());
        vectors.extend(parts);
        vectors
    }

    /// To be read into.
    pub fn target(
        header: VolatileSlice<'m>,
        parts: &[VolatileSlice<'m>],
        spill: &'m mut [u8],
    ) -> Self {
        let mut vectors = Self::new();
        vectors.extend(&[header]);
        vectors.extend(parts);
        vectors.push(spill.as_mut_ptr(), spill.len());
        vectors
    }

    /// The vectors.
    pub fn as_slice(&self) -> &[iovec] {
        &self.vectors[..self.count]
    }

    fn new() -> Self {
        Self {
            vectors: [EMPTY; 2 + MAX_PARTS],
            count: 0,
            memory: PhantomData,
        }
    }

    fn extend(&mut self, parts: &[VolatileSlice<'m>]) {
        for part in parts.iter().take(MAX_PARTS) {
            // The guard only matters to memory that is mapped on demand, which guest memory of this
            // type is not.
            self.push(part.ptr_guard_mut().as_ptr(), part.len());
        }
    }

    fn push(&mut self, base: *mut u8, len: usize) {
        self.vectors[self.count] = iovec {
            iov_base: base.cast(),
            iov_len: len,
        };
        self.count += 1;
    }
}
