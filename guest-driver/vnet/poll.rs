// SPDX-License-Identifier: GPL-2.0

//! The NAPI poll of a channel: completed transmissions first, then received frames.
//!
//! While a channel is polled, the card is asked for no interrupts, by way of the rings. When the
//! core has taken the end of a poll for good, the card is asked for them again, and the rings are
//! looked at once more: so either the driver sees the card's last buffer, or the card sees that an
//! interrupt is wanted. As long as the core polls by itself, in a process that polls busily or by
//! a timer, there are none.

use kernel::sync::atomic::Relaxed;
use netdev::{
    trace,
    Arming,
    Napi,
    NetDevice,
    Polled, //
};

use crate::{
    nic::Nic,
    rx::Rx, //
};

pub(crate) fn poll<'a>(
    nic: &Nic<'a>,
    dev: &NetDevice<Nic<'a>>,
    napi: &Napi<'_, Nic<'a>>,
    rx: &mut Rx,
    budget: u32,
) -> Polled {
    if nic.waits(dev, napi, rx) {
        return Polled::Waits;
    }
    rx.watch.poll(dev.interrupts(napi.index()));
    rx.stats().queue.polls.add(1);

    if let Some(mut guard) = napi.lock_tx() {
        let (queue, tx) = guard.split();
        tx.disable_interrupts();
        if let Err(violation) = tx.reclaim(dev, queue, Some(napi)) {
            if tx.fail(queue, Some(violation)) {
                nic.queue_broken(dev, tx.index(), format_args!("{violation}"));
            }
        }
    }

    rx.disable_interrupts();
    let mut done = 0;
    if let Err(failure) = rx.receive(napi, budget, &mut done) {
        if rx.fail(&failure) {
            nic.queue_broken(dev, rx.index, format_args!("{failure}"));
        }
    }
    if let Some(avail) = rx.refill(napi, rx.starved()) {
        trace::doorbell(dev, rx.index, avail);
        if nic.wants(netdev::MSG_RX_STATUS) {
            netdev::debug!(dev, "doorbell of queue {}: {avail}\n", rx.index);
        }
        rx.stats().queue.doorbells.add(1);
        nic.regs.ring_doorbell(rx.index, avail);
    }
    if nic.wants(netdev::MSG_RX_STATUS) {
        netdev::debug!(dev, "polled channel {}: {done} of {budget}\n", napi.index());
    }
    if rx.starved() {
        // To try again at once would help nobody: the next check does.
        nic.starved.store(true, Relaxed);
    }
    if done >= budget {
        return Polled::Again(done);
    }
    Polled::Idle(done)
}

/// Asks the card for interrupts of both queues. False if there is something to poll for.
#[inline]
pub(crate) fn arm<'a>(channel: &Arming<'_, Nic<'a>>, rx: &mut Rx) -> bool {
    let armed = rx.enable_interrupts()
        && channel
            .lock_tx()
            .is_none_or(|mut tx| tx.enable_interrupts());
    if armed {
        rx.watch.arm();
    }
    armed
}
