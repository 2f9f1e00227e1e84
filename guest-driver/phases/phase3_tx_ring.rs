// SPDX-License-Identifier: GPL-2.0

//! Phase 3: a transmit ring. A frame is not gone when `start_xmit` returns: it waits in a ring for a wire
//! that takes a few at a time, and while the ring is full the stack is held back.
//!
//! docs/tour/3-tx-ring.md walks through it.

#![forbid(unsafe_code)]

mod tx_ring;

use kernel::prelude::*;
use netdev::prelude::*;
use tx_ring::{
    TxRing,
    SIZE, //
};

netdev::module_software_driver! {
    type: Phase3,
    name: "vnet_phase3",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 3: a transmit ring",
    license: "GPL",
    params: {
        wake: u32 {
            default: 1,
            description: "Wake the queue again after it was stopped; try what happens without: 0",
        },
    },
}

/// Milliseconds between two looks of the wire at the ring, and frames that it takes each time.
const TICK: u32 = 20;
const WIRE: u32 = 4;

struct Phase3;

impl software::Driver for Phase3 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        Ok(Config {
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x30],
            tick: TICK,
            ..Config::new(Nic::default(), c"vnet%d")
        })
    }
}

/// Counters; all are written under the lock of the transmit queue.
#[derive(Default)]
struct Nic {
    packets: Counter,
    bytes: Counter,
    dropped: Counter,
    stops: Counter,
    wakes: Counter,
}

#[vtable]
impl Operations for Nic {
    /// The ring: whoever has it as `&mut` holds the lock of the transmit queue.
    type Tx = TxRing;
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        dev.start_channel(0, TxRing::new(), ())?;
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    fn stop(&self, dev: &Locked<'_, Self>) {
        dev.stop_tx();
        dev.set_carrier(false);
        netdev::info!(
            dev,
            "stop: {} frames sent, queue stopped {} times, woken {} times\n",
            self.packets.get(),
            self.stops.get(),
            self.wakes.get()
        );
        // The ring is dropped with the channel; frames that are still in it count as purged.
    }

    fn start_xmit(
        &self,
        _dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        ring: &mut TxRing,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        if !ring.push(skb, meta.len()) {
            // Never, as the queue was stopped before; but who drops a frame counts it.
            self.dropped.add(1);
        }
        // Stopped with the last place taken, not when a frame has come for which there is none.
        if ring.is_full() {
            queue.stop();
            self.stops.add(1);
        }
    }

    /// The wire: softirq context, later than `start_xmit` and maybe on another CPU.
    fn tick(&self, dev: &NetDevice<Self>) {
        dev.with_tx(0, |queue, ring| {
            for _ in 0..WIRE {
                let Some((skb, bytes)) = ring.pop() else {
                    break;
                };
                self.packets.add(1);
                self.bytes.add(bytes.into());
                // Sent, not dropped: nobody is to look for a reason.
                skb.complete().consume::<Self>(None);
            }
            // With room for several, so that the two do not alternate frame by frame.
            let wake = module_parameters::wake.value().clone() != 0;
            if wake && queue.is_stopped() && ring.used() <= SIZE / 2 {
                queue.wake();
                self.wakes.add(1);
            }
        });
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        stats.tx_packets(self.packets.get());
        stats.tx_bytes(self.bytes.get());
        stats.tx_dropped(self.dropped.get());
    }
}

#[vtable]
impl ethtool::Operations for Nic {}
