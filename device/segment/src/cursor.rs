// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A place in the buffers of a frame.

use vm_memory::VolatileSlice;

/// Goes forward through the buffers of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    parts: &'a [VolatileSlice<'a>],
    /// Bytes of the first part that lie behind.
    done: usize,
}

impl<'a> Cursor<'a> {
    /// Stands at the first byte.
    pub(crate) fn new(parts: &'a [VolatileSlice<'a>]) -> Self {
        Self { parts, done: 0 }
    }

    /// Goes over `len` bytes, or to the end, and shows the pieces.
    pub(crate) fn take(&mut self, mut len: usize, mut show: impl FnMut(VolatileSlice<'a>)) {
        while let (Some(part), true) = (self.parts.first(), len > 0) {
            let left = part.len() - self.done;
            let n = left.min(len);
            // Always within the part.
            if let Ok(piece) = part.subslice(self.done, n) {
                show(piece);
            }
            len -= n;
            self.done += n;
            if n == left {
                self.parts = &self.parts[1..];
                self.done = 0;
            }
        }
    }

    /// Goes over `len` bytes.
    pub(crate) fn skip(&mut self, len: usize) {
        self.take(len, |_| ());
    }
}
