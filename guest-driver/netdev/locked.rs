// SPDX-License-Identifier: GPL-2.0

//! What needs the RTNL lock.

use kernel::{
    error::to_result,
    prelude::*,
    time::Delta,
    types::NotThreadSafe, //
};

use crate::{
    bindings as b,
    cpu,
    error::ENETDOWN,
    NetDevice,
    Operations,
    PoolBuffer,
    PoolParams, //
};

/// A device under the RTNL lock, held by the current task.
///
/// # Invariants
///
/// The current task holds the RTNL lock for the lifetime `'a`.
///
/// Process context: what needs that is a method of this type.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase4_rx_ring.rs
/// fn open(&self, dev: &Locked<'_, Self>) -> Result {
///     self.rx.lock().clear();
///     dev.start_channel(0, TxRing::new(), ())?;
///     dev.start_timer(self.period)?;
///     dev.set_carrier(true);
///     dev.start_tx();
///     Ok(())
/// }
/// ```
pub struct Locked<'a, T: Operations> {
    dev: &'a NetDevice<T>,
    _task: NotThreadSafe,
}

impl<'a, T: Operations> Locked<'a, T> {
    /// # Safety
    ///
    /// The current task holds the RTNL lock for `'a`.
    pub(crate) unsafe fn new(dev: &'a NetDevice<T>) -> Self {
        Self {
            dev,
            _task: NotThreadSafe,
        }
    }

    /// Sets how many channels are in use, from the first on, and spreads the CPUs' frames over them.
    ///
    /// Channels that are no longer in use must not run, or be stopped next. May sleep.
    pub fn set_active_channels(&self, channels: u16) -> Result {
        if channels == self.active_channels() {
            return Ok(());
        }
        let n = c_uint::from(channels);
        // SAFETY: the device is registered and the RTNL lock held.
        to_result(unsafe { b::netif_set_real_num_queues(self.as_raw(), n, n) })?;
        self.spread_cpus();
        Ok(())
    }

    /// Has each CPU send by the channel whose interrupt it gets by default, if it gets one.
    pub(crate) fn spread_cpus(&self) {
        if !self.has_parent() {
            return;
        }
        for i in 0..self.active_channels() {
            // Without this the stack spreads flows by hash, so a failure does no harm.
            let _ = cpu::send_from(self, i);
        }
    }

    /// Gives a channel that does not run a page pool, in place of one that it may have. The pool
    /// goes when the channel stops, or the interface is down.
    pub fn create_pool(&self, index: u16, params: PoolParams) -> Result {
        let channel = self.channel(index).ok_or(EINVAL)?;
        // SAFETY: the RTNL lock is held.
        unsafe { channel.create_pool(self.dev, params) }
    }

    /// A buffer of the pool of a channel that does not run, mapped for the device to write. `None`
    /// also if the channel runs, or has no pool.
    ///
    /// May sleep.
    pub fn alloc_buffer(&self, index: u16) -> Option<PoolBuffer> {
        // SAFETY: the RTNL lock is held.
        unsafe { self.channel(index)?.alloc_buffer_stopped() }
    }

    /// Starts a channel: from now on its transmit state is used by
    /// [`Operations::start_xmit`] once the queue is started, and `rx` by [`Operations::poll`].
    ///
    /// Fails with the states dropped: `ENETDOWN` if the interface is down, `EBUSY` if the channel
    /// runs, or what requesting the interrupt gave.
    pub fn start_channel(&self, index: u16, tx: T::Tx, rx: T::Rx) -> Result {
        let channel = self.channel(index).ok_or(EINVAL)?;
        // SAFETY: the RTNL lock is held.
        unsafe { channel.start(self.dev, tx, rx) }
    }

    /// Stops a channel if it runs, and drops its states and its page pool. Neither
    /// [`Operations::poll`] nor [`Operations::start_xmit`] runs for it then, nor its interrupt
    /// handler.
    ///
    /// May sleep.
    pub fn stop_channel(&self, index: u16) {
        if let Some(channel) = self.channel(index) {
            // SAFETY: the RTNL lock is held.
            unsafe { channel.stop(self.dev) }
        }
    }

    /// Stops all channels that run.
    pub(crate) fn stop_all(&self) {
        for i in 0..self.channels() {
            self.stop_channel(i);
        }
    }

    /// Lets the stack fill the transmit queues.
    ///
    /// Those that are not in use too, which it gives no frames: its watchdog looks at every queue that
    /// the device has, and to it one that was stopped when it was last in use is stuck.
    pub fn start_tx(&self) {
        for i in 0..self.channels() {
            self.start_tx_queue(i);
        }
    }

    /// Lets the stack fill the transmit queue of a channel.
    pub fn start_tx_queue(&self, index: u16) {
        if let Some(queue) = self.tx_queue(index) {
            queue.start();
        }
    }

    /// Has [`Operations::timer`] called every `period`, which is more than nothing, until the interface
    /// goes down or [`Self::stop_timer`]. `ENETDOWN` if it is down.
    pub fn start_timer(&self, period: Delta) -> Result {
        if period.as_nanos() <= 0 {
            return Err(EINVAL);
        }
        // Who takes the interface down stops the timer.
        if !self.is_running() {
            return Err(ENETDOWN);
        }
        self.timer().start(period);
        Ok(())
    }

    /// Stops the timer; on return [`Operations::timer`] does not run. May sleep.
    pub fn stop_timer(&self) {
        self.timer().stop();
    }

    /// Has offloads switched on that [`Operations::fix_features`] no longer excludes, and others off.
    pub fn update_features(&self) {
        // SAFETY: the device is valid, and the RTNL lock held.
        unsafe { b::netdev_update_features(self.as_raw()) }
    }

    /// True if received frames are to be shown to a program.
    pub fn has_program(&self) -> bool {
        self.program().get().is_some()
    }

    /// Puts a detached device back into service and wakes the transmit queues if it is running.
    ///
    /// [`Operations::set_rx_mode`] follows: the core tells nobody of what changed while the device was
    /// detached.
    pub fn attach(&self) {
        let dev = self.as_raw();
        // SAFETY: the device is valid, and so is its address for all, as a multicast address too.
        unsafe {
            b::netif_device_attach(dev);
            // No function that modules can call does only what this leads to. The address is gone again
            // when the core looks at the lists, for which it takes the RTNL lock.
            let all = (*dev).broadcast.as_ptr();
            if b::dev_mc_add(dev, all) == 0 {
                b::dev_mc_del(dev, all);
            }
        }
    }
}

impl<T: Operations> core::ops::Deref for Locked<'_, T> {
    type Target = NetDevice<T>;

    fn deref(&self) -> &NetDevice<T> {
        self.dev
    }
}
