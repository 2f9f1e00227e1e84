// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The chains that the card owns.

use std::time::Duration;

use crate::chain::Chain;

/// Descriptors that are remembered, those of indirect tables included: enough for a full ring of
/// the largest size whose chains are of usual length. A guest can name far more, all in one table;
/// chains beyond are not judged.
const MOST: usize = 1 << 16;

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
    /// Descriptors of all chains.
    descriptors: usize,
}

impl Ledger {
    pub(crate) fn new(size: u16) -> Self {
        let size = usize::from(size);
        Self {
            chains: (0..size).map(|_| None).collect(),
            takers: vec![None; size],
            descriptors: 0,
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

    /// True if there is room to remember a chain.
    pub(crate) fn has_room(&self, chain: &Chain) -> bool {
        self.descriptors + chain.descriptors() <= MOST
    }

    /// Adds a chain none of whose descriptors is taken.
    pub(crate) fn add(&mut self, head: u16, owned: Owned) {
        for &index in &owned.chain.indices {
            self.takers[usize::from(index)] = Some(head);
        }
        self.descriptors += owned.chain.descriptors();
        self.chains[usize::from(head)] = Some(owned);
    }

    /// Removes a chain: it is about to be returned.
    pub(crate) fn remove(&mut self, head: u16) -> Option<Owned> {
        let owned = self.chains.get_mut(usize::from(head))?.take()?;
        for &index in &owned.chain.indices {
            self.takers[usize::from(index)] = None;
        }
        self.descriptors -= owned.chain.descriptors();
        Some(owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_contract::features::INDIRECT_DESC;
    use vnet_queue::mock::{chain, Driver, Memory};

    #[test]
    fn a_guest_cannot_have_more_remembered_than_there_is_room_for() {
        const SIZE: u16 = 64;
        let mem = Memory::new(&[(0, 0x1_0000)]);
        let driver = Driver::new(&mem, 0, SIZE, INDIRECT_DESC);
        let buffers = [(0x8000, 1); SIZE as usize];
        driver.indirect(3, 0x4000, &chain(0, &buffers, false));
        let table = driver.config.desc;
        let read = || Chain::read(&mem.device(), table, SIZE, 3).unwrap();
        assert_eq!((read().descriptors(), read().bytes()), (65, 64));

        let mut ledger = Ledger::new(4096);
        let mut heads = 0;
        while ledger.has_room(&read()) {
            let owned = Owned {
                chain: read(),
                digest: None,
                reachable: true,
                lost: None,
                bad_header: false,
            };
            ledger.add(heads, owned);
            heads += 1;
        }
        assert_eq!(usize::from(heads), MOST / 65);
        assert!(ledger.remove(0).is_some());
        assert!(ledger.has_room(&read()));
    }
}
