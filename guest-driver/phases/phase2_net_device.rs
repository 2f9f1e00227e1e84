// SPDX-License-Identifier: GPL-2.0

//! Phase 2: a network device. It can be opened and stopped, and takes frames to send; without hardware
//! to send them with, it counts and drops them.
//!
//! docs/tour/2-net-device.md walks through it.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use netdev::prelude::*;

netdev::module_software_driver! {
    type: Phase2,
    name: "vnet_phase2",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 2: a network device",
    license: "GPL",
}

struct Phase2;

impl software::Driver for Phase2 {
    type Nic = Nic;

    fn probe() -> Result<Config<'static, Nic>> {
        Ok(Config {
            // Locally administered (the 2 in the first byte), and the same at every start.
            mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x20],
            ..Config::new(Nic::default(), c"vnet%d")
        })
    }
}

/// The data of the device. Many callbacks run at a time, so all of it is shared.
#[derive(Default)]
struct Nic {
    dropped: Counter,
}

#[vtable]
impl Operations for Nic {
    /// What the lock of the transmit queue guards: nothing yet.
    type Tx = ();
    type Rx = ();

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        netdev::info!(dev, "open\n");
        dev.start_channel(0, (), ())?;
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    fn stop(&self, dev: &Locked<'_, Self>) {
        dev.stop_tx();
        dev.set_carrier(false);
        netdev::info!(dev, "stop, {} frames dropped so far\n", self.dropped.get());
    }

    fn start_xmit(
        &self,
        _dev: &NetDevice<Self>,
        _queue: &TxQueue<'_>,
        _tx: &mut (),
        skb: SkBuff,
        _meta: &TxMeta,
    ) {
        // One frame at a time, under the queue's lock: the counter has one writer.
        self.dropped.add(1);
        // Without this line the module does not link: see the page.
        skb.drop_with(DropReason::DeviceNotReady);
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        stats.tx_dropped(self.dropped.get());
    }
}

/// Nothing to tell `ethtool` yet.
#[vtable]
impl ethtool::Operations for Nic {}
