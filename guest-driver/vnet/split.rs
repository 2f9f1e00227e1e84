// SPDX-License-Identifier: GPL-2.0

//! Header-data split: received frames whose headers have a buffer of their own.
//!
//! The payload of a frame then begins at the start of a page and fills whole pages, which the stack
//! can map into a process instead of copying them. Headers are copied to the linear part of the skb,
//! so that their buffers never leave the ring for long: they are pieces of a few pages, as many as
//! there are chains, which is half as many as descriptors.

use kernel::prelude::*;
use netdev::{
    error::EOPNOTSUPP,
    ethtool::Answer,
    Napi,
    PoolBuffer,
    RxSkb, //
};
use vnet_contract::{
    features,
    hdr,
    regs, //
};

use crate::{
    nic::Nic,
    rx::{
        give_up,
        Batch,
        Failure,
        Header,
        Rx,
        RxBuffer, //
    },
};

/// Length of a header buffer. The per-packet header and the longest headers that the card looks for,
/// which are 128 bytes, leave some of it: a short frame that is not split, such as one of ARP, fits as
/// a whole.
const HEAD: u32 = 256;

impl Nic<'_> {
    /// True if the card can split frames.
    pub(crate) fn splits(&self) -> bool {
        self.identity.features & features::HDR_SPLIT != 0
    }

    /// Whether to split frames, if the user wants so.
    pub(crate) fn may_split(&self, wanted: bool, answer: &mut Answer<'_>) -> Result<bool> {
        if !wanted {
            return Ok(false);
        }
        if !self.splits() {
            answer.say(c"the card cannot split headers and data");
            return Err(EOPNOTSUPP);
        }
        if self.shape().program.is_some() {
            answer.say(c"there is an XDP program, which has no use for tcp-data-split");
            return Err(EBUSY);
        }
        Ok(true)
    }

    /// Tells the card, before it is started, whether chains of a receive queue have header buffers.
    pub(crate) fn program_split(&self, index: u16) {
        if self.splits() {
            let split = if self.shape().split {
                regs::Q_SPLIT_ENABLE
            } else {
                0
            };
            self.regs.write_queue(index, regs::Q_SPLIT, split);
        }
    }
}

impl Rx {
    /// Makes the header buffers of an empty ring, if it is to have any.
    pub(crate) fn make_heads(&mut self, alloc: impl Fn() -> Option<PoolBuffer>) -> Result {
        let Some(heads) = &mut self.heads else {
            return Ok(());
        };
        heads.clear();
        let chains = usize::from(self.ring.size() / 2);
        while heads.len() < chains {
            let mut next = alloc();
            if next.is_none() {
                return Err(ENOMEM);
            }
            while let Some(mut head) = next {
                next = head.split_off(HEAD, HEAD);
                if heads.len() < chains {
                    heads.push(RxBuffer(head), GFP_KERNEL)?;
                }
            }
        }
        Ok(())
    }

    /// Posts all header buffers that are not, each with a page.
    pub(crate) fn post_split(&mut self, alloc: impl Fn() -> Option<PoolBuffer>) {
        let Some(heads) = &mut self.heads else {
            return;
        };
        while let Some(head) = heads.pop() {
            let Some(page) = alloc() else {
                // It was there a moment ago.
                let _ = heads.push_within_capacity(head);
                self.stats.queue.alloc_failed.add(1);
                return;
            };
            if let Err((head, _)) = self.ring.post_split(head, RxBuffer(page)) {
                let _ = heads.push_within_capacity(head);
                return;
            }
        }
    }

    /// Takes one frame from the ring. False if there is none.
    #[inline]
    pub(crate) fn frame_split(
        &mut self,
        napi: &Napi<'_, Nic<'_>>,
        batch: &mut Batch,
    ) -> Result<bool, Failure> {
        let (skip, features) = (self.header, self.features);
        let Some((RxBuffer(head), len)) = self.ring.peek()? else {
            return Ok(false);
        };
        head.sync_for_cpu(len);
        let Some(header) = Header::read(head, len, features) else {
            self.ring.repost();
            self.stats.queue.bad_frames.add(1);
            return Ok(true);
        };
        let buffers = header.buffers(features)?;
        let (first, room) = (len - skip, head.length() - skip);
        let split = header.base.flags & hdr::F_SPLIT != 0;
        let linear = if split {
            u32::from(header.base.hdr_len)
        } else {
            first.min(room)
        };
        if linear > first.min(room) {
            return Err(Failure::Split);
        }
        let headers = if split || header.base.gso_type == hdr::GSO_NONE {
            linear
        } else {
            header.length(napi.device(), head, skip, linear)
        };
        let skb = RxSkb::copy(napi, head, skip, linear);
        head.sync_for_device(len);
        let (skb, total) = if buffers == 1 && first == linear {
            self.ring.repost();
            self.stats.queue.copied.add(1);
            (skb, first)
        } else {
            self.gather_payload(skb, buffers, linear)?
        };
        match skb {
            Some(skb) => self.deliver(napi, skb, &header, total, headers, batch),
            None => self.stats.queue.dropped.add(1),
        }
        Ok(true)
    }

    /// Takes the chains of a frame from the ring, and adds the payload that is in them to the skb, which
    /// has the first `linear` bytes. Gives that and the length of the frame. Without an skb the
    /// chains are posted again.
    fn gather_payload(
        &mut self,
        mut skb: Option<RxSkb>,
        buffers: u16,
        linear: u32,
    ) -> Result<(Option<RxSkb>, u32), Failure> {
        let mut total = linear;
        for n in 0..buffers {
            // In the first header buffer.
            let before = if n == 0 { self.header + linear } else { 0 };
            let len = match self.ring.peek() {
                Ok(Some((_, len))) => len.wrapping_sub(before),
                // The card makes the buffers of a frame visible at once.
                Ok(None) => return Err(give_up(skb, Failure::Incomplete)),
                Err(violation) => return Err(give_up(skb, violation.into())),
            };
            if len == 0 {
                return Err(give_up(skb, Failure::Empty));
            }
            total += len;
            let Some(mut frame) = skb.take() else {
                self.ring.repost();
                continue;
            };
            if let Ok(Some((head, RxBuffer(page), _))) = self.ring.take_split() {
                page.sync_for_cpu(len);
                if let Some(heads) = &mut self.heads {
                    // There is room for all that there are.
                    let _ = heads.push_within_capacity(head);
                }
                if frame.add(page, 0, len).is_err() {
                    // Longer than its page: the ring knows only how long both buffers are.
                    return Err(give_up(Some(frame), Failure::Split));
                }
            }
            skb = Some(frame);
        }
        Ok((skb, total))
    }
}
