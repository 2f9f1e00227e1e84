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
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        SpinLockIrq,
    },
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
            device: KBox::pin_init(new_spinlock_irq!(Device::new()?), GFP_KERNEL)?,
            counters: Counters::new()?,
            message_level: Atomic::new(0),
        };
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x60],
            ..Config::new(nic, c"vnet%d")
        })
    }
}

struct Nic {
    /// What the interrupt and the poll share.
    device: Pin<KBox<SpinLockIrq<Device>>>,
    counters: Counters,
    /// Which debug messages are wanted: `NETIF_MSG_*`.
    message_level: Atomic<u32>,
}

impl Nic {
    fn wants(&self, message: u32) -> bool {
        self.message_level.load(Relaxed) & message != 0
    }
}

#[vtable]
impl Operations for Nic {
    type Tx = TxRing;
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        dev.start_channel(0, TxRing::new(), ())?;
        self.device.lock().start();
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
        let mut device = self.device.lock();
        if !device.ring.write_numbered() {
            self.counters.add(Count::RxMissed, 1);
        }
        if device.interrupts() {
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
            while let Some((skb, bytes)) = ring.pop() {
                self.counters.add(Count::TxPackets, 1);
                self.counters.add(Count::TxBytes, bytes.into());
                skb.complete().consume(Some(napi));
            }
            if queue.is_stopped() {
                queue.wake();
            }
        }
        let mut done = 0;
        while done < budget {
            let Some(frame) = ({ self.device.lock().ring.read() }) else {
                break;
            };
            done += 1;
            // Consumed by the stack, which says what it took it for.
            match RxSkb::new(dev, &frame).and_then(|skb| skb.receive(napi)) {
                Some(received) => self.counters.received(received.protocol, FRAME as u64),
                None => self.counters.add(Count::RxDropped, 1),
            }
        }
        if self.wants(MSG_RX_STATUS) {
            netdev::debug!(dev, "polled: {done} of {budget}\n");
        }
        if done < budget {
            return Polled::Idle(done);
        }
        self.counters.add(Count::FullPolls, 1);
        Polled::Again(done)
    }

    fn arm(&self, _channel: &Arming<'_, Self>, _rx: &mut ()) -> bool {
        self.device.lock().arm()
    }

    fn start_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        ring: &mut TxRing,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        if self.wants(MSG_TX_QUEUED) {
            netdev::debug!(dev, "queued {} bytes\n", meta.len());
        }
        if ring.push(skb, meta.len()) {
            self.counters.queued(meta.protocol());
        } else {
            self.counters.add(Count::TxDropped, 1);
        }
        if ring.is_full() {
            queue.stop();
        }
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        self.counters.tell(stats);
    }
}
