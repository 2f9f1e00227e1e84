// SPDX-License-Identifier: GPL-2.0

//! Transmit queues of the stack.

use core::{
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull,
};

use crate::{
    bindings as b,
    channel::Channel,
    NetDevice,
    Operations, //
};

/// A transmit queue: `struct netdev_queue`.
///
/// Stopping and waking are decided by whoever holds the queue's lock, that is in
/// [`Operations::start_xmit`] and under a [`TxGuard`]. So the two cannot race: who stops the queue
/// for want of descriptors sees all that were freed, and who frees some sees whether it stopped.
///
/// # Invariants
///
/// The queue belongs to a device that is valid for the lifetime.
///
/// All methods are for who holds the lock, as whoever is given one does.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/tx_ring.rs
/// pub(crate) fn send(&mut self, queue: &TxQueue<'_>, skb: SkBuff, bytes: u32) -> bool {
///     let sent = self.push(skb, bytes);
///     if self.is_full() {
///         queue.stop();
///     }
///     sent
/// }
/// ```
pub struct TxQueue<'a>(NonNull<b::netdev_queue>, PhantomData<&'a ()>);

impl<T: Operations> NetDevice<T> {
    /// The transmit queue of a channel.
    #[inline]
    pub(crate) fn tx_queue(&self, index: u16) -> Option<TxQueue<'_>> {
        if index >= self.channels() {
            return None;
        }
        // SAFETY: the device was allocated with a transmit queue per channel.
        let queue = unsafe { (*self.as_raw())._tx.add(usize::from(index)) };
        NonNull::new(queue).map(|q| TxQueue(q, PhantomData))
    }
}

impl<T: Operations> NetDevice<T> {
    /// Index of the transmit queue for frames of XDP programs that run on this CPU.
    ///
    /// The queues of the stack serve for them too: the card has as many as it has, and cannot have
    /// one more for each CPU. Their locks are taken once for many frames.
    #[inline]
    pub(crate) fn xdp_tx_queue(&self) -> u16 {
        // SAFETY: the device is valid.
        unsafe { b::nd_xdp_tx_queue(self.as_raw()) as u16 }
    }

    /// Locks a transmit queue. `None` if it has no state: it is being stopped.
    ///
    /// # Safety
    ///
    /// Bottom halves are disabled.
    pub(crate) unsafe fn lock_tx(&self, channel: u16) -> Option<TxGuard<'_, T>> {
        TxGuard::lock(self, self.channel(channel)?)
    }

    /// Runs `f` on a transmit queue and its state, with its lock held. `None` if the channel does
    /// not run.
    ///
    /// Process or softirq context.
    pub fn with_tx<R>(
        &self,
        channel: u16,
        f: impl FnOnce(&TxQueue<'_>, &mut T::Tx) -> R,
    ) -> Option<R> {
        let (channel, queue) = (self.channel(channel)?, self.tx_queue(channel)?);
        let _locked = queue.lock_bh();
        // SAFETY: the lock is held until after `f`, and whoever else reaches the state holds it too.
        let tx = unsafe { channel.tx() }?;
        Some(f(&queue, tx))
    }
}

impl TxQueue<'_> {
    #[inline]
    fn as_raw(&self) -> *mut b::netdev_queue {
        self.0.as_ptr()
    }

    pub(crate) fn start(&self) {
        // SAFETY: the queue is valid.
        unsafe { b::nd_tx_start(self.as_raw()) }
    }

    /// Has the stack hold frames back until [`Self::wake`].
    pub fn stop(&self) {
        // SAFETY: the queue is valid.
        unsafe { b::nd_tx_stop(self.as_raw()) }
    }

    /// Has the stack send the frames that it held back.
    pub fn wake(&self) {
        // SAFETY: the queue is valid.
        unsafe { b::nd_tx_wake(self.as_raw()) }
    }

    /// True after [`Self::stop`].
    #[inline]
    pub fn is_stopped(&self) -> bool {
        // SAFETY: the queue is valid.
        unsafe { b::nd_tx_stopped(self.as_raw()) }
    }

    /// Tells byte queue limits of a frame that was handed to the card. True: tell the card now,
    /// because no more frames follow or the queue just reached its limit.
    #[must_use = "the card may have to be told"]
    #[inline]
    pub fn sent(&self, bytes: u32, more: bool) -> bool {
        // SAFETY: the queue is valid and, in the contexts that hand out this type, locked.
        unsafe { b::nd_tx_sent(self.as_raw(), bytes, more) }
    }

    /// Tells byte queue limits of frames that came back from the card.
    #[inline]
    pub fn completed(&self, frames: u32, bytes: u32) {
        // SAFETY: the queue is valid and, in the contexts that hand out this type, locked.
        unsafe { b::nd_tx_completed(self.as_raw(), frames, bytes) }
    }

    /// Notes that the queue makes progress, for frames that the stack does not know of.
    #[inline]
    pub fn touch(&self) {
        // SAFETY: the queue is valid and, in the contexts that hand out this type, locked.
        unsafe { b::nd_tx_touch(self.as_raw()) }
    }

    /// Takes the lock from process context.
    pub(crate) fn lock_bh(&self) -> LockedBh<'_> {
        // SAFETY: the queue is valid; the guard unlocks it.
        unsafe { b::nd_tx_lock_bh(self.as_raw()) };
        LockedBh(self)
    }
}

/// A transmit queue locked from process context.
pub(crate) struct LockedBh<'a>(&'a TxQueue<'a>);

impl LockedBh<'_> {
    /// Forgets all frames that byte queue limits knows of.
    pub(crate) fn reset(&self) {
        // SAFETY: the queue is valid and locked.
        unsafe { b::nd_tx_reset(self.0.as_raw()) }
    }

    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

impl Drop for LockedBh<'_> {
    fn drop(&mut self) {
        // SAFETY: locked by `lock_bh`.
        unsafe { b::nd_tx_unlock_bh(self.0.as_raw()) }
    }
}

/// The state of a transmit queue, with its lock held by a poll.
///
/// # Invariants
///
/// The lock of `queue` is held, and `state` is that of the same channel.
///
/// Softirq context; unlocks when it is dropped.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// if let Some(mut guard) = napi.lock_tx() {
///     let (queue, tx) = guard.split();
///     tx.reclaim(dev, queue);
/// }
/// ```
pub struct TxGuard<'a, T: Operations> {
    queue: TxQueue<'a>,
    state: &'a mut T::Tx,
}

impl<'a, T: Operations> TxGuard<'a, T> {
    #[inline]
    pub(crate) fn lock(dev: &'a NetDevice<T>, channel: &'a Channel<T>) -> Option<Self> {
        let queue = dev.tx_queue(channel.index())?;
        // SAFETY: the queue is valid, and a poll runs with bottom halves disabled.
        unsafe { b::nd_tx_lock(queue.as_raw()) };
        // SAFETY: locked above.
        unsafe { Self::locked(queue, channel) }
    }

    /// As [`Self::lock`], but `None` too if the lock is taken.
    pub(crate) fn try_lock(dev: &'a NetDevice<T>, channel: &'a Channel<T>) -> Option<Self> {
        let queue = dev.tx_queue(channel.index())?;
        // SAFETY: the queue is valid, and a poll runs with bottom halves disabled.
        if !unsafe { b::nd_tx_trylock(queue.as_raw()) } {
            return None;
        }
        // SAFETY: locked above.
        unsafe { Self::locked(queue, channel) }
    }

    /// # Safety
    ///
    /// The lock of the queue, which is that of the channel, was just taken.
    #[inline]
    unsafe fn locked(queue: TxQueue<'a>, channel: &'a Channel<T>) -> Option<Self> {
        // SAFETY: the lock is held for as long as the guard lives, and whoever else reaches the
        // state holds it too.
        match unsafe { channel.tx() } {
            Some(state) => Some(Self { queue, state }),
            None => {
                // SAFETY: locked by the caller.
                unsafe { b::nd_tx_unlock(queue.as_raw()) };
                None
            }
        }
    }

    /// The queue, and its state.
    #[inline]
    pub fn split(&mut self) -> (&TxQueue<'a>, &mut T::Tx) {
        (&self.queue, self.state)
    }
}

impl<T: Operations> Deref for TxGuard<'_, T> {
    type Target = T::Tx;

    fn deref(&self) -> &T::Tx {
        self.state
    }
}

impl<T: Operations> DerefMut for TxGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T::Tx {
        self.state
    }
}

impl<T: Operations> Drop for TxGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: locked by `lock` or `try_lock`.
        unsafe { b::nd_tx_unlock(self.queue.as_raw()) }
    }
}
