// SPDX-License-Identifier: GPL-2.0

//! What a channel does when polls find no end.
//!
//! If frames come faster than they can be dealt with, the core polls on and on in softirq context:
//! for milliseconds at a time, and again as soon as the task that runs in between enables bottom
//! halves, as receiving from a socket does. The tasks that the frames are for get next to no CPU,
//! their sockets overflow, and all the work was for nothing.
//!
//! So once a few polls in a row were as long as polls may be, the channel takes turns with tasks: a
//! poll that is as long is completed, no interrupt is asked for, and a work item has the channel
//! polled again. The worker is a task like others, which the scheduler gives its share of the CPU
//! and no more; if nobody else wants to run, it goes on at once. What comes meanwhile waits in the
//! ring and behind the device, and what is too much for that is dropped there, which costs nothing.

use kernel::{
    bindings,
    container_of,
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings as b,
    channel::Channel,
    NetDevice,
    Operations, //
};

/// So many polls in a row that used all of their budget are a burst; more are an overload.
const BURST: u32 = 4;

impl<T: Operations> Channel<T> {
    /// Prepares the work. Called once, before the channel is started.
    pub(crate) fn init_turns(self: Pin<&Self>) {
        // SAFETY: the channel is pinned, and nobody uses the structure yet.
        unsafe { b::nd_work_init(self.turn.get(), Some(Self::take_turn)) }
    }

    /// Notes a poll that used less than its budget.
    ///
    /// # Safety
    ///
    /// The caller is the poll of the channel, and has the exclusive use of its state.
    #[inline]
    pub(crate) unsafe fn note_short_poll(&self) {
        // SAFETY: by the caller; only polls use this field.
        unsafe { *self.long_polls.get() = 0 }
    }

    /// Notes a poll that used all of its budget. True if the channel is to take turns with tasks.
    ///
    /// # Safety
    ///
    /// As for [`Self::note_short_poll`].
    #[inline]
    pub(crate) unsafe fn note_long_poll(&self) -> bool {
        // SAFETY: by the caller; only polls use this field.
        let polls = unsafe { &mut *self.long_polls.get() };
        *polls = polls.saturating_add(1);
        *polls > BURST
    }

    /// Has the channel, whose poll is complete, polled again when it is its turn.
    ///
    /// # Safety
    ///
    /// As for [`Self::note_short_poll`].
    pub(crate) unsafe fn queue_turn(&self) {
        self.turns.add(1);
        // SAFETY: the work is set up. By the caller `polling` is set, and `stop` waits until it is clear
        // before it waits for the work.
        unsafe { b::nd_work_schedule(self.turn.get()) }
    }

    /// Waits for the work. Process context, NAPI disabled with no poll under way.
    pub(crate) fn end_turns(&self) {
        // SAFETY: the work was set up, and nobody schedules it: only polls do, before they end.
        unsafe { bindings::cancel_work_sync(self.turn.get()) };
    }

    /// The turn of the channel.
    ///
    /// # Safety
    ///
    /// `work` is the `turn` of a channel that was added to a device.
    unsafe extern "C" fn take_turn(work: *mut bindings::work_struct) {
        // SAFETY: by the caller; the channel waits for its work before it goes.
        let channel = unsafe { &*container_of!(Opaque::cast_from(work), Self, turn) };
        // The poll may have queued the work from within the work. The worker does not preempt
        // itself for the sake of tasks that were woken meanwhile.
        // SAFETY: the task is running, and may sleep.
        unsafe { bindings::schedule() };
        // Polls as soon as bottom halves are enabled again: here.
        channel.schedule();
    }
}

impl<T: Operations> NetDevice<T> {
    /// Times that a channel left the CPU to tasks, since the device was registered.
    pub fn turns(&self, channel: u16) -> u64 {
        self.channel(channel).map_or(0, |c| c.turns.get())
    }
}
