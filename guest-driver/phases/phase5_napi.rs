// SPDX-License-Identifier: GPL-2.0

//! Phase 5: NAPI. The interrupt does no more than to ask for a poll, and is not wanted again before that is
//! through; the poll takes frames up to a budget, so that nobody is shut out by a flood.
//!
//! docs/tour/5-napi.md walks through it.

#![forbid(unsafe_code)]

mod device;
mod rx_ring;
mod tx_ring;

use device::Device;
use kernel::{
    prelude::*,
    time::Delta, //
};
use netdev::prelude::*;
use rx_ring::FRAME;
use tx_ring::TxRing;

netdev::module_software_driver! {
    type: Phase5,
    name: "vnet_phase5",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 5: NAPI",
    license: "GPL",
    params: {
        burst: u32 {
            default: 10,
            description: "Frames that the device receives every 10 ms, 1 to 1000",
        },
    },
}

/// Time between two interrupts.
const PERIOD: Delta = Delta::from_millis(10);

struct Phase5;

impl software::Driver for Phase5 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        let burst = module_parameters::burst.value().clone();
        if !(1..=1000).contains(&burst) {
            return Err(EINVAL);
        }
        let nic = Nic {
            burst,
            device: Device::new()?,
            counters: Counters::default(),
        };
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x50],
            ..Config::new(nic, c"vnet%d")
        })
    }
}

struct Nic {
    burst: u32,
    /// What the interrupt and the poll share.
    device: Device,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    /// Written by the interrupt.
    missed: Counter,
    /// Written by the poll: all of them, those that used up their budget, and what they did.
    polls: Counter,
    full: Counter,
    rx_packets: Counter,
    rx_dropped: Counter,
    tx_packets: Counter,
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
        let c = &self.counters;
        netdev::info!(
            dev,
            "stop: {} interrupts, {} polls, {} of them used all of their budget, {} frames\n",
            dev.interrupts(0),
            c.polls.get(),
            c.full.get(),
            c.rx_packets.get()
        );
    }

    /// Hard interrupt context: the device writes what it received, and interrupts if it may.
    fn timer(&self, _dev: &NetDevice<Self>, interrupt: &Interrupt<'_, Self>) {
        for _ in 0..self.burst {
            if !self.device.write_numbered() {
                self.counters.missed.add(1);
            }
        }
        if self.device.interrupts() {
            interrupt.schedule_poll(0);
        }
    }

    /// Softirq context, never twice at a time.
    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        _rx: &mut (),
        budget: u32,
    ) -> Polled {
        let c = &self.counters;
        c.polls.add(1);
        // Frames that are sent cost little, and do not count.
        if let Some(mut tx) = napi.lock_tx() {
            let (queue, ring) = tx.split();
            ring.complete(queue, Some(napi), |_, _| c.tx_packets.add(1));
        }
        let mut done = 0;
        while done < budget {
            let Some(frame) = self.device.read() else {
                // Less than the budget: the poll is through, and `arm` is next.
                return Polled::Idle(done);
            };
            done += 1;
            match RxSkb::new(dev, &frame).and_then(|skb| skb.receive(napi)) {
                Some(_) => c.rx_packets.add(1),
                None => c.rx_dropped.add(1),
            }
        }
        // There may be more: the core polls again, after others have had their turn.
        c.full.add(1);
        Polled::Again(done)
    }

    /// Lets the device interrupt again, unless it has written a frame since the poll looked last: for that
    /// one there would be no interrupt.
    fn arm(&self, _channel: &Arming<'_, Self>, _rx: &mut ()) -> bool {
        self.device.arm()
    }

    fn start_xmit(
        &self,
        _dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        ring: &mut TxRing,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        ring.send(queue, skb, meta.len());
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        let c = &self.counters;
        stats.tx_packets(c.tx_packets.get());
        stats.rx_packets(c.rx_packets.get());
        stats.rx_bytes(c.rx_packets.get() * FRAME as u64);
        stats.rx_dropped(c.rx_dropped.get());
        stats.rx_missed_errors(c.missed.get());
    }
}

#[vtable]
impl ethtool::Operations for Nic {}
