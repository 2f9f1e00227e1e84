// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A packet socket as something that carries frames.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vm_memory::VolatileSlice;
use vnet_contract::hdr;
use vnet_tap::{Received, Vectors, Wire};

use crate::sys;

/// A socket that is bound to its interface.
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    /// Length of the header that it speaks, which is the start of ours.
    pub(crate) header: usize,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Wire for Socket {
    fn write(&self, header: &[u8; hdr::SIZE], parts: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let vectors = Vectors::source(&header[..self.header], parts);
        sys::send(self.as_fd(), &vectors)
    }

    fn read(
        &self,
        header: VolatileSlice<'_>,
        parts: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<Received> {
        let vectors = Vectors::target(
            header.subslice(0, self.header).map_err(io::Error::other)?,
            parts,
            spill,
        );
        let (read, tag) = sys::receive(self.as_fd(), &vectors)?;
        Ok(Received {
            len: read.checked_sub(self.header),
            tag,
        })
    }
}
