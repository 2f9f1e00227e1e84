// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A receive queue, a step at a time.

use vnet_backend::{Frame, Meta, Room, RxRing};
use vnet_contract::queue::{Error, MAX_RX_CHAIN};
use vnet_dma::DmaMap;

use super::{Batch, Rx};
use crate::chain::{find, walk_noting, Direction};
use crate::step::{Came, Fate, Glimpse, Held, Links, Look, Moved, Source};
use crate::{Budget, Fault, Handed, Outcome, RxFilter, Wish, FRAME_START};

/// One frame, in the chains that are in hand.
const ONE: Budget = Budget {
    frames: 1,
    bytes: usize::MAX,
    descriptors: usize::MAX,
};

impl Rx {
    /// Tells this start of the queue from all others.
    pub fn id(&self) -> u64 {
        self.ring.id()
    }

    /// True if the driver has made chains available beyond those that are in hand.
    pub fn has_chains(&self, mem: &DmaMap, in_hand: usize) -> bool {
        self.ring.has_chains(mem, in_hand as u16)
    }

    /// Fetches the index of the chain behind those that are in hand from the avail ring.
    pub fn look(&mut self, mem: &DmaMap, in_hand: usize) -> Result<Look, Fault> {
        // No more than the ring has.
        self.ring.look(mem, in_hand as u16)
    }

    /// Reads the chain from this descriptor on, which is the one behind those that are in hand.
    pub fn read_chain(&mut self, mem: &DmaMap, head: u16, in_hand: usize) -> Result<Held, Fault> {
        let mut view = self.ring.view(mem);
        let (mut parts, mut links) = (Vec::new(), Links::default());
        let note = |index, desc| links.note(index, desc);
        let (way, max) = (Direction::Write, MAX_RX_CHAIN);
        let chain = walk_noting(&mut self.ring, &mut view, head, way, max, &mut parts, note)
            .and_then(|chain| match chain.bytes > self.header_len {
                true => Ok(Held::new(&chain, links.list)),
                false => Err(Fault::new(Error::BufferLength, head)),
            });
        if chain.is_err() {
            self.ring.blame(in_hand as u16);
        }
        chain
    }

    /// Asks for a frame, which goes to the chains in hand: the next ones of the avail ring.
    pub fn take_frame(
        &mut self,
        mem: &DmaMap,
        in_hand: &[Held],
        source: Source<'_>,
        filter: &RxFilter,
    ) -> Result<Came, Fault> {
        let (start, _) = self.ring.indices();
        let (mut entries, mut seen) = (Vec::new(), Seen::default());
        let (steer, ask): (_, Ask<'_>) = match source {
            Source::Backend(queue) => (None, Box::new(move |one| queue.receive(one))),
            Source::Steered(queue, steer) => (Some(steer), Box::new(move |one| queue.receive(one))),
            Source::Handed(handed) => (None, Box::new(move |one| one.take_over(handed))),
        };
        let outcome = self.batch(mem, filter, steer, ONE, |batch| {
            batch.ring.hold(in_hand.len() as u16);
            match batch.take_up(in_hand) {
                Ok(()) => {
                    let mut one = One {
                        batch: &mut *batch,
                        seen: &mut seen,
                    };
                    ask(&mut one);
                }
                Err(fault) => batch.outcome.fault = Some(fault),
            }
            entries = batch.ring.release();
            // Nothing of it is published now, and all chains stay in hand.
            (batch.first, batch.unpublished) = (0, 0);
        });
        // Also where a chain was given back that is no chain for this queue.
        let (end, _) = self.ring.indices();
        self.ring.give_back(end.wrapping_sub(start));
        match outcome.fault {
            Some(fault) => Err(fault),
            None => Ok(Came {
                fate: seen.fate(&outcome),
                frame: seen.frame,
                entries,
                outcome,
            }),
        }
    }

    /// Shows the driver the next chains, which hold a frame.
    pub fn finish(&mut self, mem: &DmaMap, entries: &[(u16, u32)]) -> Result<Moved, Fault> {
        let view = self.ring.view(mem);
        self.ring.finish(&view, entries)
    }

    /// What the driver says about the interrupt for what was delivered.
    pub fn wish(&self, mem: &DmaMap) -> Result<Wish, Fault> {
        self.ring.wish(mem)
    }
}

type Ask<'a> = Box<dyn FnOnce(&mut One<'_, '_>) + 'a>;

impl Batch<'_> {
    /// Has chains wait that were read before.
    fn take_up(&mut self, in_hand: &[Held]) -> Result<(), Fault> {
        for held in in_hand {
            let at = self.parts.len();
            for (addr, len) in held.buffers() {
                let fault = Fault::new(Error::BufferFault, held.head);
                find(&mut self.view, addr, len, Direction::Write, &mut self.parts).ok_or(fault)?;
            }
            self.ring.skip(1);
            self.adopt(held.chain(self.parts.len()), at)?;
        }
        Ok(())
    }
}

/// A batch for a single frame.
struct One<'a, 'b> {
    batch: &'a mut Batch<'b>,
    seen: &'a mut Seen,
}

/// What was seen of the frame.
#[derive(Debug, Default)]
struct Seen {
    frame: Option<Glimpse>,
    /// Room that was asked for and not given, and what there was.
    refused: Option<(usize, usize)>,
    fits: bool,
}

impl Seen {
    fn fate(&self, outcome: &Outcome) -> Fate {
        match (outcome, self.refused) {
            (Outcome { frames: 1.., .. }, _) => Fate::Delivered,
            (Outcome { handed: 1.., .. }, _) => Fate::Elsewhere,
            (Outcome { drops: 1.., .. }, _) if self.fits => Fate::Unwanted,
            (Outcome { drops: 1.., .. }, _) => Fate::TooLong,
            (_, Some((wanted, room))) => Fate::Waits { wanted, room },
            (_, None) => Fate::None,
        }
    }
}

impl RxRing for One<'_, '_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        let capacity = self.batch.capacity();
        match self.batch.room(len) {
            Some(room) => Some(room),
            None => {
                self.seen.refused = Some((len, capacity));
                None
            }
        }
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        if self.batch.lent.is_some() {
            let frame = Frame {
                meta,
                len,
                parts: &self.batch.parts[self.batch.first_part()..],
            };
            let mut start = vec![0; len.min(FRAME_START)];
            let read = frame.read(&mut start);
            start.truncate(read);
            self.seen.frame = Some(Glimpse { len, start });
            self.seen.fits = len <= self.batch.capacity();
        }
        self.batch.commit(len, meta);
    }
}

impl One<'_, '_> {
    /// Takes a frame that another queue handed over.
    fn take_over(&mut self, source: &mut dyn Handed) {
        let Some((frame, meta, hash)) = source.front() else {
            return;
        };
        if let Some(split) = &mut self.batch.split {
            split.expect(frame);
        }
        let Some(room) = self.room(frame.len()) else {
            return;
        };
        let len = room.write(frame);
        self.batch.hash = hash;
        self.commit(len, meta);
        source.pop();
    }
}
