// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers of receive side scaling.

use std::sync::Arc;

use vnet_contract::features::{HASH_REPORT, RSS};
use vnet_contract::regs::{self, RSS_CTRL_ENABLE, RSS_CTRL_SYMMETRIC};
use vnet_rss::{Rss, RssConfig, Toeplitz, HASH_TYPES, KEY_SIZE, TABLE_SIZE};
use vnet_state::records::{Fields, Writer};

/// The registers as the driver wrote them.
#[derive(Clone, Debug)]
pub(crate) struct RssRegs {
    ctrl: u32,
    types: u32,
    key: [u8; KEY_SIZE],
    table: [u8; TABLE_SIZE],
    /// The key, once it was needed. Preparing it takes microseconds, and the table has many
    /// registers.
    prepared: Option<Arc<Toeplitz>>,
}

impl RssRegs {
    /// Registers after reset.
    pub(crate) fn new() -> Self {
        Self {
            ctrl: 0,
            types: 0,
            key: [0; KEY_SIZE],
            table: [0; TABLE_SIZE],
            prepared: None,
        }
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.u32(self.ctrl)
            .u32(self.types)
            .put(&self.key)
            .put(&self.table);
    }

    /// What another process saved.
    pub(crate) fn load(from: &mut Fields<'_>) -> Self {
        Self {
            ctrl: from.u32(),
            types: from.u32(),
            key: from.array(),
            table: from.array(),
            prepared: None,
        }
    }

    /// Reads a register; zero if it is none of these.
    pub(crate) fn get(&self, reg: u32, index: usize) -> u32 {
        match reg {
            regs::RSS_CTRL => self.ctrl,
            regs::RSS_HASH_TYPES => self.types,
            regs::RSS_HASH_SUPPORTED => HASH_TYPES,
            regs::RSS_TABLE_SIZE => TABLE_SIZE as u32,
            regs::RSS_KEY => word(&self.key, index),
            regs::RSS_TABLE => word(&self.table, index),
            _ => 0,
        }
    }

    /// Writes a register; false if it is none of these.
    #[must_use]
    pub(crate) fn set(&mut self, reg: u32, index: usize, value: u32) -> bool {
        match reg {
            regs::RSS_CTRL => self.ctrl = value & (RSS_CTRL_ENABLE | RSS_CTRL_SYMMETRIC),
            regs::RSS_HASH_TYPES => self.types = value & HASH_TYPES,
            regs::RSS_KEY => {
                set_word(&mut self.key, index, value);
                self.prepared = None;
            }
            regs::RSS_TABLE => set_word(&mut self.table, index, value),
            _ => return false,
        }
        true
    }

    /// What the workers apply, if the driver has accepted something for which they have to look at
    /// frames at all.
    pub(crate) fn rules(&mut self, accepted: u64, pairs: u16) -> Option<Arc<Rss>> {
        let spread = self.ctrl & RSS_CTRL_ENABLE != 0;
        let spreads = spread && pairs > 1;
        let reports = accepted & HASH_REPORT != 0 && self.types != 0;
        if accepted & RSS == 0 || !spreads && !reports {
            return None;
        }
        let key = &self.key;
        let prepared = self
            .prepared
            .get_or_insert_with(|| Arc::new(Toeplitz::new(key)));
        Some(Arc::new(Rss::new(RssConfig {
            key: Arc::clone(prepared),
            types: self.types,
            symmetric: self.ctrl & RSS_CTRL_SYMMETRIC != 0,
            spread,
            table: self.table,
            pairs,
        })))
    }
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let four = bytes.get(index * 4..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

fn set_word(bytes: &mut [u8], index: usize, value: u32) {
    if let Some(four) = bytes.get_mut(index * 4..index * 4 + 4) {
        four.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_contract::regs::{Access, RSS_HASH_IPV4, RSS_HASH_MASK};

    fn registers() -> impl Iterator<Item = &'static regs::Register> {
        let list = regs::GLOBAL.iter();
        list.filter(|r| r.feature == RSS && r.access == Access::Rw)
    }

    #[test]
    fn every_register_keeps_what_it_has_room_for() {
        let mut rss = RssRegs::new();
        for r in registers() {
            for i in 0..r.count as usize {
                assert_eq!(rss.get(r.offset, i), 0, "{}", r.name);
                assert!(rss.set(r.offset, i, 0x8765_43ff - i as u32), "{}", r.name);
            }
        }
        for r in registers() {
            let kept = match r.offset {
                regs::RSS_CTRL => RSS_CTRL_ENABLE | RSS_CTRL_SYMMETRIC,
                regs::RSS_HASH_TYPES => RSS_HASH_MASK,
                _ => u32::MAX,
            };
            for i in 0..r.count as usize {
                let expected = (0x8765_43ff - i as u32) & kept;
                assert_eq!(rss.get(r.offset, i), expected, "{} {i}", r.name);
            }
        }
        assert!(!rss.set(regs::RX_MODE, 0, 1));
        assert_eq!(rss.get(regs::RSS_TABLE_SIZE, 0), TABLE_SIZE as u32);
    }

    #[test]
    fn frames_are_looked_at_only_if_it_is_good_for_something() {
        let mut rss = RssRegs::new();
        let both = RSS | HASH_REPORT;
        let in_force = |rss: &mut RssRegs| {
            [(0, 4), (RSS, 4), (RSS, 1), (both, 4), (both, 1)]
                .map(|(accepted, pairs)| rss.rules(accepted, pairs).is_some())
        };
        assert_eq!(in_force(&mut rss), [false; 5]);
        assert!(rss.set(regs::RSS_HASH_TYPES, 0, RSS_HASH_IPV4));
        assert_eq!(in_force(&mut rss), [false, false, false, true, true]);
        assert!(rss.set(regs::RSS_CTRL, 0, RSS_CTRL_ENABLE));
        assert_eq!(in_force(&mut rss), [false, true, false, true, true]);
        assert!(rss.set(regs::RSS_HASH_TYPES, 0, 0));
        assert_eq!(in_force(&mut rss), [false, true, false, true, false]);
    }

    #[test]
    fn a_new_key_and_a_new_table_take_effect() {
        let mut frame = [0; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let mut rss = RssRegs::new();
        assert!(rss.set(regs::RSS_CTRL, 0, RSS_CTRL_ENABLE));
        assert!(rss.set(regs::RSS_HASH_TYPES, 0, RSS_HASH_IPV4));
        // The hash is the first word of the key where only the first bit of the input counts.
        let mut value = |rss: &mut RssRegs| {
            frame[26] = 0x80;
            let with = rss.rules(RSS, 4).unwrap().choose(&frame);
            frame[26] = 0;
            let without = rss.rules(RSS, 4).unwrap().choose(&frame);
            (with.hash.value ^ without.hash.value, without.pair)
        };
        assert_eq!(value(&mut rss), (0, Some(0)));
        assert!(rss.set(regs::RSS_KEY, 0, 0x7856_3412));
        assert_eq!(value(&mut rss).0, 0x1234_5678);
        for i in 0..32 {
            assert!(rss.set(regs::RSS_TABLE, i, 0x0303_0303));
        }
        assert_eq!(value(&mut rss), (0x1234_5678, Some(3)));
    }
}
