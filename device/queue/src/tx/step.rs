// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A transmit queue, a step at a time.

use vnet_backend::{Frame, Queue, MAX_FRAME};
use vnet_contract::queue::Error;
use vnet_dma::DmaMap;

use super::{Sent, Tx};
use crate::chain::{find, walk_noting, Direction};
use crate::step::{Glimpse, Held, Links, Look, Moved, Offered, Packet};
use crate::{Fault, Outcome, Waits, Wish, FRAME_START};

impl Tx {
    /// Tells this start of the queue from all others.
    pub fn id(&self) -> u64 {
        self.ring.id()
    }

    /// True if the driver has made chains available that were not returned.
    pub fn has_chains(&self, mem: &DmaMap) -> bool {
        self.ring.has_chains(mem, 0)
    }

    /// Fetches the index of the next chain from the avail ring.
    pub fn look(&mut self, mem: &DmaMap) -> Result<Look, Fault> {
        self.ring.look(mem, 0)
    }

    /// Reads the chain from this descriptor on, and the header in it.
    pub fn read_chain(&mut self, mem: &DmaMap, head: u16) -> Result<Packet, Fault> {
        let mut view = self.ring.view(mem);
        let (mut parts, mut links) = (Vec::new(), Links::default());
        let max = self.header + MAX_FRAME;
        let note = |index, desc| links.note(index, desc);
        let way = Direction::Read;
        let chain = walk_noting(&mut self.ring, &mut view, head, way, max, &mut parts, note)?;
        self.chains.clear();
        self.unpack(&chain, 0, &mut parts)?;
        let meta = self
            .chains
            .first()
            .map_or_else(Default::default, |s| s.meta);
        Ok(Packet {
            chain: Held::new(&chain, links.list),
            meta,
            len: chain.bytes - self.header,
        })
    }

    /// Hands the frame to the backend.
    pub fn hand_over(
        &mut self,
        mem: &DmaMap,
        packet: &Packet,
        backend: &mut dyn Queue,
    ) -> Result<Offered, Fault> {
        let mut view = self.ring.view(mem);
        let mut parts = Vec::new();
        let mut before = self.header;
        for (addr, len) in packet.chain.buffers() {
            let skipped = before.min(len);
            before -= skipped;
            if len > skipped {
                // The whole buffer was found before, so this does not leave the address space.
                let addr = addr.wrapping_add(skipped as u64);
                find(&mut view, addr, len - skipped, Direction::Read, &mut parts)
                    .ok_or(Fault::new(Error::BufferFault, packet.chain.head))?;
            }
        }
        let frame = Frame {
            meta: packet.meta,
            len: packet.len,
            parts: &parts,
        };
        let mut start = vec![0; packet.len.min(FRAME_START)];
        frame.read(&mut start);
        self.chains.clear();
        self.chains.push(Sent {
            head: packet.chain.head,
            meta: packet.meta,
            len: packet.len,
            parts_start: 0,
            parts_end: parts.len(),
        });
        if let Some(recorder) = &mut self.recorder {
            recorder.begin();
            recorder.lend();
        }
        let taken = self.offer(backend, &parts);
        if self.recorder.is_some() {
            self.record(&view, &parts, taken.frames);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.shown(false);
        }
        let mut outcome = Outcome::new(match (taken.frames, taken.spent) {
            (0, false) => Waits::Backend,
            (0, true) => Waits::Nothing,
            _ => Waits::Driver,
        });
        outcome.frames = (taken.frames - taken.refused) as u64;
        outcome.drops = taken.refused as u64;
        outcome.bytes = outcome.frames * packet.len as u64;
        Ok(Offered {
            outcome,
            frame: Glimpse {
                len: packet.len,
                start,
            },
        })
    }

    /// Returns the next chain, whose frame was handed over, to the driver.
    pub fn finish(&mut self, mem: &DmaMap, head: u16) -> Result<Moved, Fault> {
        let view = self.ring.view(mem);
        self.ring.finish(&view, &[(head, 0)])
    }

    /// What the driver says about the interrupt for what was completed.
    pub fn wish(&self, mem: &DmaMap) -> Result<Wish, Fault> {
        self.ring.wish(mem)
    }
}
