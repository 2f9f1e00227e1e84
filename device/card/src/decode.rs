// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! From an offset in BAR 0 to a register.

use vnet_contract::pci::BAR_REGS_SIZE;
use vnet_contract::queue;
use vnet_contract::regs::{self, Access, Register};

/// One 32-bit slot of BAR 0 that holds a register, or half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) target: Target,
    pub(crate) access: Access,
}

/// What a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A register of the card as a whole: the offset that names it, and its index in an array.
    Global { reg: u32, index: usize },
    /// A register of a queue.
    Queue { queue: u16, reg: u32 },
    /// Half of a counter of a queue.
    Counter { queue: u16, reg: u32, high: bool },
    /// The doorbell of a queue.
    Doorbell { queue: u16 },
}

/// All slots of BAR 0. Registers of queues that the card does not have, and of features that it
/// does not offer, do not exist.
#[derive(Debug)]
pub(crate) struct Map {
    slots: Box<[Option<Slot>]>,
}

impl Map {
    pub(crate) fn new(queue_pairs: u16, offered: u64) -> Self {
        let slots = vec![None; BAR_REGS_SIZE as usize / 4].into_boxed_slice();
        let mut map = Self { slots };
        let queues = 2 * queue_pairs;

        for r in exists(regs::GLOBAL, offered) {
            for index in 0..r.count {
                let target = if r.offset == regs::DOORBELL {
                    if index >= u32::from(queues) {
                        break;
                    }
                    Target::Doorbell {
                        queue: index as u16,
                    }
                } else {
                    Target::Global {
                        reg: r.offset,
                        index: index as usize,
                    }
                };
                map.put(r.offset + index * r.stride, r.access, target);
            }
        }
        for queue in 0..queues {
            for r in exists(regs::QUEUE, offered) {
                let reg = r.offset;
                map.put(
                    regs::queue_reg(queue, reg),
                    r.access,
                    Target::Queue { queue, reg },
                );
            }
            for r in exists(regs::STATS, offered) {
                for high in [false, true] {
                    let reg = r.offset;
                    map.put(
                        regs::stats_reg(queue, reg) + if high { 4 } else { 0 },
                        r.access,
                        Target::Counter { queue, reg, high },
                    );
                }
            }
        }
        map
    }

    /// The slot at this offset, which must be a multiple of four.
    pub(crate) fn slot(&self, offset: u64) -> Option<Slot> {
        let index = usize::try_from(offset / 4).ok()?;
        *self.slots.get(index)?
    }

    fn put(&mut self, offset: u32, access: Access, target: Target) {
        self.slots[offset as usize / 4] = Some(Slot { target, access });
    }
}

fn exists(list: &'static [Register], offered: u64) -> impl Iterator<Item = &'static Register> {
    list.iter().filter(move |r| r.feature & !offered == 0)
}

/// The pair that a queue belongs to, and what the queue carries.
pub(crate) fn pair_of(queue: u16) -> (usize, queue::Kind) {
    (usize::from(queue / 2), queue::kind(queue))
}

/// Splits an access into the offsets of its 32-bit slots; `None` if width or alignment is illegal.
pub(crate) fn split(offset: u64, width: usize) -> Option<impl Iterator<Item = u64>> {
    let legal = match width {
        4 => offset.is_multiple_of(4),
        8 => offset.is_multiple_of(8),
        _ => false,
    };
    // The last aligned slot starts well below 2^64, so the sum cannot overflow.
    legal.then(|| (0..width as u64 / 4).map(move |i| offset + i * 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_contract::features::{MAC_FILTER, QUEUE_STATS};
    use vnet_contract::pci::MAX_QUEUE_PAIRS;

    #[test]
    fn every_register_of_the_contract_decodes_to_itself() {
        let map = Map::new(MAX_QUEUE_PAIRS, u64::MAX);
        for r in regs::GLOBAL {
            for i in 0..r.count {
                let slot = map.slot(u64::from(r.offset + i * r.stride)).unwrap();
                assert_eq!(slot.access, r.access);
                match slot.target {
                    Target::Global { reg, index } => {
                        assert_eq!((reg, index), (r.offset, i as usize));
                    }
                    Target::Doorbell { queue } => {
                        assert_eq!((r.offset, i), (regs::DOORBELL, u32::from(queue)));
                    }
                    other => panic!("{}: {other:?}", r.name),
                }
            }
        }
        let last = 2 * MAX_QUEUE_PAIRS - 1;
        assert_eq!(
            map.slot(regs::queue_reg(last, regs::Q_RATE).into())
                .unwrap()
                .target,
            Target::Queue {
                queue: last,
                reg: regs::Q_RATE
            }
        );
        assert_eq!(
            map.slot(u64::from(regs::stats_reg(last, regs::S_DROPS)) + 4)
                .unwrap()
                .target,
            Target::Counter {
                queue: last,
                reg: regs::S_DROPS,
                high: true
            }
        );
    }

    #[test]
    fn what_the_card_does_not_have_does_not_exist() {
        let map = Map::new(1, QUEUE_STATS);
        for offset in [
            regs::RSS_CTRL,
            regs::MAC_FILTER_LO,
            regs::CLOCK_LO,
            regs::queue_reg(0, regs::Q_RATE),
            regs::queue_reg(2, regs::Q_SIZE),
            regs::stats_reg(2, regs::S_FRAMES),
            regs::doorbell_reg(2),
            0x3ffc,
            0x4000,
        ] {
            assert_eq!(map.slot(offset.into()), None, "{offset:#x}");
        }
        assert!(map.slot(u64::MAX).is_none());
        assert!(map
            .slot(regs::stats_reg(1, regs::S_FRAMES).into())
            .is_some());
        let map = Map::new(1, MAC_FILTER);
        assert!(map.slot(regs::MAC_FILTER_HI.into()).is_some());
        assert!(map
            .slot(regs::stats_reg(1, regs::S_FRAMES).into())
            .is_none());
    }

    #[test]
    fn widths_and_alignment() {
        let slots = |offset, width| split(offset, width).map(|s| s.collect::<Vec<_>>());
        assert_eq!(slots(8, 4), Some(vec![8]));
        assert_eq!(slots(8, 8), Some(vec![8, 12]));
        for (offset, width) in [(9, 4), (4, 8), (0, 1), (0, 2), (0, 0), (0, 16), (2, 4)] {
            assert_eq!(slots(offset, width), None, "{offset} {width}");
        }
        assert_eq!(
            slots(u64::MAX - 7, 8),
            Some(vec![u64::MAX - 7, u64::MAX - 3])
        );
    }
}
