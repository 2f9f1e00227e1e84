// SPDX-License-Identifier: GPL-2.0

//! The receive queue of phase 8: pages that the card writes to. Every frame is copied, so that no page
//! changes hands.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};
use netdev::{
    prelude::*,
    PoolBuffer,
    PoolParams, //
};
use vnet_contract::hdr;
use vnet_ring::{
    rx,
    Buffer,
    Slot,
    Tables, //
};

use crate::{
    memory::RingMemory,
    slots,
    Nic,
    RX,
    SIZE, //
};

/// A page for the card to write.
struct Page(PoolBuffer);

impl Buffer for Page {
    fn addr(&self) -> u64 {
        self.0.addr()
    }

    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// The receive ring, full of pages.
pub(crate) struct Rx(rx::Ring<RingMemory, KVec<Slot<Page, ()>>>);

impl Rx {
    pub(crate) fn new(dev: &Device<Bound>) -> Result<Self> {
        let memory = RingMemory::new(dev, SIZE, Tables::NONE)?;
        Ok(Self(rx::Ring::new(memory, slots()?).map_err(|_| EINVAL)?))
    }

    pub(crate) fn memory(&self) -> &RingMemory {
        self.0.memory()
    }

    /// Posts a page for each descriptor, before the channel is started.
    pub(crate) fn fill(&mut self, dev: &Locked<'_, Nic<'_>>) -> Result {
        dev.create_pool(
            0,
            PoolParams {
                buffers: SIZE,
                order: 0,
                headroom: 0,
                tailroom: 0,
            },
        )?;
        while self.0.free() > 0 {
            let page = Page(dev.alloc_buffer(0).ok_or(ENOMEM)?);
            let _ = self.0.post(page);
        }
        Ok(())
    }

    /// Shows the card the pages that were posted; `Some` is for the doorbell.
    pub(crate) fn publish(&mut self) -> Option<u16> {
        self.0.publish()
    }

    /// Copies received frames, at most `budget`, and gives their pages back to the card.
    pub(crate) fn receive(&mut self, nic: &Nic<'_>, napi: &Napi<'_, Nic<'_>>, budget: u32) -> u32 {
        const HEADER: u32 = hdr::SIZE as u32;
        self.0.disable_interrupts();
        let broken = self.0.broken().is_some();
        let mut done = 0;
        while done < budget {
            let Ok(Some((Page(page), len))) = self.0.peek() else {
                break;
            };
            done += 1;
            page.sync_for_cpu(len);
            let frame = len.saturating_sub(HEADER);
            let skb = RxSkb::copy(napi, page, HEADER, frame);
            page.sync_for_device(len);
            self.0.repost();
            // A frame that is shorter than it may be is dropped here.
            if skb.and_then(|skb| skb.receive(napi)).is_some() {
                nic.rx_packets.add(1);
                nic.rx_bytes.add(frame.into());
            } else {
                nic.rx_dropped.add(1);
            }
        }
        if let Some(avail) = self.0.publish() {
            nic.card.ring_doorbell::<RX>(avail);
        }
        if let (Some(violation), false) = (self.0.broken(), broken) {
            netdev::err!(
                napi.device(),
                "receive queue: {}\n",
                format_args!("{violation}")
            );
        }
        done
    }

    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.0.enable_interrupts()
    }
}
