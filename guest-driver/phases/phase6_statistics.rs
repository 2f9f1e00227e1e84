// SPDX-License-Identifier: GPL-2.0

//! Phase 6: statistics and ethtool. Counters that each CPU has a copy of, frames by protocol, and what a
//! device tells `ethtool`: who it is, what it counted, how much it is to say.
//!
//! docs/tour/6-statistics.md walks through it.

#![forbid(unsafe_code)]

mod counters;
mod device;
mod ethtool_ops;
mod rx_ring;
mod tx_ring;

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
use rx_ring::FRAME;
use tx_ring::TxRing;

netdev::module_software_driver! {
    type: Phase6,
    name: "vnet_phase6",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 6: statistics and ethtool",
    license: "GPL",
}

/// Time between two interrupts.
const PERIOD: Delta = Delta::from_millis(10);

struct Phase6;

impl software::Driver for Phase6 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        let nic = Nic {
            device: Device::new()?,
            counters: Counters::new()?,
            message_level: MessageLevel::new(),
        };
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x60],
            ..Config::new(nic, c"vnet%d")
        })
    }
}

struct Nic {
    /// What the interrupt and the poll share.
    device: Device,
    counters: Counters,
    message_level: MessageLevel,
}

#[vtable]
impl Operations for Nic {
    type Tx = TxRing;
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        dev.start_channel(0, TxRing::new(), ())?;
        self.device.start();
        dev.start_timer(PERIOD)?;
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
        if !self.device.write_numbered() {
            self.counters.add(Count::RxMissed, 1);
        }
        if self.device.interrupts() {
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
            ring.complete(queue, Some(napi), |_, bytes| self.counters.sent(bytes));
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
