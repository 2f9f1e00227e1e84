// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Chains for a batch: from the avail ring until a frame is in them.

use vnet_contract::queue::{Error, MAX_RX_CHAIN};

use super::{Batch, Single};
use crate::chain::{single, walk, Chain, Direction};
use crate::{Fault, Waits};

impl Batch<'_> {
    /// Takes the next chain if none waits, it is a single buffer, and nobody wants headers apart or to be
    /// told of frames. Any other, and what is wrong with it, is for [`Self::gather_several`].
    #[inline]
    fn take_single(&mut self) -> Result<(), Fault> {
        let plain = self.split.is_none() && self.followers.is_none();
        if !plain || self.waiting() > 0 || self.budget.is_spent() {
            return Ok(());
        }
        let Some(head) = self.ring.take(&self.view)? else {
            return Ok(());
        };
        let desc = (head < self.ring.size()).then(|| self.ring.descriptor(&self.view, head));
        let parts = desc
            .and_then(Result::ok)
            .and_then(|desc| single(&mut self.view, &desc, Direction::Write, MAX_RX_CHAIN))
            .and_then(|part| part.split_at(self.header_len).ok());
        match parts {
            Some((header, room)) if !room.is_empty() => {
                self.budget.spend(0, 0, 1);
                self.single = Some(Single { head, header, room });
            }
            _ => self.ring.give_back(1),
        }
        Ok(())
    }

    /// Puts it where it can be one of several.
    fn spill(&mut self) {
        let Some(Single { head, header, room }) = self.single.take() else {
            return;
        };
        let bytes = header.len() + room.len();
        self.header.clear();
        self.header.push(header);
        self.start = self.parts.len();
        self.parts.push(room);
        self.posted += bytes;
        self.chains.push(Chain {
            head,
            descriptors: 1,
            bytes,
            first: bytes,
            parts_end: self.parts.len(),
        });
    }

    /// Takes chains until `len` bytes fit, or it is clear that they never will. Else says what has
    /// to come first.
    #[inline]
    pub(super) fn gather(&mut self, len: usize) -> Result<Option<Waits>, Fault> {
        self.take_single()?;
        if let Some(single) = &self.single {
            if len <= single.room.len() {
                return Ok(None);
            }
        }
        self.spill();
        self.gather_several(len)
    }

    #[inline(never)]
    fn gather_several(&mut self, len: usize) -> Result<Option<Waits>, Fault> {
        while self.capacity() < len {
            if self.waiting() > 0 && !self.mergeable {
                // One chain holds the frame, or nothing does.
                return Ok(None);
            }
            if self.budget.is_spent() {
                // The chains cannot be kept, as they borrow from the batch. The next batch walks
                // them again and has its whole budget for the frame. A frame for which that was
                // not enough will not fit then either.
                return Ok((!self.is_fresh()).then_some(Waits::Nothing));
            }
            let Some(head) = self.ring.take(&self.view)? else {
                // A driver that has posted all that it can will not post more.
                let all = self.waiting() == usize::from(self.ring.size());
                return Ok((!all).then_some(Waits::Driver));
            };
            let parts = &mut self.parts;
            let before = parts.len();
            let chain = walk(
                self.ring,
                &mut self.view,
                head,
                Direction::Write,
                MAX_RX_CHAIN,
                parts,
            )
            .and_then(|chain| match chain.bytes > self.header_len {
                true => Ok(chain),
                false => Err(Fault::new(Error::BufferLength, head)),
            });
            match chain {
                Ok(chain) => {
                    self.budget.spend(0, 0, chain.descriptors.into());
                    self.adopt(chain, before)?;
                }
                Err(fault) => {
                    self.ring.give_back(1);
                    return Err(fault);
                }
            }
        }
        Ok(None)
    }

    /// Has a chain wait that was taken, and whose parts are those from `at` on.
    #[inline]
    pub(super) fn adopt(&mut self, mut chain: Chain, at: usize) -> Result<(), Fault> {
        if self.split.is_some() {
            self.set_apart(&mut chain, at)?;
        }
        self.posted += chain.bytes;
        self.chains.push(chain);
        if self.waiting() == 1 {
            self.reserve_header();
        }
        Ok(())
    }

    /// Sets the header buffer apart from the other parts of a chain, which are those from `at` on.
    fn set_apart(&mut self, chain: &mut Chain, at: usize) -> Result<(), Fault> {
        let head = self.parts[at];
        let error = if chain.first < self.header_len || chain.first == chain.bytes {
            Some(Error::BufferLength)
        } else if head.len() != chain.first {
            // It lies in several ranges of guest memory.
            Some(Error::BufferFault)
        } else {
            None
        };
        if let Some(error) = error {
            self.ring.give_back(1);
            return Err(Fault::new(error, chain.head));
        }
        chain.bytes -= chain.first;
        if self.waiting() == 0 {
            self.start = at + 1;
        } else {
            self.parts.remove(at);
            chain.parts_end -= 1;
        }
        self.heads.push(head);
        Ok(())
    }

    /// Sets the place of the header apart from the parts of the first chain that waits.
    pub(super) fn reserve_header(&mut self) {
        self.header.clear();
        if let Some(head) = self.heads.get(self.first) {
            // A header buffer is longer than the header, or as long.
            self.header.extend(head.subslice(0, self.header_len));
            return;
        }
        let mut left = self.header_len;
        while left > 0 {
            let part = self.parts[self.start];
            match part.split_at(left) {
                Ok((place, rest)) if !rest.is_empty() => {
                    self.header.push(place);
                    self.parts[self.start] = rest;
                    left = 0;
                }
                _ => {
                    self.header.push(part);
                    self.start += 1;
                    left -= part.len();
                }
            }
        }
    }

    /// Puts as much of the header buffer before the other parts as the headers will need, if they
    /// are as long as is expected.
    pub(super) fn lend_header(&mut self) {
        self.lead = 0;
        let (Some(split), Some(head)) = (&self.split, self.heads.get(self.first)) else {
            return;
        };
        let lead = split.expected().min(head.len() - self.header_len);
        if let Ok(part) = head.subslice(self.header_len, lead) {
            self.parts[self.start - 1] = part;
            self.lead = lead;
        }
    }
}
