// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the backend sees of a batch: room for a frame, which it fills.

use vnet_backend::{Frame, Meta, Room, RxRing, MAX_FRAME};

use super::{lent_parts, Batch, Lent};
use crate::header;
use crate::steer::FRAME_START;
use crate::Waits;

impl RxRing for Batch<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        let again = self.withdraw().is_some();
        if self.outcome.fault.is_some() || len > MAX_FRAME {
            return None;
        }
        // What is lent already stays so, whatever it took of the budget: the frame may be in it.
        if self.budget.is_spent() && !self.is_fresh() && !again {
            self.outcome.waits = Waits::Nothing;
            return None;
        }
        match self.gather(len) {
            // A backend that was refused more may have asked for less.
            Ok(None) => self.outcome.waits = Waits::Backend,
            Ok(Some(waits)) => {
                self.outcome.waits = waits;
                return None;
            }
            Err(fault) => {
                self.outcome.fault = Some(fault);
                return None;
            }
        }
        let capacity = self.capacity();
        let overflow = match len.checked_sub(capacity) {
            None | Some(0) => None,
            // Within the overflow, which takes the longest frame.
            Some(short) => Some(self.overflow.subslice(0, short).ok()?),
        };
        self.lent = Some(Lent {
            len: capacity.max(len),
            overflows: overflow.is_some(),
        });
        if self.single.is_none() {
            self.parts.extend(overflow);
            self.lend_header();
        }
        Some(Room {
            parts: lent_parts(&self.single, &self.parts[self.first_part()..]),
        })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        let Some(lent) = self.withdraw() else {
            // Nothing was lent, so nothing was written.
            return;
        };
        self.budget.spend(1, len, 0);
        if len > lent.len || len > self.capacity() {
            self.outcome.drops += 1;
            return;
        }
        let mut start = [0; FRAME_START];
        // Only the address is needed if nobody looks at the rest.
        let most = match (&self.steer, &self.split) {
            (None, None) => header::ETH_HLEN,
            _ => FRAME_START,
        };
        let start = &mut start[..most.min(len)];
        let frame = Frame {
            meta,
            len,
            parts: lent_parts(&self.single, &self.parts[self.first_part()..]),
        };
        frame.read(start);
        if let Some(steer) = &mut self.steer {
            match steer.steer(start, &frame) {
                Some(hash) => self.hash = hash,
                // The buffers take the next frame.
                None => {
                    self.outcome.handed += 1;
                    return;
                }
            }
        }
        let wanted = start
            .first_chunk()
            .is_some_and(|start| self.filter.accepts(start, len, meta.gso.is_some()));
        let hdr = match wanted {
            true => header::build(&meta, self.told),
            false => None,
        };
        // So they do if the frame is dropped.
        let Some(mut hdr) = hdr else {
            self.outcome.drops += 1;
            return;
        };
        let delivered = match self.single {
            Some(single) => self.deliver_single(single, len, hdr),
            None => {
                let in_head = self.split(start, len, &mut hdr);
                self.deliver(len, meta, hdr, in_head)
            }
        };
        match delivered {
            Ok(()) => {
                self.outcome.frames += 1;
                self.outcome.bytes += len as u64;
            }
            Err(fault) => self.outcome.fault = Some(fault),
        }
    }
}

impl Batch<'_> {
    /// Shows the driver what was delivered: once a batch, since each time the driver's processor
    /// and this one have to pass the used ring to and fro.
    pub(super) fn publish(&mut self) {
        let count = std::mem::take(&mut self.unpublished);
        if count == 0 {
            return;
        }
        if let Err(fault) = self.ring.publish(&self.view, count) {
            self.outcome.fault.get_or_insert(fault);
        }
    }

    /// Takes back the room that was lent.
    fn withdraw(&mut self) -> Option<Lent> {
        let lent = self.lent.take();
        if lent.is_some_and(|l| l.overflows) {
            self.parts.pop();
        }
        lent
    }
}
