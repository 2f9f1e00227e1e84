// SPDX-License-Identifier: GPL-2.0

//! The ring pair of phase 8. The rings' protocol is `vnet_ring`'s, which the full driver uses too; here
//! every frame is copied, so that it takes one descriptor and no memory changes hands.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use netdev::{
    dma::{
        Segment,
        SharedMemory, //
    },
    prelude::*,
    PoolBuffer,
    PoolParams, //
};
use vnet_contract::{
    hdr,
    regs, //
};
use vnet_ring::{
    rx,
    tx,
    Buffer,
    Memory,
    Slot,
    Tables, //
};

use crate::{
    memory::RingMemory,
    Nic,
    RX,
    TX, //
};

/// Descriptors of a ring: as few as the card takes.
const SIZE: u16 = vnet_contract::queue::MIN_SIZE;
/// Bytes for a frame to send, with its header.
const STRIDE: usize = 2048;
/// The shortest and the longest frame that is sent.
const SHORTEST: usize = 14;
const LONGEST: usize = STRIDE - hdr::SIZE;

/// How often, and how far apart, a queue that was stopped is looked at.
const LOOKS: usize = 1000;
const NEXT_LOOK: Delta = Delta::from_millis(1);

fn slots<B, T>() -> Result<KVec<Slot<B, T>>> {
    let mut slots = KVec::with_capacity(SIZE.into(), GFP_KERNEL)?;
    for _ in 0..SIZE {
        slots.push(Slot::new(), GFP_KERNEL)?;
    }
    Ok(slots)
}

impl Nic<'_> {
    /// Tells the card where the ring of a queue is, and which vector it has.
    #[inline(always)]
    pub(crate) fn program<const QUEUE: u16>(&self, memory: &RingMemory) {
        let reg = |r| regs::queue_reg(QUEUE, r);
        self.write(reg(regs::Q_SIZE), memory.size().into());
        self.write(reg(regs::Q_VECTOR), 0);
        self.write(reg(regs::Q_INDEX), 0);
        let [desc, avail, used] = memory.addresses();
        self.write(reg(regs::Q_DESC_LO), desc as u32);
        self.write(reg(regs::Q_DESC_HI), (desc >> 32) as u32);
        self.write(reg(regs::Q_AVAIL_LO), avail as u32);
        self.write(reg(regs::Q_AVAIL_HI), (avail >> 32) as u32);
        self.write(reg(regs::Q_USED_LO), used as u32);
        self.write(reg(regs::Q_USED_HI), (used >> 32) as u32);
    }

    /// Starts a queue; false if the card does not like how it was programmed.
    #[inline(always)]
    pub(crate) fn start<const QUEUE: u16>(&self) -> bool {
        self.write(regs::queue_reg(QUEUE, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
        self.read(regs::queue_reg(QUEUE, regs::Q_STATUS)) == regs::Q_STATUS_RUNNING
    }

    /// Stops a queue, and waits until the card leaves its memory alone: at once where the card maps
    /// that, else when the last message about it is answered. False if that does not come to pass.
    #[inline(always)]
    pub(crate) fn end<const QUEUE: u16>(&self) -> bool {
        self.write(regs::queue_reg(QUEUE, regs::Q_CTRL), 0);
        (0..LOOKS).any(|_| {
            let status = self.read(regs::queue_reg(QUEUE, regs::Q_STATUS));
            // A card that is gone answers with ones.
            let rests = status == u32::MAX || status & regs::Q_STATUS_RUNNING == 0;
            if !rests {
                fsleep(NEXT_LOOK);
            }
            rests
        })
    }

    #[inline(always)]
    pub(crate) fn ring_doorbell<const QUEUE: u16>(&self, avail: u16) {
        self.write(regs::doorbell_reg(QUEUE), avail.into());
    }
}

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
            nic.ring_doorbell::<TX>(avail);
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
            None if queue.is_stopped() => queue.wake(),
            _ => {}
        }
    }

    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.ring.enable_interrupts()
    }
}

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
            nic.ring_doorbell::<RX>(avail);
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
