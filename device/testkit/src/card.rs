// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card as its bus shows it: regions, DMA and interrupts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use vnet_contract::{queue, regs};

use crate::wire::{command, irq, region, NO_REPLY};
use crate::{Error, GuestRam, Result, Wire, LIMIT};

/// PCI command register.
const COMMAND: u64 = 0x04;
/// Start of the list of capabilities.
const CAPABILITIES: u64 = 0x34;
/// Id of the MSI-X capability, its control word and the bit that enables it.
const MSIX: u8 = 0x11;
const MSIX_CONTROL: u64 = 2;
const MSIX_ENABLE: u16 = 1 << 15;
/// `COMMAND`: memory space and bus master.
const MEMORY_AND_MASTER: u16 = 0x6;

/// A card at the other end of a socket.
#[derive(Debug)]
pub struct Card {
    /// The connection, for messages that have no method here.
    pub wire: Wire,
}

impl Card {
    /// Connects, negotiates, and turns memory space and bus mastering on.
    pub fn connect(path: &Path) -> Result<Self> {
        let mut wire = Wire::connect(path)?;
        wire.version()?;
        let mut card = Self { wire };
        card.set_bus_master(true)?;
        Ok(card)
    }

    /// Turns bus mastering on or off.
    pub fn set_bus_master(&mut self, on: bool) -> Result<()> {
        let value = if on { MEMORY_AND_MASTER } else { 0x2 };
        self.write(region::CONFIG, COMMAND, &value.to_le_bytes())
    }

    /// Reads from a region.
    pub fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let access = Self::access(region, offset, data.len());
        let reply = self.wire.call(command::REGION_READ, &access, &[])?;
        match reply.payload.get(16..) {
            Some(bytes) if bytes.len() == data.len() => {
                data.copy_from_slice(bytes);
                Ok(())
            }
            _ => Err(Error::Answer("REGION_READ of another length".into())),
        }
    }

    /// Writes to a region and waits until it is done.
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let message = [&Self::access(region, offset, data.len())[..], data].concat();
        self.wire
            .call(command::REGION_WRITE, &message, &[])
            .map(drop)
    }

    /// Writes to a region without waiting, as QEMU does for memory BARs.
    pub fn post(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let message = [&Self::access(region, offset, data.len())[..], data].concat();
        self.wire
            .send(command::REGION_WRITE, NO_REPLY, &message, &[])
            .map(drop)
    }

    fn access(region: u32, offset: u64, count: usize) -> [u8; 16] {
        let mut m = [0; 16];
        m[0..8].copy_from_slice(&offset.to_le_bytes());
        m[8..12].copy_from_slice(&region.to_le_bytes());
        m[12..16].copy_from_slice(&(count as u32).to_le_bytes());
        m
    }

    /// Reads a register.
    pub fn reg(&mut self, offset: u32) -> Result<u32> {
        let mut data = [0; 4];
        self.read(region::BAR0, offset.into(), &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    /// Reads a pair of registers as one value.
    pub fn reg64(&mut self, offset: u32) -> Result<u64> {
        let (low, high) = (self.reg(offset)?, self.reg(offset + 4)?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    /// Writes a register.
    pub fn set_reg(&mut self, offset: u32, value: u32) -> Result<()> {
        self.write(region::BAR0, offset.into(), &value.to_le_bytes())
    }

    /// Writes a pair of registers.
    pub fn set_reg64(&mut self, offset: u32, value: u64) -> Result<()> {
        self.set_reg(offset, value as u32)?;
        self.set_reg(offset + 4, (value >> 32) as u32)
    }

    /// Rings a doorbell.
    pub fn doorbell(&mut self, queue: u16, index: u16) -> Result<()> {
        let value = u32::from(index).to_le_bytes();
        self.post(region::BAR0, regs::doorbell_reg(queue).into(), &value)
    }

    /// Resets the card through its register.
    pub fn reset(&mut self) -> Result<()> {
        self.set_reg(regs::CTRL, regs::CTRL_RESET)?;
        if self.reg(regs::CTRL)? & regs::CTRL_RESET != 0 {
            return Err(Error::Card("reset is not done at the next read".into()));
        }
        self.settled("reset is never done", |card| {
            let status = card.reg(regs::STATUS)?;
            Ok(status & (regs::STATUS_READY | regs::STATUS_FAILED) != 0)
        })
    }

    /// Accepts a set of features.
    pub fn negotiate(&mut self, features: u64) -> Result<()> {
        self.set_reg64(regs::DRIVER_FEATURES_LO, features)?;
        self.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES)?;
        match self.reg(regs::STATUS)? & regs::STATUS_FEATURES_OK {
            0 => Err(Error::Card(format!("features {features:#x} refused"))),
            _ => Ok(()),
        }
    }

    /// Programs a queue and enables it. The queue may refuse: see [`Self::queue_error`].
    pub fn enable(&mut self, queue: u16, size: u32, rings: [u64; 3], vector: u32) -> Result<()> {
        let reg = |r| regs::queue_reg(queue, r);
        self.set_reg(reg(regs::Q_SIZE), size)?;
        self.set_reg(reg(regs::Q_VECTOR), vector)?;
        self.set_reg(reg(regs::Q_INDEX), 0)?;
        for (r, addr) in [regs::Q_DESC_LO, regs::Q_AVAIL_LO, regs::Q_USED_LO]
            .into_iter()
            .zip(rings)
        {
            self.set_reg64(reg(r), addr)?;
        }
        self.set_reg(reg(regs::Q_CTRL), regs::Q_CTRL_ENABLE)
    }

    /// Disables a queue. On return the card does not touch its rings any more.
    pub fn disable(&mut self, queue: u16) -> Result<()> {
        self.set_reg(regs::queue_reg(queue, regs::Q_CTRL), 0)?;
        self.settled("the queue never stops", |card| {
            Ok(card.status(queue)? & regs::Q_STATUS_RUNNING == 0)
        })
    }

    /// Waits for what is so at once, unless something is on its way to memory that is kept.
    fn settled(
        &mut self,
        what: &'static str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !done(self)? {
            if Instant::now() > end || !self.wire.is_kept() {
                return Err(Error::Card(what.into()));
            }
        }
        Ok(())
    }

    /// Reads `Q_STATUS`.
    pub fn status(&mut self, queue: u16) -> Result<u32> {
        self.reg(regs::queue_reg(queue, regs::Q_STATUS))
    }

    /// The error that a queue shows, if it shows one.
    pub fn queue_error(&mut self, queue: u16) -> Result<Option<queue::Error>> {
        let status = self.status(queue)?;
        let code = (status >> regs::Q_STATUS_CODE_SHIFT) as u8;
        if status & regs::Q_STATUS_ERROR == 0 {
            return match code {
                0 => Ok(None),
                _ => Err(Error::Card(format!("code {code} without an error"))),
            };
        }
        match queue::Error::from_code(code) {
            Some(error) => Ok(Some(error)),
            None => Err(Error::Card(format!("error code {code} is not defined"))),
        }
    }

    /// Waits until a queue shows an error.
    pub fn wait_queue_error(&mut self, queue: u16) -> Result<queue::Error> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(error) = self.queue_error(queue)? {
                return Ok(error);
            }
            if Instant::now() > end {
                return Err(crate::error::timeout("no queue error"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the card reach all of `ram`.
    pub fn map(&mut self, ram: &GuestRam) -> Result<()> {
        self.map_range(ram, 0, ram.base(), ram.size(), true)
    }

    /// Lets the card reach all of `ram`, but only by asking for it.
    pub fn keep(&mut self, ram: &Arc<GuestRam>) -> Result<()> {
        self.wire.keep(ram)?;
        let message = Self::map_message(3, 0, ram.base(), ram.size());
        self.wire.call(command::DMA_MAP, &message, &[]).map(drop)
    }

    /// Lets the card reach `size` bytes of `ram` from `offset`, at a bus address.
    pub fn map_range(
        &mut self,
        ram: &GuestRam,
        offset: u64,
        addr: u64,
        size: u64,
        writable: bool,
    ) -> Result<()> {
        let flags = if writable { 3 } else { 1 };
        let message = Self::map_message(flags, offset, addr, size);
        self.wire
            .call(command::DMA_MAP, &message, &[ram.fd()])
            .map(drop)
    }

    /// The payload of a `DMA_MAP`.
    pub fn map_message(flags: u32, offset: u64, addr: u64, size: u64) -> [u8; 32] {
        let mut m = [0; 32];
        m[0..4].copy_from_slice(&32u32.to_le_bytes());
        m[4..8].copy_from_slice(&flags.to_le_bytes());
        m[8..16].copy_from_slice(&offset.to_le_bytes());
        m[16..24].copy_from_slice(&addr.to_le_bytes());
        m[24..32].copy_from_slice(&size.to_le_bytes());
        m
    }

    /// Takes a range of bus addresses away.
    pub fn unmap(&mut self, addr: u64, size: u64) -> Result<()> {
        let mut m = [0; 24];
        m[0..4].copy_from_slice(&24u32.to_le_bytes());
        m[8..16].copy_from_slice(&addr.to_le_bytes());
        m[16..24].copy_from_slice(&size.to_le_bytes());
        self.wire.call(command::DMA_UNMAP, &m, &[]).map(drop)
    }

    /// Enables MSI-X and attaches an eventfd to each of the first `count` vectors, in the steps
    /// that QEMU takes.
    pub fn vectors(&mut self, count: u32) -> Result<Vec<Vector>> {
        let at = self.capability(MSIX)? + MSIX_CONTROL;
        self.write(region::CONFIG, at, &MSIX_ENABLE.to_le_bytes())?;
        let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
        self.set_irqs(irq::MSIX, trigger, 0, 1, None)?;
        (0..count)
            .map(|n| {
                let vector = Vector::new()?;
                self.set_irqs(irq::MSIX, trigger, n, 1, Some(&vector.0))?;
                Ok(vector)
            })
            .collect()
    }

    /// Where in config space a capability is.
    fn capability(&mut self, id: u8) -> Result<u64> {
        let mut at = [0; 1];
        self.read(region::CONFIG, CAPABILITIES, &mut at)?;
        // As many as there is room for.
        for _ in 0..48 {
            let mut head = [0; 2];
            self.read(region::CONFIG, at[0].into(), &mut head)?;
            if head[0] == id {
                return Ok(at[0].into());
            }
            at[0] = head[1];
        }
        Err(Error::Card(format!("no capability {id:#x}")))
    }

    /// Sends a `SET_IRQS`.
    pub fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fd: Option<&OwnedFd>,
    ) -> Result<()> {
        let mut m = [0; 20];
        for (at, value) in [20, flags, index, start, count].into_iter().enumerate() {
            m[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let fds: Vec<_> = fd.into_iter().map(|f| f.as_fd()).collect();
        self.wire.call(command::SET_IRQS, &m, &fds).map(drop)
    }
}

/// The receiving end of an interrupt.
#[derive(Debug)]
pub struct Vector(OwnedFd);

impl Vector {
    fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Takes the interrupts that came since the last call, without waiting.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Waits for an interrupt and takes it. False: none came.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let limit = Timespec {
            tv_sec: limit.as_secs() as _,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&limit))?;
        Ok(self.take() != 0)
    }
}
