// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The transmit ring: chains of buffers that the card reads.

use core::ops::DerefMut;

use crate::split::{Draft, Split};
use crate::{BadSize, Buffer, Memory, Slot, Violation};

/// Longest chain that lies in the ring while it has room, and not in a table.
pub const MAX_DIRECT: u16 = 4;

/// A transmit ring over ring memory `M`, with its slots in `S`.
#[derive(Clone, Debug)]
pub struct Ring<M, S>(Split<M, S>);

impl<M, S, B, T> Ring<M, S>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, T>]>,
    B: Buffer,
{
    /// An empty ring. Clears `memory`, so the card must not use it yet. `slots` must have as many
    /// elements as the memory has descriptors, with those of its tables.
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

    /// Free descriptors.
    pub fn free(&self) -> u16 {
        self.0.free()
    }

    /// Chains committed and not yet reclaimed.
    pub fn in_flight(&self) -> u16 {
        self.0.in_flight()
    }

    /// Chains taken back so far, modulo 2^16: it tells one look at the ring from another.
    pub fn taken(&self) -> u16 {
        self.0.taken()
    }

    /// The rule that the card broke, if the ring is broken.
    pub fn broken(&self) -> Option<Violation> {
        self.0.broken()
    }

    /// True if a chain of `count` buffers, and each shorter one, can be begun.
    #[inline]
    pub fn has_room(&self, count: u16) -> bool {
        self.0.begin(count, MAX_DIRECT).is_some()
    }

    /// Begins a chain of up to `count` buffers. `None` if there are not as many free descriptors and no
    /// table, or the ring is broken.
    #[inline]
    pub fn begin(&mut self, count: u16) -> Option<Chain<'_, M, S, B, T>> {
        let draft = self.0.begin(count, MAX_DIRECT)?;
        Some(Chain {
            ring: &mut self.0,
            draft,
        })
    }

    /// Shows the card all committed chains. `Some`: ring the doorbell with this value.
    #[must_use = "the card may wait for its doorbell"]
    #[inline]
    pub fn publish(&mut self) -> Option<u16> {
        self.0.publish()
    }

    /// Takes back one chain that the card is done with: its buffers are dropped, its cookie
    /// returned.
    #[inline]
    pub fn reclaim(&mut self) -> Result<Option<T>, Violation> {
        match self.0.pop()? {
            Some((head, _)) => Ok(self.0.release(head, drop)),
            None => Ok(None),
        }
    }

    /// True if [`Self::reclaim`] would give a chain or find a violation.
    pub fn has_used(&self) -> bool {
        self.0.has_used()
    }

    /// Asks the card for no interrupt. Advice only: one may still come.
    pub fn disable_interrupts(&mut self) {
        self.0.disable_interrupts();
    }

    /// Asks the card for an interrupt with the next chain that it is done with. False: there
    /// already is one, and there may be no interrupt; reclaim again.
    #[must_use = "an interrupt that is due may not come"]
    pub fn enable_interrupts(&mut self) -> bool {
        self.0.enable_interrupts(0)
    }

    /// Like [`Self::enable_interrupts`], but waits until the card is done with three quarters of
    /// the chains that are in flight. The wait is bounded, for the card has all of them.
    #[must_use = "an interrupt that is due may not come"]
    pub fn enable_interrupts_delayed(&mut self) -> bool {
        let share = u32::from(self.0.published_in_flight()) * 3 / 4;
        self.0.enable_interrupts(share as u16)
    }

    /// Drops all buffers, gives the cookie of every chain in flight to `each` and begins anew with
    /// cleared ring memory. Only when the card does not use the ring: the queue was stopped,
    /// the card was reset, or it is gone.
    pub fn reset(&mut self, each: impl FnMut(T)) {
        self.0.restart(drop, each);
    }
}

/// A chain under construction. Dropping it instead of committing drops the buffers and leaves the
/// ring as it was.
#[derive(Debug)]
pub struct Chain<'r, M, S, B, T>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, T>]>,
    B: Buffer,
{
    ring: &'r mut Split<M, S>,
    draft: Draft,
}

impl<M, S, B, T> Chain<'_, M, S, B, T>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, T>]>,
    B: Buffer,
{
    /// The descriptor that the chain begins with. No other chain has it until this one is reclaimed
    /// or given up.
    #[inline]
    pub fn head(&self) -> u16 {
        self.ring.free_head()
    }

    /// True if the chain lies in a table.
    #[inline]
    pub fn is_indirect(&self) -> bool {
        self.draft.table.is_some()
    }

    /// Adds a buffer for the card to read. Gives it back if there is no free descriptor, which
    /// cannot happen within the count that the chain was begun with.
    #[inline]
    pub fn push(&mut self, buffer: B) -> Result<(), B> {
        self.ring.push(&mut self.draft, buffer, false)
    }

    /// Finishes the chain; the card sees it after [`Ring::publish`]. Gives the cookie back if the
    /// chain is empty.
    #[inline]
    pub fn commit(mut self, cookie: T) -> Result<(), T> {
        // What is left behind is an empty draft, so that dropping `self` does nothing.
        let draft = core::mem::take(&mut self.draft);
        self.ring.commit(draft, cookie)
    }
}

impl<M, S, B, T> Drop for Chain<'_, M, S, B, T>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, T>]>,
    B: Buffer,
{
    fn drop(&mut self) {
        self.ring.discard(self.draft);
    }
}
