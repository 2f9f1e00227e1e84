// SPDX-License-Identifier: GPL-2.0

//! Control interrupt, errors and what is done about them.
//!
//! A queue that fails stays stopped, and its pair is started anew in process context; the others go on.
//! If a queue of that pair fails again soon after, or cannot be started, or is stuck, the card is reset.
//! If that does not last, the queues stay stopped until the next attempt, which comes by itself:
//! meanwhile the interface is up, without carrier. So it is with a card that does not answer.
//!
//! Interrupts of the card may get lost, and its state with them: a look now and then finds out.
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
    pci::MAX_QUEUE_PAIRS,
    queue,
    regs, //
};

use crate::{
    nic::Nic,
    probe,
    recovery::{
        self,
        Recovery, //
    }, //
};

type Time = Instant<Monotonic>;

/// Work: find out whether the card still answers and is as it was left. An attempt to bring it back
/// is part of this.
pub(crate) const WORK_CHECK: usize = 1 << 0;
/// Work: reset the card and start the queues anew.
pub(crate) const WORK_RESET: usize = 1 << 1;

/// Work: start the pairs anew of which a queue has failed.
pub(crate) const WORK_RESTART: usize = 1 << 2;

/// Ticks from one check to the next. A check reads six registers, and two of each pair.
pub(crate) const TICKS_PER_CHECK: u32 = 4;

/// Checks after which a transmit queue that has done nothing is stuck: a little later than the stack
/// says so of one that it may not send to.
const STUCK_CHECKS: u32 = 7;

/// What `STATUS` shows while the card is in service.
const IN_SERVICE: u32 = regs::STATUS_READY | regs::STATUS_FEATURES_OK;

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
    /// When the driver reset the card because something failed.
    recovery: Recovery,
    /// When it tried to be as without an XDP program that has gone.
    pub(crate) leaving: Recovery,
    /// When it last started each pair anew.
    restarts: [Option<Time>; MAX_QUEUE_PAIRS as usize],
    /// Messages about the link since this time.
    link_messages: Option<(Time, u32)>,
}

impl Control {
    /// What the card says of a queue's failure is old, until [`Self::forget_error`].
    pub(crate) fn ignore_error(&mut self, index: u16) {
        self.reported |= bit(index);
    }

    /// The card has forgotten the failure of a queue, as that was started.
    pub(crate) fn forget_error(&mut self, index: u16) {
        self.reported &= !bit(index);
    }

    /// True if a pair may be started anew: not if that was done so lately that it does not help.
    fn may_restart(&mut self, pair: u16) -> bool {
        let now = Time::now();
        match self.restarts.get_mut(usize::from(pair)) {
            Some(Some(last)) if now - *last < recovery::STABLE => false,
            Some(last) => {
                *last = Some(now);
                true
            }
            None => false,
        }
    }

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

/// The bit of a queue.
fn bit(index: u16) -> u32 {
    1u32.checked_shl(index.into()).unwrap_or(0)
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
        if cause != 0 {
            // Cleared before the state is read: what changes later raises the interrupt again.
            self.regs.write(regs::EVENT_CAUSE, cause & regs::EVENT_MASK);
            if self.wants(netdev::MSG_INTR) {
                netdev::debug!(dev, "control interrupt, cause {cause:#x}\n");
            }
        }
        self.refresh_link(dev, &mut control);
        // Whatever the cause is: a failure that was misread raises no other event.
        self.report_errors(dev, &mut control);
        // A reset loses all that is in the rings: so two registers have to say it.
        if cause & regs::EVENT_FAILED != 0 && !self.is_set_up() {
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
        let link = self.regs.read(regs::LINK);
        if link == u32::MAX && !self.regs.alive() {
            self.card_gone(dev);
            return;
        }
        if link == u32::MAX || link != self.regs.read(regs::LINK) {
            // Chance, or it is changing: the next check tells.
            return;
        }
        self.link_speed
            .store(self.regs.read(regs::LINK_SPEED), Relaxed);
        let was = self.link.xchg(link, Relaxed);
        let up = link & regs::LINK_UP != 0;
        if up != (was & regs::LINK_UP != 0) {
            self.counters.link_changes.add(1);
            if control.may_tell_link() {
                netdev::info!(dev, "link {}\n", if up { "up" } else { "down" });
            }
        }
        dev.set_carrier(up && self.runs());
        if !self.present() {
            // Found out meanwhile, by someone else.
            dev.set_carrier(false);
        }
    }

    /// Says which queues the card stopped, and why; and has the stack hold them. A restart loses what is in
    /// the rings of a pair: so two registers have to say it. If only one does, the next check tells.
    fn report_errors(&self, dev: &NetDevice<Self>, control: &mut Control) {
        let errors = self.regs.read(regs::QUEUE_ERRORS) & !control.reported;
        for pair in 0..self.max_pairs {
            let tx_index = queue::tx_index(pair);
            for index in [queue::rx_index(pair), tx_index] {
                if errors & bit(index) == 0 {
                    continue;
                }
                let status = self.regs.read_queue(index, regs::Q_STATUS);
                if status == u32::MAX || status & regs::Q_STATUS_ERROR == 0 {
                    continue;
                }
                control.ignore_error(index);
                self.counters.queue_errors.add(1);
                self.report_queue(dev, index, status);
                if index == tx_index {
                    dev.with_tx(pair, |queue, tx| tx.fail(queue, None));
                }
                self.schedule_restart(dev, index);
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

    /// Says what rule of the ring the card broke, and has the pair started anew. The caller stopped the
    /// queue.
    pub(crate) fn queue_broken(&self, dev: &NetDevice<Self>, index: u16, why: fmt::Arguments<'_>) {
        netdev::err!(dev, "card broke queue {index}: {why}\n");
        self.schedule_restart(dev, index);
    }

    /// Has the pair of a queue started anew.
    fn schedule_restart(&self, dev: &NetDevice<Self>, index: u16) {
        if let Some(broken) = self.broken.get(usize::from(index / 2)) {
            broken.store(true, Relaxed);
        }
        dev.schedule_work(WORK_RESTART);
    }

    /// A transmit queue makes no progress.
    pub(crate) fn tx_stuck(&self, dev: &NetDevice<Self>, queue: u16) {
        self.counters.tx_timeouts.add(1);
        netdev::err!(dev, "transmit queue {queue} is stuck\n");
        dev.schedule_work(WORK_RESET);
    }

    /// The card does not answer: nothing is expected of it until it does. Said once.
    pub(crate) fn card_gone(&self, dev: &NetDevice<Self>) {
        if !self.gone.xchg(true, Full) {
            netdev::err!(dev, "card does not answer\n");
            self.counters.lost_cards.add(1);
            dev.set_carrier(false);
            dev.stop_tx();
        }
    }

    /// Deferred work.
    pub(crate) fn handle_work(&self, dev: &Locked<'_, Self>, events: usize) {
        // A reset answers all that was asked for before.
        if events & WORK_CHECK != 0 && self.check(dev) || !self.runs() {
            return;
        }
        if self.starved.xchg(false, Full) {
            dev.schedule_all();
        }
        // When the interface is down, bringing it up sees to the card.
        if events & (WORK_RESET | WORK_RESTART) == 0 || !dev.is_running() {
            return;
        }
        if !self.regs.alive() {
            self.card_gone(dev);
        } else if events & WORK_RESET != 0 || !self.restart_broken(dev) {
            self.restart(dev);
        }
    }

    /// Starts the pairs anew of which a queue has failed. False if the card has to be reset for one.
    fn restart_broken(&self, dev: &Locked<'_, Self>) -> bool {
        for (pair, broken) in (0..).zip(&self.broken) {
            if !broken.xchg(false, Full) {
                continue;
            }
            if !self.control.lock().may_restart(pair) {
                return false;
            }
            netdev::info!(dev, "starting queue pair {pair} anew\n");
            self.counters.queue_restarts.add(1);
            if let Err(e) = self.restart_pair(dev, pair) {
                netdev::err!(dev, "cannot start queue pair {pair}: {e:?}\n");
                return false;
            }
        }
        true
    }

    /// Sees whether the card is there and as it was left, or could be brought back. True if that led to a
    /// reset, now or later.
    fn check(&self, dev: &Locked<'_, Self>) -> bool {
        if !self.runs() {
            let due =
                dev.is_running() && self.control.lock().recovery.attempt() && self.regs.alive();
            if due {
                self.bring_back(dev);
            }
            return due;
        }
        let status = self.regs.read(regs::STATUS);
        if status == u32::MAX && !self.regs.alive() {
            self.card_gone(dev);
            return false;
        }
        // Once may be chance.
        if dev.is_running() && status & IN_SERVICE != IN_SERVICE && !self.is_set_up() {
            netdev::err!(dev, "card has lost its state, status {status:#x}\n");
            self.counters.lost_states.add(1);
            self.restart(dev);
            return true;
        }
        for pair in 0..dev.active_channels() {
            if dev.with_tx(pair, |_, tx| tx.is_stuck(STUCK_CHECKS)) == Some(true) {
                self.tx_stuck(dev, pair);
            }
        }
        self.leave_program(dev);
        self.note_missed(dev.active_channels());
        // As if the card had interrupted: that may have got lost, or what was read then was wrong.
        self.handle_events(dev);
        false
    }

    /// Resets the card because something failed: now, or if that has just been tried, later.
    fn restart(&self, dev: &Locked<'_, Self>) {
        if self.control.lock().recovery.attempt() {
            self.bring_back(dev);
        } else {
            self.stop_queues(dev);
            self.give_up(dev, "failed again right after a reset");
        }
    }

    /// Brings the card back into service, or leaves that to a later attempt.
    fn bring_back(&self, dev: &Locked<'_, Self>) {
        netdev::info!(dev, "resetting the card\n");
        self.counters.resets.add(1);
        dev.detach();
        self.stop_queues(dev);
        if self.set_up(dev).is_ok() && self.start_queues(dev).is_ok() {
            self.update_link(dev);
        } else {
            self.control.lock().recovery.failed();
            self.give_up(dev, "card cannot be started again");
        }
        self.reattach(dev);
    }

    /// Puts the device back into service.
    pub(crate) fn reattach(&self, dev: &Locked<'_, Self>) {
        dev.attach();
        if !self.runs() {
            // Attaching let the stack send.
            dev.stop_tx();
        }
    }

    /// Leaves the interface, whose queues are stopped, without carrier until the next attempt.
    pub(crate) fn give_up(&self, dev: &Locked<'_, Self>, why: &str) {
        if self.present() {
            netdev::err!(dev, "{why}: will try again\n");
        }
        let _control = self.control.lock();
        self.given_up.store(true, Relaxed);
        dev.set_carrier(false);
    }

    /// Resets the card and agrees with it on the same features as before. What it said until now
    /// no longer counts.
    pub(crate) fn set_up(&self, dev: &Locked<'_, Self>) -> Result {
        let mut control = self.control.lock();
        if !self.present() && !self.regs.alive() {
            return Err(EIO);
        }
        self.gone.store(false, Relaxed);
        let wanted = self.identity.features;
        if probe::negotiate(self.dev, &self.regs, wanted)? != wanted {
            dev_err!(self.dev, "card offers less than before\n");
            return Err(EIO);
        }
        // A card that did not answer was cut off, and one that was reset has forgotten. Not before it was
        // reset: a card that was only deaf meanwhile has queues that would go on, in memory that is freed.
        netdev::pci::set_master(self.dev);
        self.forget_drops();
        dev.cancel_work(WORK_RESET | WORK_RESTART);
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
        let status = self.regs.read(regs::STATUS);
        status & (IN_SERVICE | regs::STATUS_FAILED) == IN_SERVICE && self.runs()
    }
}
