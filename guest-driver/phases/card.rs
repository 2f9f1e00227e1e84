// SPDX-License-Identifier: GPL-2.0

//! The registers of phase 8's card: how it is found and reset, and how its queues are started and stopped.
//! The sections are the data sheet's.

use kernel::{
    device::Core,
    io::Io,
    pci,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use vnet_contract::{
    pci::{
        BAR_REGS,
        BAR_REGS_SIZE, //
    },
    regs, //
};
use vnet_ring::Memory;

use crate::memory::RingMemory;

/// How often, and how far apart, the card is asked whether it has come to rest.
const LOOKS: usize = 1000;
const NEXT_LOOK: Delta = Delta::from_millis(1);

/// The card, which is reset when the driver lets go of it.
pub(crate) struct Card<'a>(pci::Bar<'a, { BAR_REGS_SIZE as usize }>);

impl<'a> Card<'a> {
    /// 20.1, to begin with: who are you?
    pub(crate) fn new(dev: &'a pci::Device<Core<'_>>) -> Result<Self> {
        let card = Self(dev.iomap_region_sized(BAR_REGS, c"vnet_phase8")?);
        if card.read(regs::ID) != regs::ID_VALUE
            || card.read(regs::VERSION) >> 16 != regs::VERSION_VALUE >> 16
        {
            dev_err!(dev, "not a card that this driver knows\n");
            return Err(ENODEV);
        }
        card.reset()?;
        Ok(card)
    }

    /// The rest of 20.1: reset, which ends whatever the card is doing, and features (none).
    pub(crate) fn reset(&self) -> Result {
        self.write(regs::CTRL, regs::CTRL_RESET);
        if !self.comes_to(regs::STATUS, |status| status & regs::STATUS_READY != 0) {
            return Err(EIO);
        }
        self.write(regs::DRIVER_FEATURES_LO, 0);
        self.write(regs::DRIVER_FEATURES_HI, 0);
        self.write(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
        if self.read(regs::STATUS) & regs::STATUS_FEATURES_OK == 0 {
            return Err(EIO);
        }
        Ok(())
    }

    /// Waits until the card leaves memory alone, which a register shows: at once where the card maps that,
    /// else when the last message about it is answered. False if that does not come to pass.
    #[inline(always)]
    fn comes_to(&self, reg: u32, rest: impl Fn(u32) -> bool) -> bool {
        for _ in 0..LOOKS {
            match self.read(reg) {
                // It does not answer, and will not later.
                u32::MAX => return false,
                value if rest(value) => return true,
                _ => fsleep(NEXT_LOOK),
            }
        }
        false
    }

    /// Offsets are constants, which the compiler checks against the size of the BAR.
    #[inline(always)]
    pub(crate) fn read(&self, reg: u32) -> u32 {
        self.0.read32(reg as usize)
    }

    #[inline(always)]
    pub(crate) fn write(&self, reg: u32, value: u32) {
        self.0.write32(value, reg as usize);
    }

    /// The address that it was made with.
    pub(crate) fn mac(&self) -> [u8; 6] {
        regs::mac_from_regs(self.read(regs::PERM_MAC_LO), self.read(regs::PERM_MAC_HI))
    }

    /// What it is to take: frames of so many bytes, for this address and for all.
    pub(crate) fn set_filter(&self, mtu: u32, mac: [u8; 6]) {
        let (lo, hi) = regs::mac_to_regs(mac);
        self.write(regs::MTU, mtu);
        self.write(regs::MAC_LO, lo);
        self.write(regs::MAC_HI, hi);
        self.write(regs::RX_MODE, regs::RX_MODE_BROADCAST);
    }

    /// 20.2: tells it where the ring of a queue is, and which vector it has.
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

    /// Starts a queue; false if it does not like how that was programmed.
    #[inline(always)]
    pub(crate) fn start<const QUEUE: u16>(&self) -> bool {
        self.write(regs::queue_reg(QUEUE, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
        self.read(regs::queue_reg(QUEUE, regs::Q_STATUS)) == regs::Q_STATUS_RUNNING
    }

    /// 20.5: stops a queue. False if it goes on, or the card does not answer: then a read gives ones.
    #[inline(always)]
    pub(crate) fn end<const QUEUE: u16>(&self) -> bool {
        self.write(regs::queue_reg(QUEUE, regs::Q_CTRL), 0);
        self.comes_to(regs::queue_reg(QUEUE, regs::Q_STATUS), |status| {
            status & regs::Q_STATUS_RUNNING == 0
        })
    }

    #[inline(always)]
    pub(crate) fn ring_doorbell<const QUEUE: u16>(&self, avail: u16) {
        self.write(regs::doorbell_reg(QUEUE), avail.into());
    }
}

impl Drop for Card<'_> {
    fn drop(&mut self) {
        self.write(regs::CTRL, regs::CTRL_RESET);
    }
}
