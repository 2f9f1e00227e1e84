// SPDX-License-Identifier: GPL-2.0

//! A timer that calls [`Operations::tick`] in equal intervals.

use kernel::{
    container_of,
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings as b,
    NetDevice,
    Operations, //
};

/// A timer of a device, running or not.
///
/// # Invariants
///
/// `timer` is set up for [`Self::expire`], and only runs while `dev` is valid.
pub(crate) struct Ticker {
    timer: Opaque<b::timer_list>,
    dev: *mut b::net_device,
    /// Interval in jiffies.
    interval: c_ulong,
}

// SAFETY: timers may be started and stopped from any task.
unsafe impl Send for Ticker {}
// SAFETY: as above; the other fields are immutable.
unsafe impl Sync for Ticker {}

impl Ticker {
    /// A timer that does not run yet, for a device that is made for `T`.
    ///
    /// # Safety
    ///
    /// Before `dev` is freed or its private data dropped, [`Self::stop`] is called after the last
    /// [`Self::start`].
    pub(crate) unsafe fn new<T: Operations>(
        dev: *mut b::net_device,
        interval: c_ulong,
    ) -> Result<Pin<KBox<Self>>> {
        // Made when there is memory for it: without, it would be dropped, and stopped, before it is set up.
        let this: Pin<KBox<Self>> = KBox::new_uninit(GFP_KERNEL)?
            .write(Self {
                timer: Opaque::zeroed(),
                dev,
                interval,
            })
            .into();
        // SAFETY: the timer is pinned, zeroed and known to nobody.
        unsafe { b::nd_timer_setup(this.timer.get(), Some(Self::expire::<T>)) };
        Ok(this)
    }

    /// Starts the timer, or has it expire one interval from now.
    pub(crate) fn start(&self) {
        // SAFETY: the timer is set up.
        unsafe { b::nd_timer_start(self.timer.get(), self.interval) }
    }

    /// Stops the timer. On return its callback does not run. May sleep.
    pub(crate) fn stop(&self) {
        // SAFETY: the timer is set up, and its callback takes no lock that a caller holds.
        unsafe { b::timer_delete_sync(self.timer.get()) };
    }

    /// The callback of the timer.
    ///
    /// # Safety
    ///
    /// `timer` is in a ticker of a device that was registered for `T`.
    unsafe extern "C" fn expire<T: Operations>(timer: *mut b::timer_list) {
        // SAFETY: only timers in a `Ticker` have this callback, and while it runs the ticker and
        // its device are valid, as `stop` waits for it.
        let (this, dev) = unsafe {
            let this = &*container_of!(Opaque::cast_from(timer), Self, timer);
            (this, NetDevice::<T>::from_raw(this.dev))
        };
        if T::HAS_TICK {
            dev.ops().tick(dev);
            this.start();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}
