// SPDX-License-Identifier: GPL-2.0

//! The driver @name@: a network device without hardware, so far. It can be opened and stopped, and drops what
//! is sent.

#![forbid(unsafe_code)]

use core::fmt::{
    self,
    Write, //
};
use kernel::prelude::*;
use netdev::prelude::*;

netdev::module_software_driver! {
    type: Driver,
    name: "@name@",
    authors: ["The authors of @name@"],
    description: "@name@ network driver",
    license: "GPL",
}

struct Driver;

impl software::Driver for Driver {
    type Nic = Nic;

    /// With hardware this is `netdev::pci::Driver::probe`, which finds it, resets it and reads its address.
    fn probe() -> Result<Config<'static, Nic>> {
        Ok(Config {
            // Locally administered, and the same at every start.
            mac: [@mac@],
            ..Config::new(Nic::default(), c"@name@%d")
        })
    }
}

/// The data of the device. Callbacks run at the same time, so all of it is shared: constant, atomic, or behind
/// a lock. What a queue needs for itself is `Tx` and `Rx` below.
#[derive(Default)]
struct Nic {
    tx_dropped: Counter,
}

#[vtable]
impl Operations for Nic {
    /// State of a transmit queue, such as its ring. Whoever has it as `&mut` holds the queue's lock.
    type Tx = ();
    /// State of a receive queue. Whoever has it as `&mut` is the one poll of the channel.
    type Rx = ();

    /// Process context, RTNL held: allocate rings, start the hardware.
    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        dev.start_channel(0, (), ())?;
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    /// Process context, RTNL held: the hardware is to leave all memory alone when this returns.
    fn stop(&self, dev: &Locked<'_, Self>) {
        dev.stop_tx();
        dev.set_carrier(false);
    }

    /// Bottom halves off, the queue's lock held. The frame is the driver's, and has to end as sent or as
    /// dropped with a reason; a path on which it does neither does not link.
    fn start_xmit(
        &self,
        _dev: &NetDevice<Self>,
        _queue: &TxQueue<'_>,
        _tx: &mut (),
        skb: SkBuff,
        _meta: &TxMeta,
    ) {
        self.tx_dropped.add(1);
        skb.drop_with(DropReason::DeviceNotReady);
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        stats.tx_dropped(self.tx_dropped.get());
    }
}

#[vtable]
impl ethtool::Operations for Nic {
    fn firmware_version(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_str("none")
    }
}
