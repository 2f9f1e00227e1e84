// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive queue: frames of a backend, into the guest's buffers.

use vm_memory::VolatileSlice;
use vnet_backend::{Meta, Queue, Room, RxRing, MAX_FRAME};
use vnet_contract::features::MRG_RXBUF;
use vnet_contract::hdr;
use vnet_contract::queue::{Error, MAX_RX_CHAIN};
use vnet_dma::DmaMap;

use crate::chain::{walk, Chain, Direction};
use crate::header;
use crate::ring::Ring;
use crate::shelf::Parts;
use crate::{Budget, Fault, Outcome, RingConfig, RxFilter, Waits};

/// A running receive queue.
#[derive(Debug)]
pub struct Rx {
    ring: Ring,
    features: u64,
    chains: Vec<Chain>,
    parts: Parts,
    header: Parts,
    /// Takes the end of a frame that does not fit the guest's buffers, and so will be dropped.
    overflow: Box<[u8]>,
}

impl Rx {
    /// Checks the configuration and starts the queue.
    pub fn start(config: &RingConfig, mem: &DmaMap) -> Result<Self, Fault> {
        Ok(Self {
            ring: Ring::new(config, mem)?,
            features: config.features,
            chains: Vec::new(),
            parts: Parts::default(),
            header: Parts::default(),
            overflow: vec![0; MAX_FRAME].into_boxed_slice(),
        })
    }

    /// Next avail entry to fetch and next used entry to write.
    pub fn indices(&self) -> (u16, u16) {
        self.ring.indices()
    }

    /// Lets the backend deliver one batch.
    pub fn run(
        &mut self,
        mem: &DmaMap,
        backend: &mut dyn Queue,
        filter: &RxFilter,
        budget: Budget,
    ) -> Outcome {
        self.chains.clear();
        let mut batch = Batch {
            ring: &mut self.ring,
            mem,
            mergeable: self.features & MRG_RXBUF != 0,
            features: self.features,
            filter,
            budget,
            chains: &mut self.chains,
            first: 0,
            posted: 0,
            parts: self.parts.take(),
            start: 0,
            header: self.header.take(),
            overflow: VolatileSlice::from(&mut self.overflow[..]),
            lent: None,
            outcome: Outcome::new(Waits::Backend),
        };
        backend.receive(&mut batch);
        let unused = batch.waiting() as u16;
        batch.ring.give_back(unused);
        let Batch {
            parts,
            header,
            outcome,
            ..
        } = batch;
        self.parts.put(parts);
        self.header.put(header);
        outcome
    }

    /// True if the driver wants an interrupt for what was delivered since the last call.
    pub fn needs_interrupt(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ring.needs_interrupt(mem)
    }

    /// Asks for a doorbell; true if there are new buffers already.
    pub fn rearm(&mut self, mem: &DmaMap) -> Result<bool, Fault> {
        self.ring.rearm(mem)
    }
}

/// The room that was lent last.
#[derive(Clone, Copy, Debug)]
struct Lent {
    /// Bytes that the backend may have written.
    len: usize,
    /// The last part is the overflow.
    overflows: bool,
}

/// One batch: chains that were taken from the ring and wait for a frame.
struct Batch<'b> {
    ring: &'b mut Ring,
    mem: &'b DmaMap,
    mergeable: bool,
    features: u64,
    filter: &'b RxFilter,
    budget: Budget,
    /// Chains of this batch; those from `first` on wait, with `posted` bytes in all.
    chains: &'b mut Vec<Chain>,
    first: usize,
    posted: usize,
    /// Parts of the chains; those from `start` on belong to chains that wait, without the place
    /// of the header, which is at the start of the first one.
    parts: Vec<VolatileSlice<'b>>,
    start: usize,
    header: Vec<VolatileSlice<'b>>,
    overflow: VolatileSlice<'b>,
    lent: Option<Lent>,
    outcome: Outcome,
}

impl Batch<'_> {
    /// Number of chains that wait.
    fn waiting(&self) -> usize {
        self.chains.len() - self.first
    }

    /// Bytes of a frame that fit the chains that wait.
    fn capacity(&self) -> usize {
        self.posted.saturating_sub(hdr::SIZE)
    }

    /// True while the batch has done nothing but take chains for its first frame.
    fn is_fresh(&self) -> bool {
        self.outcome.frames + self.outcome.drops == 0
    }

    /// Takes chains until `len` bytes fit, or it is clear that they never will. Else says what has
    /// to come first.
    fn gather(&mut self, len: usize) -> Result<Option<Waits>, Fault> {
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
            let Some(head) = self.ring.take(self.mem)? else {
                // A driver that has posted all that it can will not post more.
                let all = self.waiting() == usize::from(self.ring.size());
                return Ok((!all).then_some(Waits::Driver));
            };
            let parts = &mut self.parts;
            let chain = walk(
                self.ring,
                self.mem,
                head,
                Direction::Write,
                MAX_RX_CHAIN,
                parts,
            )
            .and_then(|chain| match chain.bytes {
                0..=hdr::SIZE => Err(Fault::new(Error::BufferLength, head)),
                _ => Ok(chain),
            });
            match chain {
                Ok(chain) => {
                    self.budget.spend(0, 0, chain.descriptors.into());
                    self.posted += chain.bytes;
                    self.chains.push(chain);
                    if self.waiting() == 1 {
                        self.reserve_header();
                    }
                }
                Err(fault) => {
                    self.ring.give_back(1);
                    return Err(fault);
                }
            }
        }
        Ok(None)
    }

    /// Sets the place of the header apart from the parts of the first chain that waits.
    fn reserve_header(&mut self) {
        self.header.clear();
        let mut left = hdr::SIZE;
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

    /// True if the driver wants this frame of `len` bytes, which is in the parts.
    fn wanted(&self, len: usize, meta: &Meta) -> bool {
        let mut start = [0; header::ETH_HLEN];
        if len < start.len() {
            return false;
        }
        let mut done = 0;
        for part in &self.parts[self.start..] {
            done += part.copy_to(&mut start[done..]);
            if done == start.len() {
                break;
            }
        }
        self.filter.accepts(&start, len, meta.gso.is_some())
    }

    /// Hands a frame of `len` bytes, which fits, to the driver.
    fn deliver(&mut self, len: usize, mut hdr: hdr::NetHdr) -> Result<(), Fault> {
        let mut left = hdr::SIZE + len;
        let mut count = 0;
        for chain in &self.chains[self.first..] {
            let used = chain.bytes.min(left);
            // A chain is at most `MAX_RX_CHAIN` long.
            self.ring
                .put_used(self.mem, count, chain.head, used as u32)?;
            count += 1;
            left -= used;
            self.posted -= chain.bytes;
            if left == 0 {
                break;
            }
        }
        hdr.num_buffers = count;
        let bytes = hdr.to_bytes();
        let mut done = 0;
        for place in &self.header {
            place.copy_from(&bytes[done..]);
            done += place.len().min(bytes.len() - done);
        }
        self.ring.publish(self.mem, count)?;
        self.first += usize::from(count);
        self.start = self.chains[self.first - 1].parts_end;
        if self.waiting() > 0 {
            self.reserve_header();
        }
        Ok(())
    }
}

impl RxRing for Batch<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        self.withdraw();
        if self.outcome.fault.is_some() || len > MAX_FRAME {
            return None;
        }
        if self.budget.is_spent() && !self.is_fresh() {
            self.outcome.waits = Waits::Nothing;
            return None;
        }
        match self.gather(len) {
            Ok(None) => {}
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
        self.parts.extend(overflow);
        self.lent = Some(Lent {
            len: capacity.max(len),
            overflows: overflow.is_some(),
        });
        Some(Room {
            parts: &self.parts[self.start..],
        })
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        let Some(lent) = self.withdraw() else {
            // Nothing was lent, so nothing was written.
            return;
        };
        self.budget.spend(1, len, 0);
        let hdr = if len <= lent.len && len <= self.capacity() && self.wanted(len, &meta) {
            header::build(&meta, self.features & !self.filter.withheld)
        } else {
            None
        };
        // The buffers of a dropped frame take the next one.
        let Some(hdr) = hdr else {
            self.outcome.drops += 1;
            return;
        };
        match self.deliver(len, hdr) {
            Ok(()) => {
                self.outcome.frames += 1;
                self.outcome.bytes += len as u64;
            }
            Err(fault) => self.outcome.fault = Some(fault),
        }
    }
}

impl Batch<'_> {
    /// Takes back the room that was lent.
    fn withdraw(&mut self) -> Option<Lent> {
        let lent = self.lent.take();
        if lent.is_some_and(|l| l.overflows) {
            self.parts.pop();
        }
        lent
    }
}
