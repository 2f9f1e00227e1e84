// SPDX-License-Identifier: GPL-2.0

//! Net devices and their operations.

use core::marker::PhantomData;
use kernel::{
    bindings,
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fmt,
    prelude::*,
    time::Delta,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

use crate::{
    bindings as b,
    channel::Channel,
    coalesce::Level as ModerationLevel,
    cpu,
    ethtool,
    qstats::{
        RxQueueStats,
        TxQueueStats, //
    },
    ticker::Ticker,
    timer::Timer,
    xdp::{
        self,
        Program,
        Refusal,
        XdpFrame, //
    },
    AddressList,
    Arming,
    Interrupt,
    LinkStats,
    Napi,
    Polled,
    PoolBuffer,
    PoolParams,
    RxMode,
    SkBuff,
    TxMeta,
    TxQueue, //
};

/// Behaviour of a network device; implemented by the driver's private data.
///
/// Methods take `&self`: many run at the same time. See the crate documentation for the state
/// that a method may change.
///
/// A device opens, stops and sends; all else is optional. What a driver does not implement the core is
/// not told of, so that it does without or refuses.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// impl Operations for Nic {
///     /// What the lock of the transmit queue guards: nothing yet.
///     type Tx = ();
///     type Rx = ();
///
///     fn open(&self, dev: &Locked<'_, Self>) -> Result {
///         netdev::info!(dev, "open\n");
///         dev.start_channel(0, (), ())?;
///         dev.set_carrier(true);
///         dev.start_tx();
///         Ok(())
///     }
///
///     fn stop(&self, dev: &Locked<'_, Self>) {
///         dev.stop_tx();
///         dev.set_carrier(false);
///         netdev::info!(dev, "stop, {} frames dropped so far\n", self.dropped.get());
///     }
///
///     fn start_xmit(
///         &self,
///         _dev: &NetDevice<Self>,
///         _queue: &TxQueue<'_>,
///         _tx: &mut (),
///         skb: SkBuff,
///         _meta: &TxMeta,
///     ) {
///         // One frame at a time, under the queue's lock: the counter has one writer.
///         self.dropped.add(1);
///         // Without this line the module does not link: see the page.
///         skb.drop_with(DropReason::DeviceNotReady);
///     }
///
///     fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
///         stats.tx_dropped(self.dropped.get());
///     }
/// }
/// ```
#[vtable]
#[allow(unused_variables)] // of methods that are not implemented
pub trait Operations: ethtool::Operations + Sized + Send + Sync {
    /// State of a transmit queue, guarded by the queue's lock.
    type Tx: Send;
    /// State of a receive queue, used by one poll at a time.
    type Rx: Send;

    /// Brings the interface up: starts its channels. Those that run are stopped when it fails.
    ///
    /// Process context, RTNL held.
    fn open(&self, dev: &Locked<'_, Self>) -> Result;

    /// Takes the interface down: has the device leave all memory alone, and stops the channels;
    /// those left over are stopped afterwards. It cannot fail, even if the card is gone.
    ///
    /// Process context, RTNL held.
    fn stop(&self, dev: &Locked<'_, Self>);

    /// Sends a frame, which the callee owns.
    ///
    /// Bottom halves are disabled and the lock of the transmit queue is held.
    fn start_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
        skb: SkBuff,
        meta: &TxMeta,
    );

    /// Takes at most `budget` received frames, and any number of completed transmissions. A device
    /// without this has no NAPI contexts.
    ///
    /// Softirq context. The poll asks the card not to interrupt: nothing but [`Self::arm`] asks for
    /// interrupts, which need not follow a poll that returns [`Polled::Idle`].
    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        rx: &mut Self::Rx,
        budget: u32,
    ) -> Polled {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Asks the card for interrupts, and then looks for work once more. False if there is some: the
    /// channel is polled again.
    ///
    /// Softirq context, after a poll that ended with [`Polled::Idle`] and was not followed at once
    /// by another. Without this, a device interrupts whenever it likes.
    fn arm(&self, channel: &Arming<'_, Self>, rx: &mut Self::Rx) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Frees frames that are sent, and nothing else: no receiving, and no word to the card of
    /// interrupts, for no poll follows that would ask for them again.
    ///
    /// Called by netpoll, that is to say a console on the network, possibly in hard interrupt
    /// context. The lock of the transmit queue is held.
    fn reclaim(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
    ) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called in a thread for every control interrupt, and once when the device is registered.
    fn event(&self, dev: &NetDevice<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Deferred work that [`NetDevice::schedule_work`] asked for; `events` are the bits given to it.
    ///
    /// Process context, RTNL held. Not called while the device is detached.
    fn work(&self, dev: &Locked<'_, Self>, events: usize) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A transmit queue has made no progress for [`Config::watchdog`](crate::Config).
    ///
    /// Softirq context: only note it, and schedule work.
    fn tx_timeout(&self, dev: &NetDevice<Self>, queue: u16) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The timer of [`Locked::start_timer`] has expired; it expires again by itself.
    ///
    /// Hard interrupt context, which the argument is the proof of.
    fn timer(&self, dev: &NetDevice<Self>, interrupt: &Interrupt<'_, Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called every [`Config::tick`](crate::Config) milliseconds while the interface is up and not
    /// in the hands of [`crate::pci::Power`].
    ///
    /// Softirq context: what takes time is for [`NetDevice::schedule_work`].
    fn tick(&self, dev: &NetDevice<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the receive mode. An error makes the core try again later.
    ///
    /// Process context, RTNL held.
    fn set_rx_mode(
        &self,
        dev: &Locked<'_, Self>,
        mode: RxMode,
        unicast: &AddressList<'_>,
        multicast: &AddressList<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the device's address to one that was checked to be valid for a station.
    ///
    /// Process context, RTNL held. On success the core's copy is updated.
    fn set_mac_address(&self, dev: &Locked<'_, Self>, mac: [u8; 6]) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the MTU to one within the limits of the configuration.
    ///
    /// Process context, RTNL held. On success the core's copy is updated.
    fn change_mtu(&self, dev: &Locked<'_, Self>, mtu: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// True if the moderation of received frames is to adapt to the traffic. Asked only if
    /// [`Self::moderate`] is implemented, and with [`Self::carried`].
    fn adapts(&self) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Frames and bytes received and sent so far by the channel of `rx`, to adapt by.
    fn carried(&self, rx: &Self::Rx) -> (u64, u64) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The level that now fits the traffic of a channel.
    ///
    /// Process context; the RTNL lock may be held by who waits for this to end.
    fn moderate(&self, channel: u16, level: ModerationLevel) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Statistics of the receive queue of a channel, whether in use or not. To be implemented with
    /// [`Self::tx_queue_stats`].
    fn rx_queue_stats(&self, channel: u16) -> RxQueueStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Statistics of the transmit queue of a channel, whether in use or not.
    fn tx_queue_stats(&self, channel: u16) -> TxQueueStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Of the offloads that the user wants, those that can be on as the device is now.
    ///
    /// Process context, RTNL held; asked anew when a program comes or goes.
    fn fix_features(&self, features: Features) -> Features {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Switches offloads on and off, so that these are on. The core's copy is updated on success.
    ///
    /// Process context, RTNL held.
    fn set_features(&self, dev: &Locked<'_, Self>, features: Features) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prepares for received frames to be shown to a program, or no longer. To be implemented with
    /// [`Self::xdp_xmit`] and [`Self::xdp_flush`]. Called before the first
    /// frame is, with `Some`, and after the last one, with `None`; also, with `Some`, when another
    /// program takes the place of one. An error refuses the program. Where there is none any more,
    /// it is for the log only.
    ///
    /// Process context, RTNL held; the interface may be down.
    fn set_xdp(&self, dev: &Locked<'_, Self>, program: Option<Program>) -> Result<(), Refusal> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Puts a frame of a program into a transmit queue, or gives it back if there is no room. The
    /// card need not be told before [`Self::xdp_flush`].
    ///
    /// Softirq context; the lock of the transmit queue is held.
    fn xdp_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
        frame: XdpFrame,
    ) -> Result<(), XdpFrame> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells the card of frames of programs. Context as for [`Self::xdp_xmit`].
    fn xdp_flush(&self, dev: &NetDevice<Self>, queue: &TxQueue<'_>, tx: &mut Self::Tx) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds up the statistics. Any context; may run at any time.
    fn stats(&self, dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Offloads that a device offers; all can be switched off by the user.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/offloads.rs
/// if !wanted.contains(Features::RX_GRO) {
///     used &= !LARGE;
/// }
/// // The others need it.
/// if !wanted.contains(Features::RX_CHECKSUM) {
///     used = 0;
/// }
/// ```
#[derive(Clone, Copy, Default)]
pub struct Features(u64);

impl Features {
    /// Frames may be scattered over several buffers.
    pub const SCATTER_GATHER: Self = Self(b::ND_F_SG);
    /// The device completes any partial checksum of a transmitted frame.
    pub const TX_CHECKSUM: Self = Self(b::ND_F_HW_CSUM);
    /// The device cuts TCP over IPv4 into segments.
    pub const TSO: Self = Self(b::ND_F_TSO);
    /// The device cuts TCP over IPv6 into segments.
    pub const TSO6: Self = Self(b::ND_F_TSO6);
    /// It does so with frames that have CWR set.
    pub const TSO_ECN: Self = Self(b::ND_F_TSO_ECN);
    /// The device cuts UDP into datagrams.
    pub const USO: Self = Self(b::ND_F_GSO_UDP_L4);
    /// The device tells of the checksums of received frames.
    pub const RX_CHECKSUM: Self = Self(b::ND_F_RXCSUM);
    /// Received frames may stand for many segments each, and say so.
    pub const RX_GRO: Self = Self(b::ND_F_GRO_HW);
    /// Received frames come with a hash of their flow.
    pub const RX_HASH: Self = Self(b::ND_F_RXHASH);

    /// The features of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The features that are not among the others.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if all of the others are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn as_raw(self) -> u64 {
        self.0
    }
}

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
/// [`Napi`] or a [`TxQueue`]. All other methods are for any context, unless they say otherwise.
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
///         if queue.is_stopped() && ring.used() <= SIZE / 2 && module_parameters::wake.value() {
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
        Features(unsafe { (&raw const (*self.as_raw()).features).read_volatile() })
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

/// How important a message is.
///
/// What [`NetDevice::print`] takes; [`crate::info`], [`crate::err`] and [`crate::debug`] have it in their names.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// if ends.contains(&false) {
///     netdev::err!(dev, "a queue does not stop\n");
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Worth knowing.
    Info,
    /// For those who want to see the steps.
    Debug,
}

/// Prints an error message of a [`NetDevice`].
#[macro_export]
macro_rules! err {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Error, ::kernel::prelude::fmt!($($f)*))
    };
}

/// Prints a message of a [`NetDevice`].
#[macro_export]
macro_rules! info {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Info, ::kernel::prelude::fmt!($($f)*))
    };
}

/// Prints a debug message of a [`NetDevice`].
#[macro_export]
macro_rules! debug {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Debug, ::kernel::prelude::fmt!($($f)*))
    };
}

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

    /// Lets the stack fill the transmit queues in use.
    pub fn start_tx(&self) {
        for i in 0..self.active_channels() {
            if let Some(queue) = self.tx_queue(i) {
                queue.start();
            }
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

    /// Puts a detached device back into service and wakes the transmit queues if it is running.
    pub fn attach(&self) {
        // SAFETY: the device is valid.
        unsafe { b::netif_device_attach(self.as_raw()) }
    }
}

impl<T: Operations> core::ops::Deref for Locked<'_, T> {
    type Target = NetDevice<T>;

    fn deref(&self) -> &NetDevice<T> {
        self.dev
    }
}
