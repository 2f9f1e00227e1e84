// SPDX-License-Identifier: GPL-2.0

//! The transmit queue of phase 8. The ring's protocol is `vnet_ring`'s, which the full driver uses too; here
//! every frame is copied, so that it takes one descriptor and no skb waits for the card.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};
use netdev::{
    dma::{
        Segment,
        SharedMemory, //
    },
    prelude::*, //
};
use vnet_contract::hdr;
use vnet_ring::{
    tx,
    Buffer,
    Slot,
    Tables, //
};

use crate::{
    memory::RingMemory,
    slots,
    Nic,
    SIZE,
    TX, //
};

/// Bytes for a frame to send, with its header.
const STRIDE: usize = 2048;
/// The shortest and the longest frame that is sent.
const SHORTEST: usize = 14;
const LONGEST: usize = STRIDE - hdr::SIZE;

/// A part of the memory for frames to send.
struct Part(Segment<'static>);

impl Buffer for Part {
    fn addr(&self) -> u64 {
        self.0.addr()
    }

    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// The transmit ring, and a place for each of its frames.
pub(crate) struct Tx {
    ring: tx::Ring<RingMemory, KVec<Slot<Part, ()>>>,
    frames: SharedMemory,
}

impl Tx {
    pub(crate) fn new(dev: &Device<Bound>) -> Result<Self> {
        let memory = RingMemory::new(dev, SIZE, Tables::NONE)?;
        Ok(Self {
            ring: tx::Ring::new(memory, slots()?).map_err(|_| EINVAL)?,
            frames: SharedMemory::new(dev, usize::from(SIZE) * STRIDE)?,
        })
    }

    pub(crate) fn memory(&self) -> &RingMemory {
        self.ring.memory()
    }

    /// Copies a frame to its place, and shows it to the card.
    pub(crate) fn send(&mut self, nic: &Nic<'_>, queue: &TxQueue<'_>, skb: SkBuff, meta: &TxMeta) {
        match self.put(&skb, meta.len() as usize) {
            Ok(()) => {
                nic.tx_packets.add(1);
                nic.tx_bytes.add(meta.len().into());
                // The copy is on its way, so this is no longer needed.
                skb.consume::<Nic<'_>>(None);
            }
            Err(reason) => {
                nic.tx_dropped.add(1);
                skb.drop_with(reason);
            }
        }
        if let Some(avail) = self.ring.publish() {
            nic.card.ring_doorbell::<TX>(avail);
        }
        if !self.ring.has_room(1) {
            queue.stop();
        }
    }

    /// Puts a copy of a frame of so many bytes into the ring.
    fn put(&mut self, skb: &SkBuff, len: usize) -> Result<(), DropReason> {
        match len {
            ..SHORTEST => return Err(DropReason::TooSmall),
            SHORTEST..=LONGEST => {}
            _ => return Err(DropReason::TooBig),
        }
        let mut chain = self.ring.begin(1).ok_or(DropReason::RingFull)?;
        let at = usize::from(chain.head()) * STRIDE;
        // A header of zeroes: no checksum to complete, nothing to cut.
        let segment = skb
            .copy(&self.frames, at, &[0; hdr::SIZE])
            .ok_or(DropReason::NoMemory)?;
        let _ = chain.push(Part(segment));
        let _ = chain.commit(());
        Ok(())
    }

    /// Takes back what the card has sent.
    pub(crate) fn reclaim(&mut self, dev: &NetDevice<Nic<'_>>, queue: &TxQueue<'_>) {
        self.ring.disable_interrupts();
        let broken = self.ring.broken().is_some();
        while let Ok(Some(())) = self.ring.reclaim() {}
        match self.ring.broken() {
            Some(violation) if !broken => {
                netdev::err!(dev, "transmit queue: {}\n", format_args!("{violation}"))
            }
            // The poll may have come for a frame that was received.
            None if queue.is_stopped() && self.ring.has_room(1) => queue.wake(),
            _ => {}
        }
    }

    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.ring.enable_interrupts()
    }
}
