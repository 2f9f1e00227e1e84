// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The chains that the card owns.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chain::Chain;

/// A chain that the card owns.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) chain: Chain,
    /// A digest of its first bytes, if they are known to be the driver's.
    pub(crate) digest: Option<u64>,
    /// The card could reach its buffers when it got them.
    pub(crate) reachable: bool,
    /// Since when it cannot reach them any more.
    pub(crate) lost: Option<Duration>,
    /// Its per-packet header was found wrong.
    pub(crate) bad_header: bool,
}

/// All chains of a ring that the card owns, by their first descriptor.
#[derive(Debug)]
pub(crate) struct Ledger {
    chains: Vec<Option<Owned>>,
    /// For each descriptor of the ring, the chain that takes it.
    takers: Vec<Option<u16>>,
    /// Buffers, by address: last byte and chain. Not kept for transmit queues, whose buffers may
    /// well be the same.
    buffers: Option<BTreeMap<u64, (u64, u16)>>,
}

impl Ledger {
    pub(crate) fn new(size: u16, exclusive: bool) -> Self {
        let size = usize::from(size);
        Self {
            chains: (0..size).map(|_| None).collect(),
            takers: vec![None; size],
            buffers: exclusive.then(BTreeMap::new),
        }
    }

    pub(crate) fn get(&mut self, head: u16) -> Option<&mut Owned> {
        self.chains.get_mut(usize::from(head))?.as_mut()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Owned)> {
        let chains = (0u16..).zip(&mut self.chains);
        chains.filter_map(|(head, owned)| Some((head, owned.as_mut()?)))
    }

    /// The descriptor of this chain that another one takes, and that one.
    pub(crate) fn taken(&self, chain: &Chain) -> Option<(u16, u16)> {
        let taker = |&index: &u16| Some((index, self.takers[usize::from(index)]?));
        chain.indices.iter().find_map(taker)
    }

    /// Adds a chain none of whose descriptors is taken. Returns an address that it shares with
    /// another one, if buffers are to be exclusive.
    pub(crate) fn add(&mut self, head: u16, owned: Owned) -> Option<(u64, u16)> {
        for &index in &owned.chain.indices {
            self.takers[usize::from(index)] = Some(head);
        }
        let mut shared = None;
        if let Some(buffers) = &mut self.buffers {
            for (first, len) in owned.chain.buffers().filter(|b| b.1 != 0) {
                let last = first.saturating_add(len as u64 - 1);
                // Those that are there do not overlap, so that only the last that begins before
                // the end of this one can reach into it.
                match buffers.range(..=last).next_back() {
                    Some((&at, &(end, other))) if end >= first => {
                        shared = Some((at.max(first), other));
                    }
                    _ => {
                        buffers.insert(first, (last, head));
                    }
                }
            }
        }
        self.chains[usize::from(head)] = Some(owned);
        shared
    }

    /// Removes a chain: it is about to be returned.
    pub(crate) fn remove(&mut self, head: u16) -> Option<Owned> {
        let owned = self.chains.get_mut(usize::from(head))?.take()?;
        for &index in &owned.chain.indices {
            self.takers[usize::from(index)] = None;
        }
        if let Some(buffers) = &mut self.buffers {
            for (first, _) in owned.chain.buffers() {
                if buffers.get(&first).is_some_and(|b| b.1 == head) {
                    buffers.remove(&first);
                }
            }
        }
        Some(owned)
    }
}
