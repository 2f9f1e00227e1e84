// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive ring: buffers that the card writes, single ones or each with one for headers.

use core::ops::DerefMut;

use crate::split::{Draft, Split};
use crate::{BadSize, Buffer, Memory, Slot, Violation};

/// A receive ring over ring memory `M`, with its slots in `S`.
#[derive(Clone, Debug)]
pub struct Ring<M, S> {
    split: Split<M, S>,
    /// The used entry that [`Ring::peek`] took, as it was checked then: head and length. Its buffer
    /// is still in the slot of the head.
    peeked: Option<(u16, u32)>,
}

impl<M, S, B> Ring<M, S>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, ()>]>,
    B: Buffer,
{
    /// An empty ring. Clears `memory`, so the card must not use it yet. `slots` must have as many
    /// elements as the memory has descriptors.
    pub fn new(memory: M, slots: S) -> Result<Self, BadSize> {
        Ok(Self {
            split: Split::new(memory, slots)?,
            peeked: None,
        })
    }

    /// The ring memory, for its bus addresses.
    pub fn memory(&self) -> &M {
        self.split.memory()
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.split.size()
    }

    /// Free descriptors: buffers that can still be posted; those with one for headers take two.
    pub fn free(&self) -> u16 {
        self.split.free()
    }

    /// Buffers, or chains of two, that were posted and not yet taken back.
    pub fn in_flight(&self) -> u16 {
        self.split.in_flight()
    }

    /// Chains taken back so far, modulo 2^16: it tells one look at the ring from another.
    pub fn taken(&self) -> u16 {
        self.split.taken()
    }

    /// The rule that the card broke, if the ring is broken.
    pub fn broken(&self) -> Option<Violation> {
        self.split.broken()
    }

    /// Posts a buffer for the card to write; it sees it after [`Self::publish`]. Gives the buffer
    /// back if the ring is full or broken.
    #[inline]
    pub fn post(&mut self, buffer: B) -> Result<(), B> {
        let mut draft = Draft::default();
        self.split.push(&mut draft, buffer, true)?;
        // The draft holds one buffer, so it cannot be refused as empty.
        let _ = self.split.commit(draft, ());
        Ok(())
    }

    /// Posts a buffer for headers and one for payload, as one chain. Gives both back if there is no
    /// room, or the ring is broken.
    #[inline]
    pub fn post_split(&mut self, headers: B, payload: B) -> Result<(), (B, B)> {
        let Some(mut draft) = self.split.begin(2, 2) else {
            return Err((headers, payload));
        };
        if let Err(headers) = self.split.push(&mut draft, headers, true) {
            return Err((headers, payload));
        }
        // There is room for both, or the first would have been refused. The draft is not empty.
        let _ = self.split.push(&mut draft, payload, true);
        let _ = self.split.commit(draft, ());
        Ok(())
    }

    /// Shows the card all posted buffers. `Some`: ring the doorbell with this value.
    #[must_use = "the card may wait for its doorbell"]
    #[inline]
    pub fn publish(&mut self) -> Option<u16> {
        self.split.publish()
    }

    /// Takes back one buffer that the card is done with, and the number of bytes that the card
    /// says it wrote: at most the length of the buffer, but maybe too few for what they claim to
    /// be, and not necessarily written.
    #[inline]
    pub fn take(&mut self) -> Result<Option<(B, u32)>, Violation> {
        let next = match self.peeked.take() {
            Some(peeked) => Some(peeked),
            None => self.split.pop()?,
        };
        let Some((head, len)) = next else {
            return Ok(None);
        };
        let mut taken = None;
        self.split.release(head, |buffer| taken = Some(buffer));
        Ok(taken.map(|buffer| (buffer, len)))
    }

    /// Takes back a chain of [`Self::post_split`], headers first, and the number of bytes that the
    /// card says it wrote into both, of which the same is true. Other buffers are dropped, with
    /// `None`.
    #[inline]
    pub fn take_split(&mut self) -> Result<Option<(B, B, u32)>, Violation> {
        let next = match self.peeked.take() {
            Some(peeked) => Some(peeked),
            None => self.split.pop()?,
        };
        let Some((head, len)) = next else {
            return Ok(None);
        };
        let (mut headers, mut payload) = (None, None);
        self.split.release(head, |buffer| {
            let place = if headers.is_none() {
                &mut headers
            } else {
                &mut payload
            };
            *place = Some(buffer);
        });
        Ok(headers
            .zip(payload)
            .map(|(headers, payload)| (headers, payload, len)))
    }

    /// Shows the buffer that [`Self::take`] would give, or the first that [`Self::take_split`] would,
    /// with the length. [`Self::repost`] gives it, or both, to the card again instead.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<(&B, u32)>, Violation> {
        if self.peeked.is_none() {
            self.peeked = self.split.pop()?;
        }
        let Some((head, len)) = self.peeked else {
            return Ok(None);
        };
        Ok(self.split.buffer(head).map(|buffer| (buffer, len)))
    }

    /// Posts the buffer that [`Self::peek`] showed again: what it held was copied, or is not wanted.
    /// Its descriptor is still right. False if none was shown.
    #[inline]
    pub fn repost(&mut self) -> bool {
        let Some((head, _)) = self.peeked.take() else {
            return false;
        };
        self.split.enter(head);
        true
    }

    /// True if [`Self::take`] would give a buffer or find a violation.
    pub fn has_used(&self) -> bool {
        self.peeked.is_some() || self.split.has_used()
    }

    /// Asks the card for no interrupt. Advice only: one may still come.
    pub fn disable_interrupts(&mut self) {
        self.split.disable_interrupts();
    }

    /// Asks the card for an interrupt with the next buffer that it fills. False: there already is
    /// one, and there may be no interrupt; poll again.
    #[must_use = "an interrupt that is due may not come"]
    pub fn enable_interrupts(&mut self) -> bool {
        self.peeked.is_none() && self.split.enable_interrupts(0)
    }

    /// Gives every posted buffer to `each` and begins anew with cleared ring memory. Only when
    /// the card does not use the ring: the queue was stopped, the card was reset, or it is gone.
    pub fn reset(&mut self, each: impl FnMut(B)) {
        self.peeked = None;
        self.split.restart(each, drop);
    }
}
