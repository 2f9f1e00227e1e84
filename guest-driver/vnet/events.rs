// SPDX-License-Identifier: GPL-2.0

//! Control interrupt, errors and what is done about them.
//!
//! A queue that fails stays stopped, and the card is reset in process context. A card that fails
//! again soon after a reset is left alone: the interface stays up without traffic until it is
//! taken down. A card that does not answer is given up for good.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        Full,
        Relaxed, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};
use netdev::{
    Locked,
    NetDevice, //
};
use vnet_contract::{
    queue,
    regs, //
};

use crate::{
    nic::Nic,
    probe, //
};

pub(crate) type Time = Instant<Monotonic>;

/// Work: find out whether the card still answers.
pub(crate) const WORK_CHECK: usize = 1 << 0;
/// Work: reset the card and start the queues anew.
pub(crate) const WORK_RESET: usize = 1 << 1;

/// A failure so soon after a reset means that resetting does not help.
const RESET_INTERVAL: Delta = Delta::from_secs(5);

impl<'a> Nic<'a> {
    /// Has the card raise the control interrupt. After every reset.
    pub(crate) fn enable_events(&self) {
        self.regs.write(regs::EVENT_VECTOR, u32::from(self.pairs));
        self.regs.write(regs::EVENT_ENABLE, regs::EVENT_MASK);
    }

    /// Answers a control interrupt.
    pub(crate) fn handle_events(&self, dev: &NetDevice<Self>) {
        if !self.present() {
            return;
        }
        let cause = self.regs.read(regs::EVENT_CAUSE);
        if cause == u32::MAX && !self.regs.alive() {
            self.card_gone(dev);
            return;
        }
        // Cleared before the state is read: what changes later raises the interrupt again.
        self.regs.write(regs::EVENT_CAUSE, cause & regs::EVENT_MASK);
        if self.wants(netdev::MSG_INTR) {
            netdev::debug!(dev, "control interrupt, cause {cause:#x}\n");
        }
        self.update_link(dev);
        if cause & regs::EVENT_QUEUE_ERROR != 0 {
            self.report_errors(dev);
            dev.schedule_work(WORK_RESET);
        }
        if cause & regs::EVENT_FAILED != 0 {
            netdev::err!(dev, "card failed\n");
            dev.schedule_work(WORK_RESET);
        }
    }

    pub(crate) fn update_link(&self, dev: &NetDevice<Self>) {
        let (link, speed) = (self.regs.read(regs::LINK), self.regs.read(regs::LINK_SPEED));
        if link == u32::MAX && !self.regs.alive() {
            self.card_gone(dev);
            return;
        }
        self.link_speed.store(speed, Relaxed);
        let was = self.link.xchg(link, Relaxed);
        let up = link & regs::LINK_UP != 0;
        if up != (was & regs::LINK_UP != 0) {
            self.counters.link_changes.add(1);
            if up {
                netdev::info!(dev, "link up\n");
            } else {
                netdev::info!(dev, "link down\n");
            }
        }
        dev.set_carrier(up);
    }

    /// Says which queues the card stopped, and why.
    fn report_errors(&self, dev: &NetDevice<Self>) {
        let errors = self.regs.read(regs::QUEUE_ERRORS);
        for index in (0..2 * self.pairs).filter(|i| errors >> i & 1 != 0) {
            self.counters.queue_errors.add(1);
            let status = self.regs.read_queue(index, regs::Q_STATUS);
            self.report_queue(dev, index, status);
        }
    }

    /// Says what the card says of a queue.
    pub(crate) fn report_queue(&self, dev: &NetDevice<Self>, index: u16, status: u32) {
        let info = self.regs.read_queue(index, regs::Q_ERROR_INFO);
        let code = (status >> regs::Q_STATUS_CODE_SHIFT) as u8;
        let name = queue::Error::from_code(code).map_or("unknown error", |e| e.name());
        netdev::err!(
            dev,
            "card stopped queue {index}: {name} ({code}), {info:#x}\n"
        );
    }

    /// Says what rule of the ring the card broke, and has it reset. The caller stopped the queue.
    pub(crate) fn queue_broken(&self, dev: &NetDevice<Self>, index: u16, why: fmt::Arguments<'_>) {
        netdev::err!(dev, "card broke queue {index}: {why}\n");
        dev.schedule_work(WORK_RESET);
    }

    /// The card does not answer: nothing is expected of it any more. Said once.
    pub(crate) fn card_gone(&self, dev: &NetDevice<Self>) {
        if !self.gone.xchg(true, Full) {
            netdev::err!(dev, "card does not answer, giving it up\n");
            dev.set_carrier(false);
            dev.detach();
        }
    }

    /// Deferred work.
    pub(crate) fn handle_work(&self, dev: &Locked<'_, Self>, events: usize) {
        if !self.present() {
            return;
        }
        if events & (WORK_CHECK | WORK_RESET) != 0 && !self.regs.alive() {
            self.card_gone(dev);
            return;
        }
        if events & WORK_RESET != 0 && dev.is_running() {
            self.restart(dev);
        }
    }

    /// Resets the card because something failed.
    fn restart(&self, dev: &Locked<'_, Self>) {
        {
            let now = Time::now();
            let mut last = self.last_reset.lock();
            if last.is_some_and(|last| now - last < RESET_INTERVAL) {
                netdev::err!(dev, "failed again right after a reset: stopped\n");
                return;
            }
            *last = Some(now);
        }
        netdev::info!(dev, "resetting the card\n");
        self.counters.resets.add(1);
        dev.detach();
        self.stop_queues(dev);
        if self.set_up().is_ok() && self.start_queues(dev).is_ok() {
            self.update_link(dev);
            dev.attach();
        } else if self.present() {
            netdev::err!(dev, "card cannot be started again\n");
            dev.set_carrier(false);
        }
    }

    /// Resets the card and agrees with it on the same features as before.
    pub(crate) fn set_up(&self) -> Result {
        let wanted = self.identity.features;
        if probe::negotiate(self.dev, &self.regs, wanted)? != wanted {
            dev_err!(self.dev, "card offers less than before\n");
            return Err(EIO);
        }
        self.enable_events();
        Ok(())
    }
}
