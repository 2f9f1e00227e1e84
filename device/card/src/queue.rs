// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers of one queue.

use vnet_contract::features::HDR_SPLIT;
use vnet_contract::queue::NO_VECTOR;
use vnet_contract::regs::{self, Q_INDEX_AVAIL, Q_INDEX_USED, Q_SPLIT_ENABLE};
use vnet_state::records::{Fields, Writer};
use vnet_worker::{Moderation, RingConfig};

use crate::negotiation::Half;

/// What the driver programs before it enables a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueRegs {
    pub(crate) size: u32,
    pub(crate) vector: u32,
    desc: u64,
    avail: u64,
    used: u64,
    index: u32,
    moderation: u32,
    split: u32,
    /// The driver enabled the queue and has not disabled it since. It may have failed.
    pub(crate) started: bool,
    /// It was started since the card was reset.
    pub(crate) started_once: bool,
}

impl QueueRegs {
    /// Registers after reset.
    pub(crate) fn new() -> Self {
        let reset = |reg| {
            let row = regs::QUEUE.iter().find(|r| r.offset == reg);
            match row.map(|r| r.reset) {
                Some(regs::Reset::Value(v)) => v,
                _ => 0,
            }
        };
        Self {
            size: reset(regs::Q_SIZE),
            vector: reset(regs::Q_VECTOR),
            desc: 0,
            avail: 0,
            used: 0,
            index: 0,
            moderation: 0,
            split: 0,
            started: false,
            started_once: false,
        }
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.u32(self.size)
            .u32(self.vector)
            .u64(self.desc)
            .u64(self.avail)
            .u64(self.used)
            .u32(self.index)
            .u32(self.moderation)
            .bool(self.started)
            .u32(self.split);
    }

    /// What another process saved.
    pub(crate) fn load(from: &mut Fields<'_>) -> Self {
        Self {
            size: from.u32(),
            vector: from.u32(),
            desc: from.u64(),
            avail: from.u64(),
            used: from.u64(),
            index: from.u32(),
            moderation: from.u32(),
            started: from.bool(),
            // It does not say; to think so accuses nobody.
            started_once: true,
            split: from.u32(),
        }
    }

    /// A register of those that are only kept, not acted on; zero for any other.
    pub(crate) fn get(&self, reg: u32) -> u32 {
        match reg {
            regs::Q_SIZE => self.size,
            regs::Q_VECTOR => self.vector,
            regs::Q_DESC_LO => Half::Low.of(self.desc),
            regs::Q_DESC_HI => Half::High.of(self.desc),
            regs::Q_AVAIL_LO => Half::Low.of(self.avail),
            regs::Q_AVAIL_HI => Half::High.of(self.avail),
            regs::Q_USED_LO => Half::Low.of(self.used),
            regs::Q_USED_HI => Half::High.of(self.used),
            regs::Q_INDEX => self.index,
            regs::Q_MODERATION => self.moderation,
            regs::Q_SPLIT => self.split,
            _ => 0,
        }
    }

    /// Sets a register of those that are only kept.
    pub(crate) fn set(&mut self, reg: u32, value: u32) {
        match reg {
            regs::Q_SIZE => self.size = value,
            regs::Q_VECTOR => self.vector = value,
            regs::Q_DESC_LO => set_low(&mut self.desc, value),
            regs::Q_DESC_HI => set_high(&mut self.desc, value),
            regs::Q_AVAIL_LO => set_low(&mut self.avail, value),
            regs::Q_AVAIL_HI => set_high(&mut self.avail, value),
            regs::Q_USED_LO => set_low(&mut self.used, value),
            regs::Q_USED_HI => set_high(&mut self.used, value),
            regs::Q_INDEX => self.index = value,
            regs::Q_MODERATION => self.moderation = value,
            regs::Q_SPLIT => self.split = value & Q_SPLIT_ENABLE,
            _ => {}
        }
    }

    /// The ring indices as `Q_INDEX` shows them.
    pub(crate) fn pack_index((avail, used): (u16, u16)) -> u32 {
        Q_INDEX_AVAIL.put(avail.into()) | Q_INDEX_USED.put(used.into())
    }

    /// The queue does not run any more, and stopped here.
    pub(crate) fn settle(&mut self, indices: (u16, u16)) {
        self.started = false;
        self.index = Self::pack_index(indices);
    }

    /// What the worker needs to know, of a queue of a card with these features. Of them, header
    /// split is in force for the queue only if its register says so too.
    pub(crate) fn ring(&self, mut features: u64) -> RingConfig {
        if self.split == 0 {
            features &= !HDR_SPLIT;
        }
        RingConfig {
            size: self.size,
            desc: self.desc,
            avail: self.avail,
            used: self.used,
            index_avail: Q_INDEX_AVAIL.get(self.index) as u16,
            index_used: Q_INDEX_USED.get(self.index) as u16,
            features,
        }
    }

    /// How long the interrupts of the queue wait.
    pub(crate) fn moderation(&self) -> Moderation {
        // Both fields have 16 bits.
        Moderation {
            usecs: regs::Q_MODERATION_USECS.get(self.moderation) as u16,
            frames: regs::Q_MODERATION_FRAMES.get(self.moderation) as u16,
        }
    }

    /// The vector that was chosen; `None` for [`NO_VECTOR`].
    pub(crate) fn vector(&self) -> Option<u32> {
        (self.vector != NO_VECTOR).then_some(self.vector)
    }
}

fn set_low(value: &mut u64, half: u32) {
    *value = *value & !0xffff_ffff | u64::from(half);
}

fn set_high(value: &mut u64, half: u32) {
    *value = *value & 0xffff_ffff | u64::from(half) << 32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_contract::regs::{Access, Reset};

    #[test]
    fn every_programmable_register_is_kept() {
        let mut q = QueueRegs::new();
        let list = || regs::QUEUE.iter().filter(|r| r.access == Access::RwStopped);
        for r in list() {
            assert_eq!(Reset::Value(q.get(r.offset)), r.reset, "{}", r.name);
        }
        for r in list() {
            q.set(r.offset, 0x1000_0001 + r.offset);
        }
        for r in list() {
            let kept = match r.offset {
                regs::Q_SPLIT => Q_SPLIT_ENABLE,
                _ => 0x1000_0001 + r.offset,
            };
            assert_eq!(q.get(r.offset), kept, "{}", r.name);
        }
        let ring = q.ring(5);
        assert_eq!(ring.desc, 0x1000_0015_1000_0011);
        assert_eq!((ring.index_avail, ring.index_used), (0x29, 0x1000));
        assert_eq!(QueueRegs::pack_index((0x29, 0x1000)), q.get(regs::Q_INDEX));
    }

    #[test]
    fn header_split_needs_both_feature_and_register() {
        let mut q = QueueRegs::new();
        assert_eq!(q.ring(HDR_SPLIT | 1).features, 1);
        q.set(regs::Q_SPLIT, Q_SPLIT_ENABLE);
        assert_eq!(q.ring(HDR_SPLIT | 1).features, HDR_SPLIT | 1);
        assert_eq!(q.ring(1).features, 1);
    }
}
