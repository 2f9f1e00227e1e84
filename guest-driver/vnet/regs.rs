// SPDX-License-Identifier: GPL-2.0

//! Access to the registers.

use kernel::{
    device::Bound,
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

use crate::filter::MAX_FILTERS;

const _: () = assert!(BAR_REGS_SIZE.is_power_of_two(), "offsets are masked");

/// Brings an offset that is computed at run time into the BAR, where every offset is that comes
/// from a queue that exists: so the compiler knows it too.
#[inline(always)]
const fn inside(offset: u32) -> u32 {
    offset & (BAR_REGS_SIZE as u32 - 1) & !3
}

/// Time that a card which does not answer gets to think better of it.
const SECOND_LOOK: Delta = Delta::from_millis(20);

/// How often a card is asked whether it has come to rest, and with which pauses. One that reaches
/// memory itself has at the first look; one that has to ask for it needs an answer.
const LOOKS: usize = 1000;
const NEXT_LOOK: Delta = Delta::from_millis(1);

/// Distance between entries of the MAC filter table, each a pair of registers.
const MAC_FILTER_STRIDE: u32 = 8;
const _: () = assert!(
    regs::MAC_FILTER_HI == regs::MAC_FILTER_LO + 4
        && regs::MAC_FILTER_LO + MAX_FILTERS as u32 * MAC_FILTER_STRIDE <= regs::VLAN_FILTER
);

/// The registers of a card, in its first BAR.
///
/// Offsets are constants of the contract and checked against the size of the BAR at build time.
pub(crate) struct Registers<'a>(pci::Bar<'a, { BAR_REGS_SIZE as usize }>);

impl<'a> Registers<'a> {
    pub(crate) fn map(dev: &'a pci::Device<Bound>) -> Result<Self> {
        Ok(Self(dev.iomap_region_sized(BAR_REGS, c"vnet")?))
    }

    /// Reads a register of the card. All ones may mean that it is gone: see [`Self::alive`].
    #[inline(always)]
    pub(crate) fn read(&self, reg: u32) -> u32 {
        self.0.read32(reg as usize)
    }

    #[inline(always)]
    pub(crate) fn write(&self, reg: u32, value: u32) {
        self.0.write32(value, reg as usize);
    }

    /// Reads a pair of registers, low half first.
    #[inline(always)]
    pub(crate) fn read_pair(&self, lo: u32, hi: u32) -> u64 {
        let lo = self.read(lo);
        u64::from(lo) | u64::from(self.read(hi)) << 32
    }

    #[inline(always)]
    pub(crate) fn read_queue(&self, queue: u16, reg: u32) -> u32 {
        self.read(inside(regs::queue_reg(queue, reg)))
    }

    #[inline(always)]
    pub(crate) fn write_queue(&self, queue: u16, reg: u32, value: u32) {
        self.write(inside(regs::queue_reg(queue, reg)), value);
    }

    /// Writes a bus address to a pair of registers of a queue.
    #[inline(always)]
    pub(crate) fn write_queue_addr(&self, queue: u16, lo: u32, hi: u32, addr: u64) {
        self.write_queue(queue, lo, addr as u32);
        self.write_queue(queue, hi, (addr >> 32) as u32);
    }

    /// Writes an entry of the MAC filter table.
    pub(crate) fn write_mac_filter(&self, entry: u32, mac: Option<[u8; 6]>) {
        let at = entry * MAC_FILTER_STRIDE;
        let (lo, hi) = match mac {
            Some(mac) => {
                let (lo, hi) = regs::mac_to_regs(mac);
                (lo, hi | regs::MAC_FILTER_VALID)
            }
            None => (0, 0),
        };
        self.write(inside(regs::MAC_FILTER_LO + at), lo);
        self.write(inside(regs::MAC_FILTER_HI + at), hi);
    }

    /// Writes four bytes of the RSS key.
    pub(crate) fn write_rss_key(&self, word: usize, value: u32) {
        self.write(inside(regs::RSS_KEY + 4 * word as u32), value);
    }

    /// Writes four entries of the RSS table.
    pub(crate) fn write_rss_table(&self, word: usize, value: u32) {
        self.write(inside(regs::RSS_TABLE + 4 * word as u32), value);
    }

    /// Reads a counter of a queue. Reading its low half latches the high half.
    #[inline(always)]
    pub(crate) fn read_counter(&self, queue: u16, reg: u32) -> u64 {
        let at = regs::stats_reg(queue, reg);
        self.read_pair(inside(at), inside(at + 4))
    }

    /// Tells the card of new buffers in a queue.
    #[inline(always)]
    pub(crate) fn ring_doorbell(&self, queue: u16, avail: u16) {
        self.write(inside(regs::doorbell_reg(queue)), u32::from(avail));
    }

    /// False if the card does not answer: the identity reads as all ones when the card, or the
    /// process that it is, has gone. Once may be chance, so there is a second look. May sleep.
    pub(crate) fn alive(&self) -> bool {
        let looks = || self.read(regs::ID) == regs::ID_VALUE;
        looks() || {
            fsleep(SECOND_LOOK);
            looks()
        }
    }

    /// Resets the card. The reset is complete when this returns true. May sleep.
    pub(crate) fn reset(&self) -> bool {
        self.write(regs::CTRL, regs::CTRL_RESET);
        let done = |status| status & (regs::STATUS_READY | regs::STATUS_FAILED) != 0;
        self.read(regs::CTRL) & regs::CTRL_RESET == 0
            && self
                .at_rest(regs::STATUS, done)
                .is_some_and(|status| status & regs::STATUS_READY != 0)
            && self.alive()
    }

    /// Waits until a queue that was stopped has ended all access to memory. False if it does not in
    /// time, or the card does not answer, which says nothing about that. May sleep.
    pub(crate) fn queue_rests(&self, queue: u16) -> bool {
        let stopped = |status| status & regs::Q_STATUS_RUNNING == 0;
        let register = inside(regs::queue_reg(queue, regs::Q_STATUS));
        self.at_rest(register, stopped).is_some()
    }

    /// Looks at a register until it shows that the card has come to rest, and gives what it showed.
    /// All ones show nothing: the card may still be at work. And memory is freed on its word, so it has to
    /// say so twice. May sleep.
    fn at_rest(&self, register: u32, rests: impl Fn(u32) -> bool) -> Option<u32> {
        let shows = |status| status != u32::MAX && rests(status);
        for _ in 0..LOOKS {
            match self.read(register) {
                u32::MAX if !self.alive() => return None,
                status if shows(status) && shows(self.read(register)) => return Some(status),
                _ => fsleep(NEXT_LOOK),
            }
        }
        None
    }
}
