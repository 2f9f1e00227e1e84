// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The protocol that both directions share.

use core::ops::DerefMut;

use vnet_contract::queue::MAX_SIZE;
use vnet_contract::ring::{
    need_event, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE,
};

use crate::indirect::Pool;
use crate::slot::IN_TABLE;
use crate::{BadSize, Buffer, Memory, Slot, Violation};

/// A split ring. All indices run freely modulo 2^16; `mask` gives the place in the ring. Those of the
/// avail ring go on to 2^32, of which the card is shown the lower half: so a chain that the card keeps
/// while 2^16 others come and go is still told from one that was entered just now.
///
/// Invariant: the `free` descriptors of the free list and the chains whose head has a `count`
/// partition the slots of the ring. A chain under construction is the first part of the free list, so
/// that giving it up changes no link. The slots of the tables come behind those of the ring, and each
/// table is either free or that of one chain whose head says so.
#[derive(Clone, Debug)]
pub(crate) struct Split<M, S> {
    memory: M,
    slots: S,
    mask: u16,
    /// First descriptor of the free list; meaningless while `free` is 0.
    free_head: u16,
    /// Length of the free list.
    free: u16,
    tables: Pool,
    /// Avail index of the next chain.
    next_avail: u32,
    /// Avail index that the card was last shown.
    published: u32,
    /// Used index of the next entry to take.
    next_used: u16,
    /// Used index last read, checked: `next_used..=published`.
    seen_used: u16,
    /// Value of `used_event` in ring memory.
    event: u16,
    broken: Option<Violation>,
}

/// A chain under construction: the first `count` descriptors of the free list, or of a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) count: u16,
    writable: u32,
    /// The last descriptor, which is written when its successor is known.
    last: u16,
    desc: Desc,
    /// The free table that it lies in.
    pub(crate) table: Option<u16>,
}

impl<M, S, B, T> Split<M, S>
where
    M: Memory,
    S: DerefMut<Target = [Slot<B, T>]>,
    B: Buffer,
{
    pub(crate) fn new(memory: M, slots: S) -> Result<Self, BadSize> {
        let (size, tables) = (memory.size(), memory.tables());
        if !size.is_power_of_two()
            || size > MAX_SIZE
            || !tables.fit(size)
            || slots.len() != usize::from(size) + tables.slots()
        {
            return Err(BadSize);
        }
        let mut ring = Self {
            memory,
            slots,
            mask: size - 1,
            free_head: 0,
            free: 0,
            tables: Pool::new(tables),
            next_avail: 0,
            published: 0,
            next_used: 0,
            seen_used: 0,
            event: 0,
            broken: None,
        };
        ring.restart(drop, drop);
        Ok(ring)
    }

    /// Takes everything back from the card and begins anew at index 0. All buffers go before the
    /// first cookie, since a cookie may own the memory that its buffers map.
    pub(crate) fn restart(&mut self, each_buffer: impl FnMut(B), each_cookie: impl FnMut(T)) {
        let slots = self.slots.iter_mut();
        slots.filter_map(|s| s.buffer.take()).for_each(each_buffer);
        let slots = self.slots.iter_mut();
        slots.filter_map(|s| s.cookie.take()).for_each(each_cookie);
        let mask = self.mask;
        for (i, slot) in self.slots.iter_mut().enumerate() {
            slot.count = 0;
            slot.next = (i as u16).wrapping_add(1) & mask;
        }
        self.memory.clear();
        self.free_head = 0;
        self.free = mask + 1;
        self.tables.refill();
        self.next_avail = 0;
        self.published = 0;
        self.next_used = 0;
        self.seen_used = 0;
        self.event = 0;
        self.broken = None;
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn size(&self) -> u16 {
        self.mask + 1
    }

    pub(crate) fn free(&self) -> u16 {
        self.free
    }

    /// First descriptor of the next chain.
    #[inline]
    pub(crate) fn free_head(&self) -> u16 {
        self.free_head
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u16 {
        (self.next_avail as u16).wrapping_sub(self.next_used)
    }

    /// Chains that were taken back, modulo 2^16.
    pub(crate) fn taken(&self) -> u16 {
        self.next_used
    }

    /// Chains that the card was shown and that are not yet taken back.
    pub(crate) fn published_in_flight(&self) -> u16 {
        (self.published as u16).wrapping_sub(self.next_used)
    }

    /// True if a chain that was entered at this index is hidden from the card as yet.
    #[inline]
    fn is_hidden(&self, entered: u32) -> bool {
        entered.wrapping_sub(self.published) < self.next_avail.wrapping_sub(self.published)
    }

    pub(crate) fn broken(&self) -> Option<Violation> {
        self.broken
    }

    fn slot(&mut self, index: u16) -> &mut Slot<B, T> {
        &mut self.slots[usize::from(index)]
    }

    /// Begins a chain of up to `count` descriptors: in the ring, or in a table if it is of more than
    /// `direct`, or does not fit otherwise. `None` if there is no room for it.
    #[inline]
    pub(crate) fn begin(&self, count: u16, direct: u16) -> Option<Draft> {
        if self.broken.is_some() {
            return None;
        }
        let mut draft = Draft::default();
        if count > direct.min(self.free) && self.free != 0 {
            draft.table = self.tables.next(count);
        }
        (draft.table.is_some() || count <= self.free).then_some(draft)
    }

    /// Adds a buffer to the chain under construction.
    #[inline]
    pub(crate) fn push(&mut self, draft: &mut Draft, buffer: B, write: bool) -> Result<(), B> {
        let most = match draft.table {
            Some(_) => self.tables.entries(),
            None => self.free,
        };
        if draft.count == most || self.broken.is_some() {
            return Err(buffer);
        }
        let index = match draft.table {
            Some(_) => draft.count,
            None if draft.count == 0 => self.free_head,
            None => self.slots[usize::from(draft.last)].next,
        };
        if draft.count != 0 {
            draft.desc.flags |= DESC_F_NEXT;
            draft.desc.next = index;
            self.write_last(draft);
        }
        draft.last = index;
        draft.desc = Desc {
            addr: buffer.addr(),
            len: buffer.length(),
            flags: if write { DESC_F_WRITE } else { 0 },
            next: 0,
        };
        if write {
            draft.writable = draft.writable.saturating_add(buffer.length());
        }
        draft.count += 1;
        let slot = match draft.table {
            Some(table) => self.table(table, draft.count).last_mut(),
            None => Some(self.slot(index)),
        };
        if let Some(slot) = slot {
            slot.buffer = Some(buffer);
        }
        Ok(())
    }

    /// Writes the last descriptor of a chain under construction.
    #[inline]
    fn write_last(&mut self, draft: &Draft) {
        match draft.table {
            Some(table) => self.memory.write_table(table, draft.last, draft.desc),
            None => self.memory.write_desc(draft.last, draft.desc),
        }
    }

    /// The slots of the first `count` descriptors of a table.
    #[inline]
    fn table(&mut self, table: u16, count: u16) -> &mut [Slot<B, T>] {
        let first = usize::from(self.size()) + self.tables.slot(table);
        &mut self.slots[first..][..usize::from(count)]
    }

    /// Gives a chain under construction up.
    pub(crate) fn discard(&mut self, draft: Draft) {
        if let Some(table) = draft.table {
            let slots = self.table(table, draft.count);
            slots.iter_mut().for_each(|slot| slot.buffer = None);
            return;
        }
        let mut index = self.free_head;
        for _ in 0..draft.count {
            let slot = self.slot(index);
            slot.buffer = None;
            index = slot.next;
        }
    }

    /// Finishes a chain and enters it in the avail ring, not yet visible to the card.
    #[inline]
    pub(crate) fn commit(&mut self, draft: Draft, cookie: T) -> Result<(), T> {
        if draft.count == 0 {
            return Err(cookie);
        }
        self.write_last(&draft);
        let head = self.free_head;
        if let Some(table) = draft.table {
            self.memory.write_desc(
                head,
                Desc {
                    addr: self.memory.table_address(table),
                    len: u32::from(draft.count) * DESC_SIZE as u32,
                    flags: DESC_F_INDIRECT,
                    next: 0,
                },
            );
            self.tables.take(table);
            let next = &mut self.slots[usize::from(head)].next;
            self.free_head = core::mem::replace(next, IN_TABLE | table);
            self.free -= 1;
        } else {
            self.free_head = self.slot(draft.last).next;
            self.free -= draft.count;
        }
        let slot = self.slot(head);
        slot.cookie = Some(cookie);
        slot.count = draft.count;
        slot.writable = draft.writable;
        self.enter(head);
        Ok(())
    }

    /// Enters a chain in the avail ring: a new one, or one that `pop` gave back, as it was.
    #[inline]
    pub(crate) fn enter(&mut self, head: u16) {
        let index = self.next_avail;
        self.slot(head).entered = index;
        self.memory.write_avail(index as u16 & self.mask, head);
        self.next_avail = index.wrapping_add(1);
    }

    /// The first buffer of a chain, which `pop` gave back and `release` did not take apart yet.
    #[inline]
    pub(crate) fn buffer<'a>(&'a self, head: u16) -> Option<&'a B>
    where
        T: 'a,
    {
        self.slots[usize::from(head)].buffer.as_ref()
    }

    /// Shows the card all committed chains. Gives the value for the doorbell if it must be rung.
    #[inline]
    pub(crate) fn publish(&mut self) -> Option<u16> {
        if self.published == self.next_avail || self.broken.is_some() {
            return None;
        }
        let (old, new) = (self.published as u16, self.next_avail as u16);
        self.memory.publish_avail_index(new);
        self.published = self.next_avail;
        // The card writes `avail_event`, then looks at the avail index once more; we do the
        // reverse. With the barrier, one of the two sees the other's store.
        self.memory.full_barrier();
        need_event(self.memory.avail_event(), new, old).then_some(new)
    }

    /// True if `pop` has something to say.
    pub(crate) fn has_used(&self) -> bool {
        self.broken.is_none()
            && (self.seen_used != self.next_used || self.memory.used_index() != self.next_used)
    }

    /// Takes the next used entry: head and length, checked. The caller calls `release` next.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<(u16, u32)>, Violation> {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        if self.seen_used == self.next_used {
            let index = self.memory.used_index();
            if index == self.next_used {
                return Ok(None);
            }
            let done = index.wrapping_sub(self.next_used);
            if done > self.published_in_flight() {
                return Err(self.fail(Violation::UsedIndex {
                    index,
                    last: self.next_used,
                }));
            }
            self.seen_used = index;
        }
        let used = self.memory.used(self.next_used & self.mask);
        if used.id > u32::from(self.mask) {
            return Err(self.fail(Violation::IdRange(used.id)));
        }
        let id = used.id as u16;
        let slot = self.slot(id);
        let (count, posted, entered) = (slot.count, slot.writable, slot.entered);
        // A chain that is entered again, or a new one with the same head, looks the same to a card
        // that gives the id twice. Until it is published, that cannot be the card's honest word.
        if count == 0 || self.is_hidden(entered) {
            return Err(self.fail(Violation::IdNotHeld(id)));
        }
        if used.len > posted {
            return Err(self.fail(Violation::Length {
                id,
                len: used.len,
                posted,
            }));
        }
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some((id, used.len)))
    }

    fn fail(&mut self, violation: Violation) -> Violation {
        self.broken = Some(violation);
        violation
    }

    /// Puts the chain that `pop` gave back on the free list. `each` gets its buffers in order.
    #[inline]
    pub(crate) fn release(&mut self, head: u16, mut each: impl FnMut(B)) -> Option<T> {
        let slot = self.slot(head);
        let count = core::mem::take(&mut slot.count);
        let cookie = slot.cookie.take();
        if slot.next & IN_TABLE != 0 {
            let table = slot.next & !IN_TABLE;
            let slots = self.table(table, count);
            slots
                .iter_mut()
                .filter_map(|slot| slot.buffer.take())
                .for_each(each);
            self.tables.give(table);
            self.slot(head).next = self.free_head;
            self.free_head = head;
            self.free += 1;
            return cookie;
        }
        let mut last = head;
        for i in 0..count {
            if i > 0 {
                last = self.slot(last).next;
            }
            if let Some(buffer) = self.slot(last).buffer.take() {
                each(buffer);
            }
        }
        let free_head = self.free_head;
        self.slot(last).next = free_head;
        self.free_head = head;
        self.free += count;
        cookie
    }

    /// Asks for no interrupt. Advice only: one may still be on its way.
    ///
    /// An event index that lies behind is never reached (or, after 2^16 chains, once), so most
    /// of the time there is nothing to write.
    pub(crate) fn disable_interrupts(&mut self) {
        if self.event.wrapping_sub(self.next_used) < 1 << 15 {
            self.set_event(self.next_used.wrapping_sub(1));
        }
    }

    /// Asks for an interrupt when `after` more chains have come back beyond the next. False: they
    /// have already, and there may be no interrupt.
    pub(crate) fn enable_interrupts(&mut self, after: u16) -> bool {
        if self.broken.is_some() {
            return true;
        }
        self.set_event(self.next_used.wrapping_add(after));
        // The card moves the used index, then reads `used_event`; we do the reverse.
        self.memory.full_barrier();
        self.memory.used_index().wrapping_sub(self.next_used) <= after
    }

    fn set_event(&mut self, event: u16) {
        self.event = event;
        self.memory.write_used_event(event);
    }
}
