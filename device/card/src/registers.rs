// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Reads and writes of single registers.

use std::sync::Arc;
use std::time::Instant;

use tracing::debug;
use vnet_backend::Link;
use vnet_contract::features::MODERATION;
use vnet_contract::queue::{size_is_valid, Error as Broken, MAX_SIZE, MIN_SIZE};
use vnet_contract::regs::{self, Access};
use vnet_irq::Vector;
use vnet_sanitizer::Rule;
use vnet_worker::{Fault, Pair, Report, RingConfig};

use crate::card::Card;
use crate::decode::{pair_of, Target};
use crate::filter::{MIN_MTU, TABLE_SIZE};
use crate::missed::MISSED_BY;
use crate::monitor::lock;
use crate::negotiation::{receive_offloads, Half};
use crate::queue::QueueRegs;
use crate::sanitize::defined;

impl Card {
    pub(crate) fn read_slot(&mut self, offset: u64) -> u32 {
        let Some(slot) = self.map.slot(offset) else {
            self.illegal(Rule::RegisterUnknown, offset, 0);
            return 0;
        };
        match slot.target {
            Target::Global { reg, index } => self.read_global(reg, index),
            Target::Queue { queue, reg } => self.read_queue(queue, reg),
            Target::Counter { queue, reg, high } => self.read_counter(queue, reg, high),
            // Write only.
            Target::Doorbell { .. } => 0,
        }
    }

    pub(crate) fn write_slot(&mut self, offset: u64, value: u32) {
        let Some(slot) = self.map.slot(offset) else {
            self.illegal(Rule::RegisterUnknown, offset, value.into());
            return;
        };
        let legal = match slot.target {
            _ if slot.access == Access::Ro => {
                self.illegal(Rule::RegisterReadOnly, offset, value.into());
                return;
            }
            Target::Doorbell { queue } => {
                self.doorbell(queue, value);
                true
            }
            Target::Global { reg, index } => {
                self.changed = true;
                let legal = self.write_global(reg, index, value);
                if legal {
                    self.check_reserved(defined(reg), offset, value);
                }
                legal
            }
            Target::Queue { queue, reg } => {
                if reg == regs::Q_CTRL {
                    self.check_reserved(regs::Q_CTRL_ENABLE, offset, value);
                }
                self.changed = true;
                self.write_queue(queue, reg, value)
            }
            Target::Counter { .. } => false,
        };
        if !legal {
            self.illegal(Rule::RegisterValue, offset, value.into());
        }
    }

    fn read_global(&self, reg: u32, index: usize) -> u32 {
        let link = self.events.link();
        match reg {
            regs::ID => regs::ID_VALUE,
            regs::VERSION => regs::VERSION_VALUE,
            regs::STATUS => self.status(),
            regs::DEVICE_FEATURES_LO => Half::Low.of(self.negotiation.offered()),
            regs::DEVICE_FEATURES_HI => Half::High.of(self.negotiation.offered()),
            regs::DRIVER_FEATURES_LO => Half::Low.of(self.negotiation.written()),
            regs::DRIVER_FEATURES_HI => Half::High.of(self.negotiation.written()),
            regs::QUEUE_PAIRS => self.config.queue_pairs.into(),
            regs::QUEUE_SIZE_LIMITS => {
                regs::QUEUE_SIZE_MIN.put(MIN_SIZE.into())
                    | regs::QUEUE_SIZE_MAX.put(MAX_SIZE.into())
            }
            regs::VECTORS => self.vectors.count().into(),
            regs::MTU_LIMITS => {
                regs::MTU_MIN.put(MIN_MTU.into()) | regs::MTU_MAX.put(self.config.max_mtu.into())
            }
            regs::PERM_MAC_LO => regs::mac_to_regs(self.config.mac).0,
            regs::PERM_MAC_HI => regs::mac_to_regs(self.config.mac).1,
            regs::MAC_LO => self.filter.mac_lo(),
            regs::MAC_HI => self.filter.mac_hi(),
            regs::MTU => self.filter.mtu(),
            regs::RX_MODE => self.filter.mode(),
            regs::LINK => link_bits(link),
            regs::LINK_SPEED => link.speed.unwrap_or(regs::LINK_SPEED_UNKNOWN),
            regs::EVENT_CAUSE => self.events.cause(),
            regs::EVENT_ENABLE => self.events.enable(),
            regs::EVENT_VECTOR => self.events.vector(),
            regs::QUEUE_ERRORS => self.events.faulty_queues(),
            regs::ILLEGAL_ACCESSES => self.illegal,
            regs::RX_OFFLOADS => self.negotiation.receive() as u32,
            regs::MAC_FILTER_SIZE => TABLE_SIZE as u32,
            regs::MAC_FILTER_LO => self.filter.entry(index).0,
            regs::MAC_FILTER_HI => self.filter.entry(index).1,
            // CTRL reads as zero, and so does what belongs to features that are not offered.
            _ => self.rss.get(reg, index),
        }
    }

    /// Writes a register of the card as a whole; false if that is illegal.
    fn write_global(&mut self, reg: u32, index: usize, value: u32) -> bool {
        match reg {
            regs::CTRL => self.control(value),
            regs::DRIVER_FEATURES_LO => self.negotiation.write(Half::Low, value),
            regs::DRIVER_FEATURES_HI => self.negotiation.write(Half::High, value),
            regs::MAC_LO => {
                self.filter.set_mac_lo(value);
                true
            }
            regs::MAC_HI => self.filter.set_mac_hi(value) && self.filter_changed(),
            regs::MTU => self.filter.set_mtu(value) && self.filter_changed(),
            regs::RX_MODE => {
                self.filter.set_mode(value);
                self.filter_changed()
            }
            regs::RX_OFFLOADS => self.negotiation.set_receive(value) && self.offloads_changed(),
            regs::MAC_FILTER_LO => {
                self.filter.set_entry_lo(index, value);
                true
            }
            regs::MAC_FILTER_HI => {
                self.filter.set_entry_hi(index, value);
                self.filter_changed()
            }
            regs::EVENT_CAUSE => {
                self.events.clear_cause(value);
                true
            }
            regs::EVENT_ENABLE => {
                self.events.set_enable(value);
                true
            }
            regs::EVENT_VECTOR => {
                self.events.set_vector(value);
                true
            }
            _ => {
                let is_rss = self.rss.set(reg, index, value);
                if is_rss {
                    self.apply_rss();
                }
                is_rss
            }
        }
    }

    fn status(&self) -> u32 {
        let state = if self.events.has_failed() {
            regs::STATUS_FAILED
        } else if self.is_unsettled() {
            0
        } else {
            regs::STATUS_READY
        };
        match self.negotiation.accepted() {
            Some(_) => state | regs::STATUS_FEATURES_OK,
            None => state,
        }
    }

    /// Obeys commands; false if one is illegal now.
    fn control(&mut self, commands: u32) -> bool {
        if commands & regs::CTRL_RESET != 0 {
            self.reset_registers();
        } else if commands & regs::CTRL_COMMIT_FEATURES != 0 {
            if self.negotiation.accepted().is_some() {
                return false;
            }
            if let Some(accepted) = self.negotiation.commit() {
                debug!("driver features {accepted:#x}");
                self.offloads_changed();
                self.apply_rss();
                (0..self.queues.len() as u16).for_each(|queue| self.apply_moderation(queue));
            } else {
                self.check_commit();
            }
        }
        true
    }

    /// Tells the backend, then the workers, which offloads are in use; true, as below. When this
    /// returns, no worker delivers what is not: not even a frame that the backend already had.
    fn offloads_changed(&self) -> bool {
        self.tell_offloads(receive_offloads(self.negotiation.receive()));
        self.filter_changed()
    }

    /// Hands the filter to the workers; true, for the end of a legal write.
    fn filter_changed(&self) -> bool {
        self.apply_filter();
        true
    }

    fn read_queue(&self, queue: u16, reg: u32) -> u32 {
        let (code, info) = self.events.fault(queue);
        match reg {
            regs::Q_CTRL if self.is_running(queue) => regs::Q_CTRL_ENABLE,
            regs::Q_STATUS if self.is_running(queue) || self.is_settling(queue) => {
                regs::Q_STATUS_RUNNING
            }
            regs::Q_STATUS if code != 0 => {
                regs::Q_STATUS_ERROR | regs::Q_STATUS_CODE.put(code.into())
            }
            regs::Q_ERROR_INFO => info,
            regs::Q_INDEX => {
                let (pair, kind) = pair_of(queue);
                let live = self.pairs[pair].indices(kind).map(QueueRegs::pack_index);
                live.unwrap_or_else(|| self.queues[usize::from(queue)].get(reg))
            }
            _ => self.queues[usize::from(queue)].get(reg),
        }
    }

    /// Writes a register of a queue; false if that is illegal.
    fn write_queue(&mut self, queue: u16, reg: u32, value: u32) -> bool {
        if reg == regs::Q_CTRL {
            match (value & regs::Q_CTRL_ENABLE != 0, self.is_running(queue)) {
                // Nothing but a reset starts queues of a failed card again. That is no mistake: the driver may
                // not know yet.
                (true, false) if self.events.has_failed() => {}
                (true, false) => self.start(queue),
                (false, _) => self.settle(queue),
                (true, true) => {}
            }
        } else if reg == regs::Q_MODERATION {
            self.queues[usize::from(queue)].set(reg, value);
            self.apply_moderation(queue);
        } else if self.is_running(queue) {
            // The message may have started the queue, too, and come again.
            if self.is_again() && self.queues[usize::from(queue)].get(reg) == value {
                return true;
            }
            self.settle(queue);
            self.check_running(queue, reg);
            let fault = Fault::new(Broken::ConfigWhileRunning, reg);
            self.events.queue_failed(queue, fault);
        } else if self.is_again()
            && self.events.fault(queue) == (Broken::ConfigWhileRunning as u8, reg)
        {
            // This very message stopped it.
        } else {
            self.settle(queue);
            self.queues[usize::from(queue)].set(reg, value);
        }
        true
    }

    /// Tells the worker how long interrupts wait, if the driver knows that they may.
    pub(crate) fn apply_moderation(&self, queue: u16) {
        if self.negotiation.accepted().unwrap_or(0) & MODERATION != 0 {
            let (pair, kind) = pair_of(queue);
            let moderation = self.queues[usize::from(queue)].moderation();
            self.pairs[pair].set_moderation(kind, moderation);
        }
    }

    /// True while the worker serves the queue: it was started and has not failed since.
    pub(crate) fn is_running(&self, queue: u16) -> bool {
        self.queues[usize::from(queue)].started && self.events.fault(queue).0 == 0
    }

    /// Stops all queues if a backend failed. Done before any access is answered, so that a driver
    /// which sees the failure finds the card at rest.
    pub(crate) fn halt_if_failed(&mut self) {
        if self.events.has_failed() {
            (0..self.queues.len() as u16).for_each(|queue| self.settle(queue));
        }
    }

    /// Checks what the driver programmed and starts the queue. A refusal is an error of the
    /// queue like any other.
    fn start(&mut self, queue: u16) {
        self.settle(queue);
        self.unsettled = false;
        self.events.clear_fault(queue);
        // Written down before a frame moves: a process that takes over must not start it anew.
        let (pair, kind) = pair_of(queue);
        let ring = self.queues[usize::from(queue)].ring(0);
        self.pairs[pair].announce(kind, &ring);
        self.queues[usize::from(queue)].started = true;
        self.save();
        match self.try_start(queue) {
            Ok(()) => {
                self.queues[usize::from(queue)].started_once = true;
                if queue == MISSED_BY {
                    self.missed.start(lock(&self.endpoint).missed());
                }
                self.check_start(queue);
            }
            Err(fault) => {
                self.queues[usize::from(queue)].started = false;
                self.check_refusal(queue, fault);
                self.events.queue_failed(queue, fault);
            }
        }
    }

    fn try_start(&self, queue: u16) -> Result<(), Fault> {
        let (ring, vector) = self.programmed(queue)?;
        let (pair, kind) = pair_of(queue);
        self.watch_queue(queue, ring, vector.as_ref());
        self.pairs[pair].start(kind, ring, vector)
    }

    /// What the driver has programmed, if a queue can be started with that.
    pub(crate) fn programmed(
        &self,
        queue: u16,
    ) -> Result<(RingConfig, Option<Arc<Vector>>), Fault> {
        let programmed = &self.queues[usize::from(queue)];
        let features = self
            .negotiation
            .accepted()
            .ok_or(Fault::new(Broken::NotNegotiated, 0u16))?;
        if !size_is_valid(programmed.size) {
            return Err(Fault::new(Broken::Size, programmed.size));
        }
        let vector = match programmed.vector() {
            None => None,
            Some(wanted) => {
                let vector = u16::try_from(wanted).ok().and_then(|v| self.vectors.get(v));
                Some(vector.ok_or(Fault::new(Broken::Vector, wanted))?.clone())
            }
        };
        Ok((programmed.ring(features), vector))
    }

    /// Stops a queue, whether it runs, has failed or was never started, and keeps the indices
    /// where it stopped.
    fn settle(&mut self, queue: u16) {
        let (pair, kind) = pair_of(queue);
        let registers = &mut self.queues[usize::from(queue)];
        if !std::mem::take(&mut registers.started) {
            return;
        }
        if let Some(indices) = self.pairs[pair].stop(kind) {
            registers.set(regs::Q_INDEX, QueueRegs::pack_index(indices));
        }
        if queue == MISSED_BY {
            self.missed.stop(lock(&self.endpoint).missed());
        }
    }

    /// A doorbell of a queue that does not run is no mistake: the queue may just have failed.
    fn doorbell(&self, queue: u16, value: u32) {
        self.check_doorbell(queue, value);
        if self.queues[usize::from(queue)].started {
            let (pair, kind) = pair_of(queue);
            self.pairs[pair].doorbell_value(kind, value);
            self.pairs[pair].doorbell(kind);
        }
    }

    fn read_counter(&mut self, queue: u16, reg: u32, high: bool) -> u32 {
        let latch = &mut self.latches[usize::from(queue)][reg as usize / 8];
        if high {
            return *latch;
        }
        // Which the endpoint as a whole lost.
        let unseen = match (queue, reg) {
            (MISSED_BY, regs::S_DROPS | regs::S_MISSED) => {
                let look = || lock(&self.endpoint).missed();
                let (missed, more) = self.missed.tell(Instant::now(), look);
                self.changed |= more;
                missed
            }
            _ => 0,
        };
        let (pair, kind) = pair_of(queue);
        let pair: &Pair = &self.pairs[pair];
        let value = match reg {
            regs::S_FRAMES => pair.counters(kind).frames,
            regs::S_BYTES => pair.counters(kind).bytes,
            regs::S_DROPS => pair.counters(kind).drops + unseen,
            regs::S_MISSED => pair.counters(kind).missed + unseen,
            // Refusals to start count as well, and of those the worker knows only some.
            regs::S_ERRORS => self.events.errors(queue),
            regs::S_DOORBELLS => pair.counters(kind).doorbells,
            regs::S_INTERRUPTS => pair.counters(kind).interrupts,
            _ => 0,
        };
        let high = Half::High.of(value);
        if *latch != high {
            *latch = high;
            self.changed = true;
        }
        Half::Low.of(value)
    }
}

fn link_bits(link: Link) -> u32 {
    if link.up {
        regs::LINK_UP | regs::LINK_FULL_DUPLEX
    } else {
        0
    }
}
