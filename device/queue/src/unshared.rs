// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue in memory that the client does not share.
//!
//! The engine then works on mirrors ([`vnet_dma::Relay`]) and does not know it. Before a batch, what
//! it may read is pulled, by the same rules that it walks a ring by, but without judging: what is
//! wrong, the engine will find wrong. A batch takes no chain beyond those that were pulled (the
//! *horizon*), and does not show what it has used. After it, what it has written is pushed: buffers
//! and used entries first, and when they have arrived the used index and the event index.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};
use vnet_contract::queue::{Error, Kind, MAX_RX_CHAIN};
use vnet_contract::ring::{self, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE};
use vnet_dma::{DmaMap, Failure, Stretch};

use crate::view::{load, store};
use crate::{Budget, Fault};

/// Where a queue is, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Tells this start of the queue from all others.
    pub id: u64,
    /// What the device does with buffers.
    pub kind: Kind,
    /// Number of descriptors.
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    /// Next avail entry to fetch.
    pub next_avail: u16,
    pub(crate) next_used: u16,
    /// Chains may lie in tables.
    pub(crate) indirect: bool,
    /// Chains begin with a header buffer.
    pub(crate) split: bool,
    /// Most bytes that a chain may have.
    pub(crate) longest: usize,
}

/// What keeps a queue from being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The driver put something where the client does not let the card reach it, or the client
    /// does not answer.
    Fault(Fault),
    /// There is nobody to ask, or the queue was reset.
    Gone(Failure),
}

/// What a queue has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Chains that are used, in order: the first descriptor, and the bytes written.
    pub(crate) chains: Vec<(u16, u32)>,
    /// The used index to show, if chains were used.
    pub shown: Option<u16>,
    /// The avail index beyond which doorbells are asked for, if they were.
    pub armed: Option<u16>,
}

/// In a ring: how far a batch may go, and what it has written.
#[derive(Debug, Default)]
pub(crate) struct Confined {
    pub(crate) horizon: u16,
    /// The ring is worked step by step: nothing is written.
    held: bool,
    /// Used entries that are written, or would be, but not published.
    pending: Vec<(u16, u32)>,
    pub(crate) written: Written,
}

impl Confined {
    /// For a ring that is worked step by step.
    pub(crate) fn held(horizon: u16) -> Self {
        Self {
            horizon,
            held: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// The used entries that were not published.
    pub(crate) fn put_down(self) -> Vec<(u16, u32)> {
        self.pending
    }

    /// A used entry was written, `ahead` places after the last one that was published.
    pub(crate) fn put(&mut self, ahead: u16, head: u16, len: u32) {
        self.pending.truncate(ahead.into());
        self.pending.push((head, len));
    }

    /// So many of them are published, and would show as this index.
    pub(crate) fn publish(&mut self, count: u16, shown: u16) {
        let count = self.pending.len().min(count.into());
        self.written.chains.extend(self.pending.drain(..count));
        self.written.shown = Some(shown);
    }

    /// The index that is nearer, seen from `next`.
    pub(crate) fn limit(&self, next: u16, idx: u16) -> u16 {
        match self.horizon.wrapping_sub(next) < idx.wrapping_sub(next) {
            true => self.horizon,
            false => idx,
        }
    }
}

/// A chain to be pulled.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Its avail index and its head.
    at: u16,
    head: u16,
}

type Pull<'p> = &'p mut dyn FnMut(Vec<Stretch>) -> Result<(), Failure>;

impl Outline {
    /// The avail ring, which is to be pulled first.
    pub fn avail_ring(&self) -> Stretch {
        Stretch {
            address: self.avail,
            len: ring::avail_bytes(self.size),
        }
    }

    /// Pulls chains that the driver made available, a budget at most, and returns the horizon: the
    /// avail index up to which a batch may go. The avail ring was pulled, and so was everything up
    /// to the avail index `known`.
    pub fn fetch(&self, known: u16, mem: &DmaMap, pull: Pull<'_>) -> Result<u16, Lack> {
        let idx = self.avail_idx(mem)?;
        let there = idx.wrapping_sub(self.next_avail);
        if there > self.size {
            // The engine has a word for it.
            return Ok(idx);
        }
        let known = match known.wrapping_sub(self.next_avail) <= there {
            true => known,
            false => self.next_avail,
        };
        let budget = Budget::default();
        let most = match self.kind {
            Kind::Tx => budget.frames,
            Kind::Rx => budget.descriptors,
        };
        let have = known.wrapping_sub(self.next_avail);
        let more = (there - have).min((most as u16).saturating_sub(have));
        if more == 0 {
            return Ok(known);
        }
        let table = Stretch {
            address: self.desc,
            len: ring::desc_bytes(self.size),
        };
        pull(vec![table]).map_err(|e| lack(e, Fault::at(Error::RingFault, self.desc)))?;
        let mut chains = Vec::with_capacity(more.into());
        let mut descriptors = 0;
        for at in (0..more).map(|n| known.wrapping_add(n)) {
            if descriptors >= budget.descriptors {
                break;
            }
            let head = self.avail_entry(mem, at)?;
            chains.push(Wanted { at, head });
            descriptors += self
                .head(mem, head)
                .and_then(|d| self.table(d))
                .map_or(1, table_entries);
        }
        self.pull(&mut chains, pull, |chain, found| {
            if let Some(table) = self.head(mem, chain.head).and_then(|d| self.table(d)) {
                found(table);
            }
        })?;
        if self.kind == Kind::Tx {
            let (mut bytes, mut parts) = (0, 0);
            let within = chains.iter().take_while(|chain| {
                let within = bytes < budget.bytes && parts < budget.descriptors;
                self.buffers(mem, chain.head, |part| {
                    bytes += part.len;
                    parts += 1;
                });
                within
            });
            let within = within.count();
            chains.truncate(within);
            self.pull(&mut chains, pull, |chain, found| {
                self.buffers(mem, chain.head, found);
            })?;
        }
        Ok(known.wrapping_add(chains.len() as u16))
    }

    /// Pulls what `parts` finds of each chain. Chains from the first on of which the client
    /// refuses a part are left out; it is a fault if none is left.
    fn pull(
        &self,
        chains: &mut Vec<Wanted>,
        pull: Pull<'_>,
        parts: impl Fn(&Wanted, &mut dyn FnMut(Stretch)),
    ) -> Result<(), Lack> {
        while let Some(first) = chains.first() {
            let fault = Fault::new(Error::BufferFault, first.head);
            let mut list = Vec::new();
            // Where in the list the parts of each chain begin.
            let starts: Vec<usize> = chains
                .iter()
                .map(|chain| {
                    let start = list.len();
                    parts(chain, &mut |part| list.push(part));
                    start
                })
                .collect();
            let Err(failure) = pull(list.clone()) else {
                return Ok(());
            };
            let Failure::Refused(address) = failure else {
                return Err(lack(failure, fault));
            };
            let holds = |part: &Stretch| {
                let beyond = address.wrapping_sub(part.address);
                usize::try_from(beyond).is_ok_and(|beyond| beyond < part.len)
            };
            let bad = list.iter().position(holds).unwrap_or(0);
            let bad = starts.partition_point(|&start| start <= bad);
            match bad.saturating_sub(1) {
                0 if first.at == self.next_avail => return Err(Lack::Fault(fault)),
                good => chains.truncate(good),
            }
        }
        Ok(())
    }

    /// What has to be pushed before the used index: buffers, and the used entries.
    pub fn payload(&self, written: &Written, mem: &DmaMap) -> Vec<Stretch> {
        let mut list = Vec::new();
        if self.kind == Kind::Rx {
            for &(head, len) in &written.chains {
                let mut left = len as usize;
                let mut first = self.split;
                self.walk(mem, head, &mut |desc| {
                    let mut len = (desc.len as usize).min(MAX_RX_CHAIN);
                    if !std::mem::take(&mut first) {
                        len = len.min(left);
                        left -= len;
                    }
                    list.push(Stretch {
                        address: desc.addr,
                        len,
                    });
                    left > 0
                });
            }
        }
        let count = written.chains.len();
        let size = usize::from(self.size);
        let start = usize::from(self.next_used) & (size - 1);
        let before = count.min(size - start);
        for (start, count) in [(start, before), (0, count - before)] {
            let offset = ring::RING_ENTRIES + start * ring::USED_ENTRY_SIZE;
            list.push(Stretch {
                address: self.used.wrapping_add(offset as u64),
                len: count * ring::USED_ENTRY_SIZE,
            });
        }
        list.retain(|part| part.len > 0);
        list
    }

    /// Writes the used index, once the payload has arrived: to the mirror, from where it is to be
    /// pushed, or to the ring itself if that is shared.
    pub fn show(&self, mem: &DmaMap, index: u16) -> Result<(), Fault> {
        let address = self.used_index().address;
        store(mem, index.to_le(), address, Ordering::Release)
    }

    /// The used index, which is pushed when the payload has arrived.
    pub fn used_index(&self) -> Stretch {
        Stretch {
            address: self.used.wrapping_add(ring::RING_IDX as u64),
            len: 2,
        }
    }

    /// The avail index beyond which doorbells are asked for, in the used ring.
    pub fn event_index(&self) -> Stretch {
        let offset = ring::avail_event_offset(self.size) as u64;
        Stretch {
            address: self.used.wrapping_add(offset),
            len: 2,
        }
    }

    fn avail_idx(&self, mem: &DmaMap) -> Result<u16, Lack> {
        let address = self.avail.wrapping_add(ring::RING_IDX as u64);
        let idx = load::<u16>(mem, address, Ordering::Acquire).map_err(Lack::Fault)?;
        Ok(u16::from_le(idx))
    }

    fn avail_entry(&self, mem: &DmaMap, at: u16) -> Result<u16, Lack> {
        let entry = usize::from(at & (self.size - 1)) * ring::AVAIL_ENTRY_SIZE;
        let address = self.avail.wrapping_add((ring::RING_ENTRIES + entry) as u64);
        let head = load::<u16>(mem, address, Ordering::Relaxed).map_err(Lack::Fault)?;
        Ok(u16::from_le(head))
    }

    /// A descriptor of the ring, if there is one at this index.
    fn head(&self, mem: &DmaMap, index: u16) -> Option<Desc> {
        (index < self.size).then(|| self.desc(mem, self.desc, index))?
    }

    /// A descriptor of the table at `base`.
    fn desc(&self, mem: &DmaMap, base: u64, index: u16) -> Option<Desc> {
        let mut bytes = [0; DESC_SIZE];
        let address = base.wrapping_add(u64::from(index) * DESC_SIZE as u64);
        mem.read_slice(&mut bytes, GuestAddress(address)).ok()?;
        let (words, _) = bytes.as_chunks();
        Some(Desc::from_words([
            u64::from_le_bytes(words[0]),
            u64::from_le_bytes(words[1]),
        ]))
    }

    /// The table that a descriptor points to, if it is one that the engine would read.
    fn table(&self, desc: Desc) -> Option<Stretch> {
        let len = desc.len as usize;
        let good = self.indirect
            && desc.flags == DESC_F_INDIRECT
            && len > 0
            && len.is_multiple_of(DESC_SIZE)
            && len <= ring::desc_bytes(self.size);
        good.then_some(Stretch {
            address: desc.addr,
            len,
        })
    }

    /// Calls `visit` with the descriptors of a chain, as long as it wants more and there are some.
    fn walk(&self, mem: &DmaMap, head: u16, visit: &mut dyn FnMut(Desc) -> bool) {
        let Some(mut desc) = self.head(mem, head) else {
            return;
        };
        let (mut base, mut entries) = (self.desc, self.size);
        if let Some(table) = self.table(desc) {
            // No longer than a ring.
            (base, entries) = (table.address, table_entries(table) as u16);
            let Some(first) = self.desc(mem, base, 0) else {
                return;
            };
            desc = first;
        }
        for _ in 0..entries {
            if !visit(desc) || desc.flags & DESC_F_NEXT == 0 || desc.next >= entries {
                return;
            }
            match self.desc(mem, base, desc.next) {
                Some(next) => desc = next,
                None => return,
            }
        }
    }

    /// The buffers of a chain that the engine would read.
    fn buffers(&self, mem: &DmaMap, head: u16, mut found: impl FnMut(Stretch)) {
        let mut left = self.longest;
        self.walk(mem, head, &mut |desc| {
            let len = desc.len as usize;
            if desc.flags & DESC_F_WRITE != 0 || len > left {
                return false;
            }
            left -= len;
            found(Stretch {
                address: desc.addr,
                len,
            });
            true
        });
    }
}

fn table_entries(table: Stretch) -> usize {
    table.len / DESC_SIZE
}

fn lack(failure: Failure, fault: Fault) -> Lack {
    match failure {
        Failure::Refused(_) | Failure::Silent => Lack::Fault(fault),
        Failure::Cancelled | Failure::Closed => Lack::Gone(failure),
    }
}
