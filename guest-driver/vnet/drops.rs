// SPDX-License-Identifier: GPL-2.0

//! Frames that the card dropped, as the kernel's statistics have them.
//!
//! The card counts them in registers, since its last reset. These are not read whenever somebody asks
//! for statistics, as that takes long: what is new goes to counters of the driver now and then.

use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    Arc, //
};
use netdev::Counter;
use vnet_contract::{
    features,
    queue,
    regs, //
};

use crate::{
    nic::Nic,
    stats::{
        RxStats,
        TxStats, //
    },
};

/// A counter of a card that is well moves by less than this while it is read three times.
const MOST_MEANWHILE: u64 = 1 << 16;

/// A counter of the card that goes on when the card begins anew. Changed under the RTNL lock.
#[derive(Default)]
pub(crate) struct Drops {
    total: Counter,
    seen: Counted,
}

/// What the counter of the card was last.
struct Counted(Atomic<u64>);

impl Default for Counted {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Drops {
    /// Takes note of what the card's counter is now. Any read may be wrong, and what is added stays: so what
    /// is new counts if it lies between two other reads. Else the next note tells.
    fn note(&self, read: impl Fn() -> u64) {
        let seen = self.seen.0.load(Relaxed);
        let before = read();
        if before == seen || !is_answer(before) {
            return;
        }
        let (now, after) = (read(), read());
        let moves = before <= now && now <= after && after - before < MOST_MEANWHILE;
        if moves && is_answer(now) {
            self.seen.0.store(now, Relaxed);
            // Less than before is what a card tells that has reset itself.
            self.total.add(now.saturating_sub(seen));
        }
    }

    /// The card begins anew.
    fn forget(&self) {
        self.seen.0.store(0, Relaxed);
    }

    /// Frames so far.
    pub(crate) fn get(&self) -> u64 {
        self.total.get()
    }
}

/// False if the card did not answer when either half was read.
fn is_answer(counter: u64) -> bool {
    let [low, high] = [counter as u32, (counter >> 32) as u32];
    low != u32::MAX && high != u32::MAX
}

impl Nic<'_> {
    /// True if the card counts what it does.
    pub(crate) fn keeps_counters(&self) -> bool {
        self.identity.features & features::QUEUE_STATS != 0
    }

    /// Asks the card what it had no buffers for. Under the RTNL lock.
    pub(crate) fn note_missed(&self, pairs: u16) {
        for pair in 0..pairs {
            self.note(pair, queue::rx_index, regs::S_MISSED, |(_, rx)| &rx.missed);
        }
    }

    /// Asks the card what it dropped, before it may forget. Under the RTNL lock.
    pub(crate) fn note_all_drops(&self, pairs: u16) {
        for pair in 0..pairs {
            self.note_rx_drops(pair);
            self.note_tx_drops(pair);
        }
    }

    /// The card was reset, and counts from zero. Under the RTNL lock.
    pub(crate) fn forget_drops(&self) {
        for (tx, rx) in &self.queue_stats {
            for drops in [&tx.drops, &rx.drops, &rx.missed] {
                drops.forget();
            }
        }
    }

    /// Asks the card what it dropped of what came for a pair. Under the RTNL lock.
    pub(crate) fn note_rx_drops(&self, pair: u16) {
        self.note(pair, queue::rx_index, regs::S_DROPS, |(_, rx)| &rx.drops);
        self.note(pair, queue::rx_index, regs::S_MISSED, |(_, rx)| &rx.missed);
    }

    /// Asks the card what it dropped of what a pair sent. Under the RTNL lock.
    pub(crate) fn note_tx_drops(&self, pair: u16) {
        self.note(pair, queue::tx_index, regs::S_DROPS, |(tx, _)| &tx.drops);
    }

    fn note(
        &self,
        pair: u16,
        index: fn(u16) -> u16,
        register: u32,
        of: impl Fn(&(Arc<TxStats>, Arc<RxStats>)) -> &Drops,
    ) {
        if let Some(stats) = self.queue_stats.get(usize::from(pair)) {
            if self.keeps_counters() && self.present() {
                of(stats).note(|| self.regs.read_counter(index(pair), register));
            }
        }
    }
}
