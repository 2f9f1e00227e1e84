// SPDX-License-Identifier: GPL-2.0

//! A timer of high resolution, in place of the interrupt of a device that has no hardware.
//!
//! Like that, it expires in hard interrupt context, but in a thread on a kernel where handlers of
//! interrupts are threads (`PREEMPT_RT`): so locks that a handler may take may be taken here.
//!
//! C header: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h)

use kernel::{
    bindings, container_of,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

use crate::{
    bindings as b,
    series,
    NetDevice,
    Operations, //
};

/// A timer of a device, running or not.
///
/// # Invariants
///
/// `timer` is set up for [`Self::expire`], and only runs while `dev` is valid and `period` is more than
/// nothing.
pub(crate) struct Timer {
    timer: Opaque<bindings::hrtimer>,
    dev: *mut b::net_device,
    /// Nanoseconds.
    period: Atomic<i64>,
}

// SAFETY: timers may be started and stopped from any task.
unsafe impl Send for Timer {}
// SAFETY: as above; the other fields are immutable or atomic.
unsafe impl Sync for Timer {}

impl Timer {
    /// A timer that does not run yet, for a device that is made for `T`.
    ///
    /// # Safety
    ///
    /// Before `dev` is freed or its private data dropped, [`Self::stop`] is called after the last
    /// [`Self::start`].
    pub(crate) unsafe fn new<T: Operations>(dev: *mut b::net_device) -> Result<Pin<KBox<Self>>> {
        // Made when there is memory for it: without, it would be dropped, and stopped, before it is set up.
        let this: Pin<KBox<Self>> = KBox::new_uninit(GFP_KERNEL)?
            .write(Self {
                timer: Opaque::zeroed(),
                dev,
                period: Atomic::new(0),
            })
            .into();
        // SAFETY: the timer is pinned, and known to nobody.
        unsafe {
            bindings::hrtimer_setup(
                this.timer.get(),
                Some(Self::expire::<T>),
                bindings::CLOCK_MONOTONIC as bindings::clockid_t,
                bindings::hrtimer_mode_HRTIMER_MODE_REL,
            )
        };
        Ok(this)
    }

    /// Has the timer expire every `period`, which is more than nothing.
    pub(crate) fn start(&self, period: Delta) {
        self.period.store(period.as_nanos(), Relaxed);
        // SAFETY: the timer is set up.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.timer.get(),
                period.as_nanos(),
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_REL,
            )
        }
    }

    /// Stops the timer. On return its callback does not run. May sleep.
    pub(crate) fn stop(&self) {
        // SAFETY: the timer is set up, and its callback takes no lock that a caller holds.
        unsafe { bindings::hrtimer_cancel(self.timer.get()) };
    }

    /// The callback of the timer.
    ///
    /// # Safety
    ///
    /// `timer` is in a timer of a device that was registered for `T`, and has expired.
    unsafe extern "C" fn expire<T: Operations>(
        timer: *mut bindings::hrtimer,
    ) -> bindings::hrtimer_restart {
        if !T::HAS_TIMER {
            return series::HRTIMER_NORESTART;
        }
        // SAFETY: only timers in a `Timer` have this callback, and while it runs the timer and its
        // device are valid, as `stop` waits for it.
        let (this, dev) = unsafe {
            let this = &*container_of!(Opaque::cast_from(timer), Self, timer);
            (this, NetDevice::<T>::from_raw(this.dev))
        };
        let interrupt = Interrupt {
            dev,
            _task: NotThreadSafe,
        };
        dev.ops().timer(dev, &interrupt);
        // From when it was due, so that it keeps its rate.
        // SAFETY: this is the callback of the timer, whose period is more than nothing.
        unsafe {
            bindings::hrtimer_forward(timer, bindings::ktime_get(), this.period.load(Relaxed))
        };
        series::HRTIMER_RESTART
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An interrupt that is being handled: interrupts are off, and nothing may sleep.
///
/// # Invariants
///
/// The current context is a hard interrupt, or with `PREEMPT_RT` what stands for one, for the lifetime.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase7_arp.rs
/// fn timer(&self, _dev: &NetDevice<Self>, interrupt: &Interrupt<'_, Self>) {
///     if self.receives(&PEER.asks_for(ASKED)) {
///         interrupt.schedule_poll(0);
///     }
/// }
/// ```
pub struct Interrupt<'a, T: Operations> {
    dev: &'a NetDevice<T>,
    _task: NotThreadSafe,
}

impl<T: Operations> Interrupt<'_, T> {
    /// Has the poll of a channel called, when this interrupt is over.
    pub fn schedule_poll(&self, channel: u16) {
        if let Some(channel) = self.dev.channel(channel) {
            // SAFETY: interrupts are off while `self` exists, or handlers are threads; the channels of a
            // device that was registered are added.
            unsafe { channel.raise() };
        }
    }
}
