// SPDX-License-Identifier: GPL-2.0

//! Network devices.

use core::marker::PhantomData;
use kernel::{
    bindings,
    fmt,
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings as b,
    channel::Channel,
    features::Features,
    message::Level,
    ticker::Ticker,
    timer::Timer,
    xdp,
    Locked,
    Operations, //
};

/// What stands in the private area of a `struct net_device`.
pub(crate) struct Private<T: Operations> {
    pub(crate) ops: T,
    pub(crate) channels: KVec<Pin<KBox<Channel<T>>>>,
    pub(crate) ticker: Pin<KBox<Ticker>>,
    pub(crate) timer: Pin<KBox<Timer>>,
    pub(crate) program: xdp::Slot,
    /// Interrupt of control, if there is one.
    pub(crate) control: Option<u32>,
}

/// A network device: `struct net_device` with the driver's data `T` in its private area.
///
/// # Invariants
///
/// The `struct net_device` is valid, and its private area holds an initialized `Private<T>`.
///
/// Shared by all callbacks, which run at the same time: what only some contexts may do takes a [`Locked`] device, a
/// [`Napi`](crate::Napi) or a [`TxQueue`](crate::TxQueue). All other methods are for any context, unless they say otherwise.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase3_tx_ring.rs
/// fn tick(&self, dev: &NetDevice<Self>) {
///     dev.with_tx(0, |queue, ring| {
///         for _ in 0..WIRE {
///             let Some((skb, bytes)) = ring.pop() else {
///                 break;
///             };
///             self.packets.add(1);
///             self.bytes.add(bytes.into());
///             // Sent, not dropped: nobody is to look for a reason.
///             skb.complete().consume::<Self>(None);
///         }
///         // With room for several, so that the two do not alternate frame by frame.
///         let wake = module_parameters::wake.value().clone() != 0;
///         if wake && queue.is_stopped() && ring.used() <= SIZE / 2 {
///             queue.wake();
///             self.wakes.add(1);
///         }
///     });
/// }
/// ```
#[repr(transparent)]
pub struct NetDevice<T: Operations>(Opaque<b::net_device>, PhantomData<T>);

// SAFETY: the C part is made for concurrent use, and `T` is `Send` and `Sync`.
unsafe impl<T: Operations> Send for NetDevice<T> {}
// SAFETY: as above; state that is not `Sync` is only reachable by the rules of the crate
// documentation.
unsafe impl<T: Operations> Sync for NetDevice<T> {}

impl<T: Operations> NetDevice<T> {
    /// # Safety
    ///
    /// `dev` is a net device that [`crate::Registration`] made for `T`, and it and its private data
    /// stay valid for `'a`.
    pub(crate) unsafe fn from_raw<'a>(dev: *mut b::net_device) -> &'a Self {
        // SAFETY: by the caller; the type is transparent.
        unsafe { &*dev.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut b::net_device {
        self.0.get()
    }

    /// Where the private data of a `struct net_device` is.
    ///
    /// # Safety
    ///
    /// `dev` is valid and was allocated with room for [`Private<T>`].
    pub(crate) unsafe fn private_ptr(dev: *mut b::net_device) -> *mut Private<T> {
        // SAFETY: by the caller; `priv_` is the flexible array at the end of the allocation.
        unsafe { (&raw mut (*dev).priv_).cast() }
    }

    fn private(&self) -> &Private<T> {
        // SAFETY: by the type invariant.
        unsafe { &*Self::private_ptr(self.as_raw()) }
    }

    /// The driver's data.
    #[inline]
    pub fn ops(&self) -> &T {
        &self.private().ops
    }

    /// Number of channels that there are, of which [`Self::active_channels`] are in use.
    #[inline]
    pub fn channels(&self) -> u16 {
        // A device has at most as many channels as interrupt vectors.
        self.private().channels.len() as u16
    }

    /// Number of channels in use, from the first on: the stack gives frames to these only.
    pub fn active_channels(&self) -> u16 {
        // SAFETY: the field is valid; writers hold the RTNL lock. It is at most the number of
        // queues that the device was allocated with.
        unsafe { (&raw const (*self.as_raw()).real_num_tx_queues).read_volatile() as u16 }
    }

    #[inline]
    pub(crate) fn channel(&self, index: u16) -> Option<&Channel<T>> {
        self.private()
            .channels
            .get(usize::from(index))
            .map(|c| &**c)
    }

    #[inline]
    pub(crate) fn program(&self) -> &xdp::Slot {
        &self.private().program
    }

    /// Interrupts that a channel has had since the device was registered.
    pub fn interrupts(&self, channel: u16) -> u64 {
        self.channel(channel).map_or(0, |c| c.interrupts.get())
    }

    /// Name of the interface, such as `vnet0`.
    pub fn name(&self) -> &CStr {
        // SAFETY: the name is always terminated; a concurrent change of name may give a mixture of
        // both names, as it does everywhere in the kernel.
        unsafe { CStr::from_char_ptr((&raw const (*self.as_raw()).name).cast()) }
    }

    /// Payload bytes of the longest frame.
    pub fn mtu(&self) -> u32 {
        // SAFETY: the field is valid; writers use `WRITE_ONCE()`.
        unsafe { (&raw const (*self.as_raw()).mtu).read_volatile() }
    }

    /// The address in use.
    pub fn mac(&self) -> [u8; 6] {
        // SAFETY: `dev_addr` points to at least `ETH_ALEN` bytes for an Ethernet device; a
        // concurrent change may give a mixture, as elsewhere in the kernel.
        unsafe { (*self.as_raw()).dev_addr.cast::<[u8; 6]>().read_volatile() }
    }

    /// The offloads that are switched on.
    #[inline]
    pub fn features(&self) -> Features {
        // SAFETY: the field is valid; writers hold the RTNL lock, and a frame that comes while it
        // changes may be treated either way.
        Features::from_raw(unsafe { (&raw const (*self.as_raw()).features).read_volatile() })
    }

    /// True while the interface is up.
    pub fn is_running(&self) -> bool {
        // SAFETY: the device is valid.
        unsafe { b::nd_running(self.as_raw()) }
    }

    /// Tells the stack that the link is up or down.
    pub fn set_carrier(&self, up: bool) {
        // SAFETY: the device is valid; both may be called from any context.
        unsafe {
            if up {
                b::netif_carrier_on(self.as_raw())
            } else {
                b::netif_carrier_off(self.as_raw())
            }
        }
    }

    /// Has the stack give no frames to the transmit queues in use, until they are started again.
    pub fn stop_tx(&self) {
        for i in 0..self.active_channels() {
            if let Some(queue) = self.tx_queue(i) {
                queue.stop();
            }
        }
    }

    /// Has the poll of every running channel called once. Not for hard interrupt context.
    pub fn schedule_all(&self) {
        for i in 0..self.channels() {
            if let Some(channel) = self.channel(i) {
                channel.schedule();
            }
        }
    }

    /// Has [`Operations::work`] called with these bits set. Not for hard interrupt context.
    pub fn schedule_work(&self, events: usize) {
        // SAFETY: the device is valid; the function does nothing unless it is registered.
        unsafe { b::netdev_work_sched(self.as_raw(), events) }
    }

    /// Takes back what [`Self::schedule_work`] asked for and has not been done yet. Not for hard interrupt
    /// context.
    pub fn cancel_work(&self, events: usize) {
        // SAFETY: the device is valid.
        let _ = unsafe { b::netdev_work_cancel(self.as_raw(), events) };
    }

    /// Takes the device out of service: the stack no longer uses it until [`Locked::attach`].
    ///
    /// The interface still counts as up, and taking it down works.
    pub fn detach(&self) {
        // SAFETY: the device is valid.
        unsafe { b::netif_device_detach(self.as_raw()) }
    }

    /// True unless the device is detached.
    pub fn is_present(&self) -> bool {
        // SAFETY: the device is valid.
        unsafe { b::nd_present(self.as_raw()) }
    }

    /// Prints a message with the names of driver, bus device and interface before it. The macros
    /// [`crate::err`], [`crate::info`] and [`crate::debug`] call this.
    pub fn print(&self, level: Level, args: fmt::Arguments<'_>) {
        let level = match level {
            Level::Error => bindings::KERN_ERR,
            Level::Info => bindings::KERN_INFO,
            Level::Debug => bindings::KERN_DEBUG,
        };
        // SAFETY: the level is terminated, the device valid, and `%pA` takes a pointer to
        // `fmt::Arguments`.
        unsafe {
            b::netdev_printk(
                level.as_ptr().cast(),
                self.as_raw(),
                c"%pA".as_char_ptr(),
                core::ptr::from_ref(&args).cast::<c_void>(),
            )
        }
    }

    pub(crate) fn control_irq(&self) -> Option<u32> {
        self.private().control
    }

    /// True if the device is part of another one, such as a PCI function.
    pub(crate) fn has_parent(&self) -> bool {
        // SAFETY: the device is valid; the field does not change.
        !unsafe { (*self.as_raw()).dev.parent }.is_null()
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.private().ticker
    }

    /// Starts the ticker, if the driver wants to know of it.
    pub(crate) fn start_ticker(&self) {
        if T::HAS_TICK {
            self.ticker().start();
        }
    }

    pub(crate) fn timer(&self) -> &Timer {
        &self.private().timer
    }

    /// Runs `f` with the RTNL lock held.
    ///
    /// Process context, without the lock.
    pub(crate) fn with_lock<R>(&self, f: impl FnOnce(&Locked<'_, T>) -> R) -> R {
        // SAFETY: any task may take the lock.
        unsafe { b::rtnl_lock() };
        // SAFETY: the lock is held until after `f`.
        let result = f(&unsafe { Locked::new(self) });
        // SAFETY: taken above.
        unsafe { b::rtnl_unlock() };
        result
    }
}
