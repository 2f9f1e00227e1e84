// SPDX-License-Identifier: GPL-2.0

//! Phase 8: the device. The timer is gone: a PCI function with registers, a ring pair in memory that it
//! reads and writes, and an interrupt. The smallest driver of the card that carries a ping.
//!
//! docs/tour/8-device.md walks through it; guest-driver/vnet/ is the same with everything else.

#![forbid(unsafe_code)]

mod card;
#[path = "../vnet/memory.rs"]
mod memory;
mod rx_queue;
mod tx_queue;

use card::Card;
use kernel::{
    device::{
        Bound,
        Core, //
    },
    pci,
    prelude::*, //
};
use netdev::{
    prelude::*,
    Vectors, //
};
use rx_queue::Rx;
use tx_queue::Tx;
use vnet_contract::{
    pci::DEVICE_ID,
    queue, //
};
use vnet_ring::Slot;

netdev::pci_device_table!(
    PCI_TABLE,
    (),
    [(
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, DEVICE_ID as u32),
        ()
    )]
);

kernel::module_driver!(<T>, netdev::pci::Adapter<T>, {
    type: Phase8,
    name: "vnet_phase8",
    authors: ["The vnet authors"],
    description: "vnet tour, phase 8: the device",
    license: "GPL",
});

struct Phase8;

impl netdev::pci::Driver for Phase8 {
    type Nic<'bound> = Nic<'bound>;

    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn probe<'bound>(dev: &'bound pci::Device<Core<'_>>) -> Result<Config<'bound, Nic<'bound>>> {
        let nic = Nic {
            dev,
            card: Card::new(dev)?,
            rx_packets: Counter::new(),
            rx_bytes: Counter::new(),
            rx_dropped: Counter::new(),
            tx_packets: Counter::new(),
            tx_bytes: Counter::new(),
            tx_dropped: Counter::new(),
        };
        let mac = nic.card.mac();
        Ok(Config {
            vectors: Some(Vectors::new(dev, 1, 1)?),
            mac,
            ..Config::new(nic, c"vnet%d")
        })
    }
}

/// The data of the device.
struct Nic<'a> {
    dev: &'a pci::Device<Bound>,
    card: Card<'a>,
    rx_packets: Counter,
    rx_bytes: Counter,
    rx_dropped: Counter,
    tx_packets: Counter,
    tx_bytes: Counter,
    tx_dropped: Counter,
}

/// The two queues of the first pair.
const RX: u16 = queue::rx_index(0);
const TX: u16 = queue::tx_index(0);

/// Descriptors of a ring: as few as the card takes.
const SIZE: u16 = queue::MIN_SIZE;

/// What the driver remembers of each descriptor: nothing yet.
fn slots<B, T>() -> Result<KVec<Slot<B, T>>> {
    let mut slots = KVec::with_capacity(SIZE.into(), GFP_KERNEL)?;
    for _ in 0..SIZE {
        slots.push(Slot::new(), GFP_KERNEL)?;
    }
    Ok(slots)
}

#[vtable]
impl Operations for Nic<'_> {
    type Tx = Tx;
    type Rx = Rx;

    /// Data sheet, 20.2: rings, buffers, start. Before that what [`Self::stop`] may have had to do is undone.
    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        self.card.reset()?;
        netdev::pci::set_master(self.dev);
        let tx = Tx::new(self.dev.as_ref())?;
        let mut rx = Rx::new(self.dev.as_ref())?;
        rx.fill(dev)?;
        self.card.program::<RX>(rx.memory());
        self.card.program::<TX>(tx.memory());
        let posted = rx.publish().unwrap_or(0);
        dev.start_channel(0, tx, rx)?;
        self.card.set_filter(dev.mtu(), dev.mac());
        if !self.card.start::<RX>() || !self.card.start::<TX>() {
            netdev::err!(dev, "a queue does not start\n");
            self.stop(dev);
            return Err(EIO);
        }
        self.card.ring_doorbell::<RX>(posted);
        dev.set_carrier(true);
        dev.start_tx();
        Ok(())
    }

    /// Data sheet, 20.5. The channel is stopped after this, and its memory freed.
    fn stop(&self, dev: &Locked<'_, Self>) {
        dev.stop_tx();
        dev.set_carrier(false);
        let ends = [self.card.end::<RX>(), self.card.end::<TX>()];
        if ends.contains(&false) {
            netdev::err!(dev, "a queue does not stop\n");
            // So it is kept from memory, all of it.
            netdev::pci::clear_master(self.dev);
        }
    }

    fn start_xmit(
        &self,
        _dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Tx,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        tx.send(self, queue, skb, meta);
    }

    /// The interrupt has done no more than to ask for this.
    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        rx: &mut Rx,
        budget: u32,
    ) -> Polled {
        if let Some(mut guard) = napi.lock_tx() {
            let (queue, tx) = guard.split();
            tx.reclaim(dev, queue);
        }
        match rx.receive(self, napi, budget) {
            done if done < budget => Polled::Idle(done),
            done => Polled::Again(done),
        }
    }

    fn arm(&self, channel: &Arming<'_, Self>, rx: &mut Rx) -> bool {
        rx.enable_interrupts()
            && channel
                .lock_tx()
                .is_none_or(|mut tx| tx.enable_interrupts())
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        stats.rx_packets(self.rx_packets.get());
        stats.rx_bytes(self.rx_bytes.get());
        stats.rx_dropped(self.rx_dropped.get());
        stats.tx_packets(self.tx_packets.get());
        stats.tx_bytes(self.tx_bytes.get());
        stats.tx_dropped(self.tx_dropped.get());
    }
}

#[vtable]
impl ethtool::Operations for Nic<'_> {}

/// Neither sleep nor reset, for now.
#[vtable]
impl netdev::pci::Power for Nic<'_> {}
