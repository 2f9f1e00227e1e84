// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which faults are to happen, and when.

use std::time::Duration;

use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_contract::queue::{kind, Kind as Direction};
use vnet_contract::regs;

use crate::Kind;

/// Places that count events of their own: each queue, and the card as a whole behind them.
pub(crate) const SITES: usize = 2 * MAX_QUEUE_PAIRS as usize + 1;
/// The one of the card.
pub(crate) const CARD: usize = SITES - 1;

/// Faults, as a file lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
}

/// One line of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where it stands in the file, from 1 on.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
    /// Of reads of registers, only those of this one count.
    pub(crate) register: Option<Register>,
    pub(crate) trigger: Trigger,
    /// Most faults of a site.
    pub(crate) count: Option<u64>,
    /// Time after the plan comes into force from which events count, and for how long.
    pub(crate) from: Duration,
    pub(crate) lasts: Option<Duration>,
    /// For kinds that have one.
    pub(crate) delay: Duration,
}

/// Which queues a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Rx,
    Tx,
    One(u16),
}

/// All registers of one name: where the first is, how far it is to the next one, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    first: u32,
    stride: u32,
    count: u32,
    /// In bytes.
    width: u32,
}

/// Which events of a site become faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Always,
    /// The n-th, 2n-th and so on.
    Every(u64),
    /// The n-th.
    At(u64),
    /// That share of all, by chance.
    Rate {
        part: u64,
        of: u64,
    },
}

impl Scope {
    pub(crate) fn covers(self, site: usize) -> bool {
        let queue = site as u16;
        let direction = (site < CARD).then(|| kind(queue));
        match self {
            Self::All => true,
            Self::Rx => direction == Some(Direction::Rx),
            Self::Tx => direction == Some(Direction::Tx),
            Self::One(one) => direction.is_some() && one == queue,
        }
    }
}

impl Register {
    /// Those that have this name in the data sheet.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let find = |block: &'static [regs::Register]| block.iter().find(|r| r.name == name);
        let global = find(regs::GLOBAL).map(|register| Self {
            first: register.offset,
            stride: register.stride,
            count: register.count,
            width: register.width / 8,
        });
        global
            .or_else(|| Some(Self::of_queues(find(regs::QUEUE)?, regs::queue_reg)))
            .or_else(|| Some(Self::of_queues(find(regs::STATS)?, regs::stats_reg)))
    }

    fn of_queues(register: &regs::Register, at: fn(u16, u32) -> u32) -> Self {
        let first = at(0, register.offset);
        Self {
            first,
            stride: at(1, register.offset) - first,
            count: 2 * u32::from(MAX_QUEUE_PAIRS),
            width: register.width / 8,
        }
    }

    /// True if one of them is at this offset in the BAR.
    pub(crate) fn is_at(self, offset: u64) -> bool {
        let Some(from) = offset.checked_sub(self.first.into()) else {
            return false;
        };
        let (stride, width) = (u64::from(self.stride), u64::from(self.width));
        from / stride < self.count.into() && from % stride < width
    }
}

impl Fault {
    /// True if neither this event nor a later one can go wrong, when so many did.
    pub(crate) fn is_over(&self, event: u64, hits: u64) -> bool {
        let at = matches!(self.trigger, Trigger::At(n) if event > n);
        at || self.count.is_some_and(|most| hits >= most)
    }
}

impl Trigger {
    /// Decides about an event, the first of which has the number 1.
    pub(crate) fn fires(self, event: u64, random: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Every(n) => event.is_multiple_of(n),
            Self::At(n) => event == n,
            Self::Rate { part, of } => random % of < part,
        }
    }
}

/// Numbers without a pattern: the finisher of SplitMix64 over what makes an event unique.
pub(crate) fn random(seed: u64, fault: usize, site: usize, event: u64) -> u64 {
    [fault as u64, site as u64, event]
        .into_iter()
        .fold(mix(seed), |state, part| mix(state ^ part))
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_contract::queue::{rx_index, tx_index};

    #[test]
    fn a_scope_covers_its_queues() {
        let (rx1, tx1) = (rx_index(1).into(), tx_index(1).into());
        for (scope, covered) in [
            (Scope::All, [true, true, true]),
            (Scope::Rx, [true, false, false]),
            (Scope::Tx, [false, true, false]),
            (Scope::One(rx_index(1)), [true, false, false]),
            (Scope::One(tx_index(0)), [false, false, false]),
        ] {
            assert_eq!(
                [rx1, tx1, CARD].map(|s| scope.covers(s)),
                covered,
                "{scope:?}"
            );
        }
        assert!(
            !Scope::One(CARD as u16).covers(CARD),
            "no queue has that number"
        );
    }

    #[test]
    fn registers_are_found_by_their_names() {
        let at = |name: &str, offset: u32| Register::named(name).unwrap().is_at(offset.into());
        let last = 2 * MAX_QUEUE_PAIRS - 1;
        for queue in [0, 1, last] {
            assert!(at("Q_STATUS", regs::queue_reg(queue, regs::Q_STATUS)));
            assert!(!at("Q_STATUS", regs::queue_reg(queue, regs::Q_VECTOR)));
            let counter = regs::stats_reg(queue, regs::S_BYTES);
            let halves = [counter - 4, counter, counter + 4, counter + 8];
            let found = halves.map(|offset| at("S_BYTES", offset));
            assert_eq!(found, [false, true, true, false]);
        }
        assert!(!at("Q_STATUS", regs::queue_reg(last + 1, regs::Q_STATUS)));
        assert!(at("ID", regs::ID) && !at("ID", regs::ID + 4));
        assert!(at("VLAN_FILTER", regs::VLAN_FILTER + 127 * 4));
        assert!(!at("VLAN_FILTER", regs::VLAN_FILTER + 128 * 4));
        assert!(!at("STATUS", 0));
        assert_eq!(Register::named("Q_NOTHING"), None);
    }

    #[test]
    fn triggers_choose_by_number() {
        let fired = |trigger: Trigger| (1..=6).filter(|&n| trigger.fires(n, 0)).collect::<Vec<_>>();
        assert_eq!(fired(Trigger::Always), [1, 2, 3, 4, 5, 6]);
        assert_eq!(fired(Trigger::Every(3)), [3, 6]);
        assert_eq!(fired(Trigger::At(2)), [2]);
    }

    #[test]
    fn a_rate_is_met_and_differs_by_seed_fault_and_site() {
        let hits = |seed, fault, site| {
            let rate = Trigger::Rate { part: 1, of: 10 };
            (1..=10_000)
                .filter(|&n| rate.fires(n, random(seed, fault, site, n)))
                .collect::<Vec<u64>>()
        };
        let one = hits(1, 0, 0);
        assert!((900..1100).contains(&one.len()), "{}", one.len());
        assert_eq!(one, hits(1, 0, 0));
        for other in [hits(2, 0, 0), hits(1, 1, 0), hits(1, 0, 1)] {
            assert!((900..1100).contains(&other.len()), "{}", other.len());
            assert_ne!(one, other);
        }
    }
}
