// SPDX-License-Identifier: GPL-2.0

//! What `ethtool` shows of a card.

use core::fmt::{
    self,
    Write, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};
use netdev::{
    coalesce::Coalesce,
    ethtool::{
        Answer,
        Link,
        Names,
        Operations,
        RingChange,
        RingSizes,
        Values, //
    },
    rss::{
        Flow,
        RssChange,
        RssState, //
    },
    Locked,
    NetDevice, //
};
use vnet_contract::{
    queue,
    regs, //
};

use crate::{
    nic::Nic,
    shape::Shape,
    stats::{
        CardCounters,
        Protocols,
        RxCounters,
        TxCounters, //
    },
};

/// Counters that the card keeps for each queue.
const CARD_QUEUE: [(&str, u32); 7] = [
    ("packets", regs::S_FRAMES),
    ("bytes", regs::S_BYTES),
    ("drops", regs::S_DROPS),
    ("errors", regs::S_ERRORS),
    ("doorbells", regs::S_DOORBELLS),
    ("interrupts", regs::S_INTERRUPTS),
    ("missed", regs::S_MISSED),
];

/// Gives the index of a queue of a pair.
type QueueOf = fn(u16) -> u16;

/// Directions as they are named in statistics, and the queue of a pair that each is.
const DIRECTIONS: [(&str, QueueOf); 2] = [("rx", queue::rx_index), ("tx", queue::tx_index)];

impl Nic<'_> {
    /// Sum of a counter for each protocol, over all queues.
    fn protocols<const N: usize>(&self, of: impl Fn(usize) -> [u64; N]) -> [u64; N] {
        let mut sum = [0; N];
        for pair in 0..self.queue_stats.len() {
            for (sum, n) in sum.iter_mut().zip(of(pair)) {
                *sum += n;
            }
        }
        sum
    }
}

#[vtable]
impl Operations for Nic<'_> {
    fn firmware_version(&self, out: &mut dyn Write) -> fmt::Result {
        let version = self.identity.version;
        write!(out, "{}.{}", version >> 16, version & 0xffff)
    }

    fn message_level(&self) -> u32 {
        self.message_level.load(Relaxed)
    }

    fn set_message_level(&self, level: u32) {
        self.message_level.store(level, Relaxed);
    }

    fn ring_sizes(&self) -> RingSizes {
        let (shape, max) = (self.shape(), u32::from(self.identity.max_ring));
        RingSizes {
            rx: (u32::from(shape.rx_ring), max),
            tx: (u32::from(shape.tx_ring), max),
            split: self.splits().then_some(shape.split),
        }
    }

    fn set_rings(
        &self,
        dev: &Locked<'_, Self>,
        change: RingChange,
        answer: &mut Answer<'_>,
    ) -> Result {
        let shape = Shape {
            rx_ring: self.ring_size(change.rx, answer)?,
            tx_ring: self.ring_size(change.tx, answer)?,
            split: self.may_split(change.split, answer)?,
            ..self.shape()
        };
        self.reshape(dev, shape)
    }

    fn set_channels(&self, dev: &Locked<'_, Self>, channels: u16) -> Result {
        let shape = Shape {
            pairs: channels,
            ..self.shape()
        };
        self.reshape(dev, shape)
    }

    fn coalesce(&self) -> Option<Coalesce> {
        self.moderation()
    }

    fn set_coalesce(
        &self,
        dev: &Locked<'_, Self>,
        coalesce: Coalesce,
        answer: &mut Answer<'_>,
    ) -> Result {
        self.set_moderation(dev, coalesce, answer)
    }

    fn rss_sizes(&self) -> (usize, usize) {
        self.rss_lengths()
    }

    fn rss(&self, state: &mut RssState<'_>) -> Result {
        self.show_rss(state)
    }

    fn set_rss(&self, dev: &Locked<'_, Self>, change: &RssChange<'_>) -> Result {
        self.change_rss(dev, change)
    }

    fn hashes_ports(&self, flow: Flow) -> bool {
        self.ports_hashed(flow)
    }

    fn hash_ports(&self, dev: &Locked<'_, Self>, flow: Flow, ports: bool) -> Result {
        self.choose_ports(dev, flow, ports)
    }

    fn link(&self) -> Link {
        let link = self.link.load(Relaxed);
        let up = link & regs::LINK_UP != 0 && self.present();
        let speed = self.link_speed.load(Relaxed);
        Link {
            speed: (up && speed != regs::LINK_SPEED_UNKNOWN).then_some(speed),
            full_duplex: up.then_some(link & regs::LINK_FULL_DUPLEX != 0),
        }
    }

    fn stats_names(&self, names: &mut Names<'_>) {
        for name in CardCounters::NAMES {
            names.push(fmt!("{name}"));
        }
        for (direction, _) in DIRECTIONS {
            for name in Protocols::NAMES {
                names.push(fmt!("{direction}_{name}"));
            }
        }
        if self.keeps_counters() {
            names.push(fmt!("card_illegal_accesses"));
        }
        for pair in 0..self.max_pairs {
            names.push(fmt!("channel{pair}_interrupts"));
            names.push(fmt!("channel{pair}_turns"));
            for name in RxCounters::NAMES {
                names.push(fmt!("rx{pair}_{name}"));
            }
            for name in TxCounters::NAMES {
                names.push(fmt!("tx{pair}_{name}"));
            }
            if self.keeps_counters() {
                for (direction, _) in DIRECTIONS {
                    for (name, _) in CARD_QUEUE {
                        names.push(fmt!("card_{direction}{pair}_{name}"));
                    }
                }
            }
        }
    }

    fn stats_values(&self, dev: &NetDevice<Self>, values: &mut Values<'_>) {
        if self.present() && !self.regs.alive() {
            self.card_gone(dev);
        }
        for value in self.counters.values() {
            values.push(value);
        }
        let rx = self.protocols(|pair| self.queue_stats[pair].1.protocols.values());
        let tx = self.protocols(|pair| self.queue_stats[pair].0.protocols.values());
        rx.iter().for_each(|value| values.push(*value));
        tx.iter().for_each(|value| values.push(*value));
        if self.keeps_counters() {
            values.push(if self.present() {
                u64::from(self.regs.read(regs::ILLEGAL_ACCESSES))
            } else {
                0
            });
        }
        for (pair, (tx, rx)) in (0..self.max_pairs).zip(&self.queue_stats) {
            values.push(dev.interrupts(pair));
            values.push(dev.turns(pair));
            for value in rx.queue.values() {
                values.push(value);
            }
            for value in tx.queue.values() {
                values.push(value);
            }
            if self.keeps_counters() {
                for (_, queue) in DIRECTIONS {
                    // Each read of a card that died may take its time: ask once per queue.
                    if self.present() && self.regs.read(regs::ID) == u32::MAX && !self.regs.alive()
                    {
                        self.card_gone(dev);
                    }
                    for (_, reg) in CARD_QUEUE {
                        // A card that is gone has nothing to say.
                        values.push(if self.present() {
                            self.regs.read_counter(queue(pair), reg)
                        } else {
                            0
                        });
                    }
                }
            }
        }
    }
}
