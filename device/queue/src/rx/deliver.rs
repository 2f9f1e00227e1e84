// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A frame of a batch goes to the driver: the per-packet header, and the used entries.

use std::slice::from_ref;

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta};
use vnet_contract::features::HASH_REPORT;
use vnet_contract::hdr::{self, NetHdr, F_SPLIT};

use super::{Batch, Single, MAX_HEADER};
use crate::record::describe;
use crate::Fault;

impl Batch<'_> {
    /// Sees to it that the headers of a frame, and nothing else of it, are in the header buffer, and
    /// says so; if it cannot be split, that it fills the header buffer. Returns the number of bytes
    /// there; zero without header split.
    pub(super) fn split(&mut self, start: &[u8], len: usize, hdr: &mut NetHdr) -> usize {
        let Some(head) = self.heads.get(self.first) else {
            return 0;
        };
        let (Some(split), Ok(room)) = (&mut self.split, head.offset(self.header_len)) else {
            return 0;
        };
        let cut = split.cut(start, len, room.len());
        if cut.split {
            hdr.flags |= F_SPLIT;
            // It is in the first bytes, which are few.
            hdr.hdr_len = cut.at as u16;
        }
        if cut.at != self.lead.min(len) {
            let first = self.start - usize::from(self.lead > 0);
            let frame = Frame {
                meta: Meta::default(),
                len,
                parts: &self.parts[first..],
            };
            split.arrange(&frame, cut.at, room, &self.parts[self.start..]);
        }
        cut.at
    }

    /// Hands a frame of `len` bytes, which fits, to the driver in the only chain that waits.
    #[inline]
    pub(super) fn deliver_single(
        &mut self,
        single: Single<'_>,
        len: usize,
        mut hdr: NetHdr,
    ) -> Result<(), Fault> {
        let used = self.header_len + len;
        self.ring
            .put_used(&self.view, self.unpublished, single.head, used as u32)?;
        hdr.num_buffers = 1;
        self.write_header(&hdr, from_ref(&single.header));
        self.single = None;
        self.unpublished += 1;
        Ok(())
    }

    /// Writes the per-packet header, which these places have room for.
    #[inline]
    fn write_header(&self, hdr: &NetHdr, places: &[VolatileSlice<'_>]) {
        let mut bytes = [0; MAX_HEADER];
        let (base, rest) = bytes.split_at_mut(hdr::SIZE);
        base.copy_from_slice(&hdr.to_bytes());
        if self.features & HASH_REPORT != 0 {
            rest[..hdr::HASH_SIZE].copy_from_slice(&self.hash.to_bytes());
        }
        let mut bytes = &bytes[..self.header_len];
        for place in places {
            place.copy_from(bytes);
            bytes = &bytes[place.len().min(bytes.len())..];
        }
    }

    /// Hands a frame of `len` bytes, which fits, to the driver. With header split, so many of them
    /// are `in_head`.
    pub(super) fn deliver(
        &mut self,
        len: usize,
        meta: Meta,
        mut hdr: NetHdr,
        in_head: usize,
    ) -> Result<(), Fault> {
        let mut left = self.header_len + len;
        let mut head = 0;
        if self.split.is_some() {
            head = self.header_len + in_head;
            left -= head;
        }
        let mut count = 0;
        for chain in &self.chains[self.first..] {
            let used = chain.bytes.min(left);
            // A chain is at most `MAX_RX_CHAIN` long.
            let ahead = self.unpublished.wrapping_add(count);
            self.ring
                .put_used(&self.view, ahead, chain.head, (head + used) as u32)?;
            head = 0;
            count += 1;
            left -= used;
            self.posted -= chain.bytes;
            if left == 0 {
                break;
            }
        }
        hdr.num_buffers = count;
        self.write_header(&hdr, &self.header);
        self.unpublished += count;
        if self.followers.is_some() {
            self.tell(len, meta, in_head, count);
        }
        self.first += usize::from(count);
        self.start = self.chains[self.first - 1].parts_end;
        if self.waiting() > 0 {
            self.reserve_header();
        }
        Ok(())
    }

    /// Tells those who want to know that a frame was put into the first `count` chains.
    #[inline(never)]
    fn tell(&mut self, len: usize, meta: Meta, in_head: usize, count: u16) {
        let Some(followers) = &mut self.followers else {
            return;
        };
        if let Some(progress) = &followers.progress {
            progress.done(self.ring.used_after(self.unpublished), 1);
        }
        let Some(recorder) = &mut followers.recorder else {
            return;
        };
        let head = self.heads.get(self.first).filter(|_| in_head > 0);
        let head = head.and_then(|head| head.subslice(self.header_len, in_head).ok());
        let frame = Frame {
            meta,
            len,
            parts: &self.parts[self.start..],
        };
        if recorder.received(head, &frame, self.hash) {
            for chain in &self.chains[self.first..][..usize::from(count)] {
                describe(self.ring, &self.view, chain.head, recorder);
            }
        }
    }
}
