// SPDX-License-Identifier: GPL-2.0

//! Control interrupt, errors and what is done about them.
//!
//! A queue that fails stays stopped, and the card is reset in process context. A card that fails
//! again soon after a reset, or cannot be started again, is given up until the interface is set
//! down and up: it stays up, without carrier. A card that does not answer is given up for good.
//!
//! How much is said does not depend on the card: each queue's failure once per start, and changes of
//! the link so many at a time. Counters count the rest.

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

/// So many messages about the link are printed in this time.
const LINK_MESSAGES: u32 = 10;
const LINK_INTERVAL: Delta = Delta::from_secs(10);

/// State of those who handle events: the thread of the control interrupt, and who holds the RTNL
/// lock.
#[derive(Default)]
pub(crate) struct Control {
    /// Queues whose failure was reported, one bit each.
    reported: u32,
    /// That the card failed was reported.
    failed: bool,
    /// When the driver last reset the card because something failed.
    last_reset: Option<Time>,
    /// Messages about the link since this time.
    link_messages: Option<(Time, u32)>,
}

impl Control {
    /// True if one more message about the link may be printed.
    fn may_tell_link(&mut self) -> bool {
        let now = Time::now();
        match &mut self.link_messages {
            Some((since, count)) if now - *since < LINK_INTERVAL => {
                *count = count.saturating_add(1);
                *count <= LINK_MESSAGES
            }
            messages => {
                *messages = Some((now, 1));
                true
            }
        }
    }
}

impl<'a> Nic<'a> {
    /// Has the card raise the control interrupt. After every reset.
    pub(crate) fn enable_events(&self) {
        self.regs
            .write(regs::EVENT_VECTOR, u32::from(self.max_pairs));
        self.regs.write(regs::EVENT_ENABLE, regs::EVENT_MASK);
    }

    /// Answers a control interrupt.
    pub(crate) fn handle_events(&self, dev: &NetDevice<Self>) {
        if !self.present() {
            return;
        }
        // Held to the end: whoever resets the card waits until what it said before is dealt with.
        let mut control = self.control.lock();
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
        self.refresh_link(dev, &mut control);
        if cause & regs::EVENT_QUEUE_ERROR != 0 {
            self.report_errors(dev, &mut control);
        }
        if cause & regs::EVENT_FAILED != 0 {
            if !core::mem::replace(&mut control.failed, true) {
                netdev::err!(dev, "card failed\n");
            }
            dev.schedule_work(WORK_RESET);
        }
    }

    pub(crate) fn update_link(&self, dev: &NetDevice<Self>) {
        self.refresh_link(dev, &mut self.control.lock());
    }

    fn refresh_link(&self, dev: &NetDevice<Self>, control: &mut Control) {
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
            if control.may_tell_link() {
                netdev::info!(dev, "link {}\n", if up { "up" } else { "down" });
            }
        }
        dev.set_carrier(up && !self.given_up.load(Relaxed));
        if !self.present() {
            // Found out meanwhile, by someone else.
            dev.set_carrier(false);
        }
    }

    /// Says which queues the card stopped, and why; and has the stack hold them.
    fn report_errors(&self, dev: &NetDevice<Self>, control: &mut Control) {
        let errors = self.regs.read(regs::QUEUE_ERRORS) & !control.reported;
        for pair in 0..self.max_pairs {
            let tx_index = queue::tx_index(pair);
            for index in [queue::rx_index(pair), tx_index] {
                let bit = 1u32.checked_shl(u32::from(index)).unwrap_or(0);
                if errors & bit == 0 {
                    continue;
                }
                control.reported |= bit;
                self.counters.queue_errors.add(1);
                let status = self.regs.read_queue(index, regs::Q_STATUS);
                self.report_queue(dev, index, status);
                if index == tx_index {
                    dev.with_tx(pair, |queue, tx| tx.fail(queue));
                }
                dev.schedule_work(WORK_RESET);
            }
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
        if self.starved.xchg(false, Full) {
            dev.schedule_all();
        }
        // When the interface is down, bringing it up sees to the card.
        if events & WORK_RESET != 0 && dev.is_running() && !self.given_up.load(Relaxed) {
            self.restart(dev);
        }
    }

    /// Resets the card because something failed.
    fn restart(&self, dev: &Locked<'_, Self>) {
        let now = Time::now();
        let last = self.control.lock().last_reset.replace(now);
        if last.is_some_and(|last| now - last < RESET_INTERVAL) {
            self.stop_queues(dev);
            self.give_up(dev, "failed again right after a reset");
            return;
        }
        netdev::info!(dev, "resetting the card\n");
        self.counters.resets.add(1);
        dev.detach();
        self.stop_queues(dev);
        if self.set_up(dev).is_ok() && self.start_queues(dev).is_ok() {
            self.update_link(dev);
        } else {
            self.give_up(dev, "card cannot be started again");
        }
        self.reattach(dev);
    }

    /// Puts the device back into service, unless the card is gone.
    pub(crate) fn reattach(&self, dev: &Locked<'_, Self>) {
        dev.attach();
        if !self.present() {
            // Attaching undid what was done about it.
            dev.set_carrier(false);
            dev.detach();
        }
    }

    /// Leaves the interface, whose queues are stopped, without carrier until it is set down and up.
    pub(crate) fn give_up(&self, dev: &Locked<'_, Self>, why: &str) {
        if self.present() {
            netdev::err!(
                dev,
                "{why}: stopped until the interface is set down and up\n"
            );
        }
        let _control = self.control.lock();
        self.given_up.store(true, Relaxed);
        dev.set_carrier(false);
    }

    /// Resets the card and agrees with it on the same features as before. What it said until now
    /// no longer counts.
    pub(crate) fn set_up(&self, dev: &Locked<'_, Self>) -> Result {
        let mut control = self.control.lock();
        let wanted = self.identity.features;
        if probe::negotiate(self.dev, &self.regs, wanted)? != wanted {
            dev_err!(self.dev, "card offers less than before\n");
            return Err(EIO);
        }
        dev.cancel_work(WORK_RESET);
        (control.reported, control.failed) = (0, false);
        self.given_up.store(false, Relaxed);
        self.enable_events();
        Ok(())
    }

    /// True unless the queues of an interface that is up were stopped because of a failure.
    pub(crate) fn runs(&self) -> bool {
        self.present() && !self.given_up.load(Relaxed)
    }

    /// True if the card is set up and has not failed.
    pub(crate) fn is_set_up(&self) -> bool {
        const READY: u32 = regs::STATUS_READY | regs::STATUS_FEATURES_OK;
        let status = self.regs.read(regs::STATUS);
        status & (READY | regs::STATUS_FAILED) == READY && !self.given_up.load(Relaxed)
    }
}
