// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue's descriptor of /dev/net/tun.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vm_memory::VolatileSlice;
use vnet_backend::Attachment;
use vnet_contract::hdr;

use crate::port::{Received, Wire};
use crate::sys;

/// One queue.
#[derive(Debug)]
pub(crate) struct Tun {
    pub(crate) fd: Arc<OwnedFd>,
    /// The queue can be detached.
    pub(crate) detachable: bool,
    /// It is not, now that it is opened.
    pub(crate) attached: bool,
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Wire for Tun {
    fn write(&self, header: &[u8; hdr::SIZE], parts: &[VolatileSlice<'_>]) -> io::Result<usize> {
        sys::write(self.as_fd(), header, parts)
    }

    fn read(
        &self,
        header: VolatileSlice<'_>,
        parts: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<Received> {
        let read = sys::read(self.as_fd(), header, parts, spill)?;
        Ok(Received {
            len: read.checked_sub(hdr::SIZE),
            tag: None,
        })
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        let queue = || TapQueue {
            fd: Arc::clone(&self.fd),
            attached: self.attached,
        };
        self.detachable.then(|| Box::new(queue()) as _)
    }
}

/// A queue of an interface that has several.
struct TapQueue {
    fd: Arc<OwnedFd>,
    attached: bool,
}

impl Attachment for TapQueue {
    fn was_attached(&self) -> bool {
        self.attached
    }

    fn set_attached(&mut self, attached: bool) {
        // Fails only if it is so already, or if the interface is gone.
        let _ = sys::set_attached(self.fd.as_fd(), attached);
    }
}
