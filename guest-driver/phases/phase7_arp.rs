// SPDX-License-Identifier: GPL-2.0

//! Phase 7: ARP. What comes from the wire is no longer noise: a station there asks for the address of
//! this one, is answered, and answers in turn.
//!
//! docs/tour/7-arp.md walks through it.

#![forbid(unsafe_code)]

mod arp;
mod counters;
mod device;
mod ethtool_ops;
mod rx_ring;
mod tx_ring;

use arp::Station;
use counters::{
    Count,
    Counters, //
};
use device::Device;
use ethtool_ops::MessageLevel;
use kernel::{
    prelude::*,
    time::Delta, //
};
use netdev::{
    prelude::*,
    MSG_RX_STATUS,
    MSG_TX_QUEUED, //
};
use rx_ring::{
    Frame,
    FRAME, //
};
use tx_ring::TxRing;

netdev::module_software_driver! {
    type: Phase7,
    name: "vnet_phase7",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 7: ARP",
    license: "GPL",
    params: {
        rate: u32 {
            default: 2,
            description: "ARP requests a second, 1 to 1000",
        },
    },
}

/// The station on the wire, and the address that it asks for.
const PEER: Station = Station {
    mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0xfe],
    ip: [10, 76, 0, 1],
};
const ASKED: [u8; 4] = [10, 76, 0, 2];

struct Phase7;

impl software::Driver for Phase7 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        let rate = module_parameters::rate.value().clone();
        if !(1..=1000).contains(&rate) {
            return Err(EINVAL);
        }
        let nic = Nic {
            period: Delta::from_nanos(1_000_000_000 / i64::from(rate)),
            device: Device::new()?,
            counters: Counters::new()?,
            message_level: MessageLevel::new(),
        };
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x70],
            ..Config::new(nic, c"vnet%d")
        })
    }
}

struct Nic {
    /// Time between two requests.
    period: Delta,
    /// What the interrupt and the poll share.
    device: Device,
    counters: Counters,
    message_level: MessageLevel,
}

impl Nic {
    /// The device receives a frame. True if it interrupts then.
    fn receives(&self, frame: &Frame) -> bool {
        if !self.device.write(frame) {
            self.counters.add(Count::RxMissed, 1);
        }
        self.device.interrupts()
    }

    /// The wire has a frame that was sent: what does the station there make of it?
    fn arrives(&self, skb: &SkBuff) {
        // Shorter frames are no ARP.
        let Some(bytes) = skb.read::<{ arp::LEN }>(0) else {
            return;
        };
        if PEER.is_answered_by(&bytes) {
            self.counters.add(Count::ArpAnswered, 1);
        }
        if let Some(answer) = PEER.answers(&bytes) {
            self.counters.add(Count::ArpAnswers, 1);
            // The poll that frames are sent from receives this one next.
            let _ = self.receives(&answer);
        }
    }
}

#[vtable]
impl Operations for Nic {
    type Tx = TxRing;
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        dev.start_channel(0, TxRing::new(), ())?;
        self.device.start();
        dev.start_timer(self.period)?;
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    fn stop(&self, dev: &Locked<'_, Self>) {
        dev.stop_timer();
        dev.stop_tx();
        dev.set_carrier(false);
    }

    fn timer(&self, _dev: &NetDevice<Self>, interrupt: &Interrupt<'_, Self>) {
        if self.receives(&PEER.asks_for(ASKED)) {
            interrupt.schedule_poll(0);
        }
    }

    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        _rx: &mut (),
        budget: u32,
    ) -> Polled {
        self.counters.add(Count::Polls, 1);
        if let Some(mut tx) = napi.lock_tx() {
            let (queue, ring) = tx.split();
            ring.complete(queue, Some(napi), |skb, bytes| {
                self.counters.sent(bytes);
                self.arrives(skb);
            });
        }
        // Consumed by the stack, which says what it took it for.
        let done = self.device.receive(napi, budget, |taken| {
            self.counters.received(taken, FRAME as u64)
        });
        if self.message_level.wants(MSG_RX_STATUS) {
            netdev::debug!(dev, "polled: {done} of {budget}\n");
        }
        if done < budget {
            return Polled::Idle(done);
        }
        self.counters.add(Count::FullPolls, 1);
        Polled::Again(done)
    }

    fn arm(&self, _channel: &Arming<'_, Self>, _rx: &mut ()) -> bool {
        self.device.arm()
    }

    fn start_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        ring: &mut TxRing,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        if self.message_level.wants(MSG_TX_QUEUED) {
            netdev::debug!(dev, "queued {} bytes\n", meta.len());
        }
        if ring.send(queue, skb, meta.len()) {
            self.counters.queued(meta.protocol());
        } else {
            self.counters.add(Count::TxDropped, 1);
        }
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        self.counters.tell(stats);
    }
}
