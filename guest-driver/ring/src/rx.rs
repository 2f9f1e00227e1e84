// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive ring: single buffers that the card writes.

use core::ops::DerefMut;

use crate::split::{Draft, Split};
use crate::{BadSize, Buffer, Memory, Slot, Violation};

/// A receive ring over ring memory `M`, with its slots in `S`.
#[derive(Debug)]
pub struct Ring<M, S>(Split<M, S>);

impl<M, S, B> Ring<M, S>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, ()>]>,
    B: Buffer,
{
    /// An empty ring. Clears `memory`, so the card must not use it yet. `slots` must have as many
    /// elements as the memory has descriptors.
    pub fn new(memory: M, slots: S) -> Result<Self, BadSize> {
        Split::new(memory, slots).map(Self)
    }

    /// The ring memory, for its bus addresses.
    pub fn memory(&self) -> &M {
        self.0.memory()
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.0.size()
    }

    /// Free descriptors: buffers that can still be posted.
    pub fn free(&self) -> u16 {
        self.0.free()
    }

    /// Buffers posted and not yet taken back.
    pub fn in_flight(&self) -> u16 {
        self.0.in_flight()
    }

    /// The rule that the card broke, if the ring is broken.
    pub fn broken(&self) -> Option<Violation> {
        self.0.broken()
    }

    /// Posts a buffer for the card to write; it sees it after [`Self::publish`]. Gives the buffer
    /// back if the ring is full or broken.
    #[inline]
    pub fn post(&mut self, buffer: B) -> Result<(), B> {
        let mut draft = Draft::default();
        self.0.push(&mut draft, buffer, true)?;
        // The draft holds one buffer, so it cannot be refused as empty.
        let _ = self.0.commit(draft, ());
        Ok(())
    }

    /// Shows the card all posted buffers. `Some`: ring the doorbell with this value.
    #[must_use = "the card may wait for its doorbell"]
    #[inline]
    pub fn publish(&mut self) -> Option<u16> {
        self.0.publish()
    }

    /// Takes back one buffer that the card is done with, and the number of bytes that the card
    /// says it wrote: at most the length of the buffer, but maybe too few for what they claim to
    /// be, and not necessarily written.
    #[inline]
    pub fn take(&mut self) -> Result<Option<(B, u32)>, Violation> {
        let Some((head, len)) = self.0.pop()? else {
            return Ok(None);
        };
        let mut taken = None;
        self.0.release(head, |buffer| taken = Some(buffer));
        Ok(taken.map(|buffer| (buffer, len)))
    }

    /// True if [`Self::take`] would give a buffer or find a violation.
    pub fn has_used(&self) -> bool {
        self.0.has_used()
    }

    /// Asks the card for no interrupt. Advice only: one may still come.
    pub fn disable_interrupts(&mut self) {
        self.0.disable_interrupts();
    }

    /// Asks the card for an interrupt with the next buffer that it fills. False: there already is
    /// one, and there may be no interrupt; poll again.
    #[must_use = "an interrupt that is due may not come"]
    pub fn enable_interrupts(&mut self) -> bool {
        self.0.enable_interrupts(0)
    }

    /// Gives every posted buffer to `each` and begins anew with cleared ring memory. Only when
    /// the card does not use the ring: the queue was stopped, the card was reset, or it is gone.
    pub fn reset(&mut self, each: impl FnMut(B)) {
        self.0.restart(each, drop);
    }
}
