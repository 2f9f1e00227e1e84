// SPDX-License-Identifier: GPL-2.0

//! Phase 4: a receive ring, and a timer in place of the device's interrupt. The device writes frames to
//! buffers, and the interrupt handler hands them to the stack.
//!
//! docs/tour/4-rx-ring.md walks through it.

#![forbid(unsafe_code)]

mod rx_ring;
mod tx_ring;

use kernel::{
    prelude::*,
    time::Delta, //
};
use netdev::{
    new_spinlock_irq,
    prelude::*,
    SpinLockIrq, //
};
use rx_ring::{
    RxRing,
    FRAME, //
};
use tx_ring::TxRing;

netdev::module_software_driver! {
    type: Phase4,
    name: "vnet_phase4",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 4: a receive ring and a timer",
    license: "GPL",
    params: {
        rate: u32 {
            default: 100,
            description: "Frames received a second, 1 to 10000",
        },
    },
}

struct Phase4;

impl software::Driver for Phase4 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        let rate = module_parameters::rate.value().clone();
        if !(1..=10_000).contains(&rate) {
            return Err(EINVAL);
        }
        let nic = Nic {
            period: Delta::from_nanos(1_000_000_000 / i64::from(rate)),
            rx: KBox::pin_init(new_spinlock_irq!(RxRing::new()?), GFP_KERNEL)?,
            rx_packets: Counter::new(),
            rx_dropped: Counter::new(),
            rx_missed: Counter::new(),
            tx_packets: Counter::new(),
        };
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x40],
            tick: 20,
            ..Config::new(nic, c"vnet%d")
        })
    }
}

struct Nic {
    /// Time between two interrupts.
    period: Delta,
    /// A handler cannot wait for a lock whose holder it has interrupted: so taking this one keeps
    /// interrupts off.
    rx: Pin<KBox<SpinLockIrq<RxRing>>>,
    /// These three are written by the interrupt.
    rx_packets: Counter,
    rx_dropped: Counter,
    rx_missed: Counter,
    tx_packets: Counter,
}

#[vtable]
impl Operations for Nic {
    type Tx = TxRing;
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        self.rx.lock().clear();
        dev.start_channel(0, TxRing::new(), ())?;
        dev.start_timer(self.period)?;
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    fn stop(&self, dev: &Locked<'_, Self>) {
        // First the device is to be silent, then what its interrupt uses may go.
        dev.stop_timer();
        dev.stop_tx();
        dev.set_carrier(false);
    }

    /// The interrupt: hard interrupt context. Nothing here may sleep, and the CPU does nothing else.
    fn timer(&self, dev: &NetDevice<Self>, _interrupt: &Interrupt<'_, Self>) {
        // What hardware does by itself: receives a frame, and writes it to the ring.
        if !self.rx.lock().write_numbered() {
            self.rx_missed.add(1);
        }
        // What the driver does about it. The lock is not held while the stack has the frame.
        while let Some(frame) = { self.rx.lock().read() } {
            // To a queue of this CPU, from where the stack takes it in softirq context.
            match RxSkb::new(dev, &frame).and_then(|skb| skb.receive_later(dev)) {
                Some(_) => self.rx_packets.add(1),
                None => self.rx_dropped.add(1),
            }
        }
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

    fn tick(&self, dev: &NetDevice<Self>) {
        dev.with_tx(0, |queue, ring| {
            ring.complete::<Self>(queue, None, |_, _| self.tx_packets.add(1));
        });
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        stats.tx_packets(self.tx_packets.get());
        stats.rx_packets(self.rx_packets.get());
        stats.rx_bytes(self.rx_packets.get() * FRAME as u64);
        stats.rx_dropped(self.rx_dropped.get());
        stats.rx_missed_errors(self.rx_missed.get());
    }
}

#[vtable]
impl ethtool::Operations for Nic {}
