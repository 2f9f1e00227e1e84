// SPDX-License-Identifier: GPL-2.0

//! Channels: interrupt vector, NAPI context and the states of a pair of queues.

use core::{
    cell::UnsafeCell,
    fmt::Write,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    container_of,
    error::to_result,
    prelude::*,
    sync::atomic::{
        Acquire,
        AtomicFlag,
        Release, //
    },
    time::{
        delay::udelay,
        Delta, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

use crate::{
    bindings as b,
    coalesce::Seen,
    cpu,
    error::ENETDOWN,
    page_pool::PagePool,
    series,
    trace,
    xdp::RxqInfo,
    Counter,
    NetDevice,
    Operations,
    PoolBuffer,
    PoolParams,
    TxGuard,
    TxQueue, //
};

/// How a poll ended, with the number of frames received.
///
/// What [`Operations::poll`] returns. A number that is not less than the budget is taken for [`Polled::Again`],
/// whatever is meant.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// match rx.receive(self, napi, budget) {
///     done if done < budget => Polled::Idle(done),
///     done => Polled::Again(done),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There is, or may be, more to do: poll again.
    Again(u32),
    /// All done.
    Idle(u32),
    /// Nothing was done, and interrupts are still asked for since the last poll.
    Waits,
}

/// A channel in the private data of a device.
///
/// # Invariants
///
/// - `napi` cannot be scheduled unless `running` is true. While `listed` is, it is on the list of the device that owns the
///   channel, at the channel's index; it is while there is a pool, and while `running` is true.
/// - `tx` is only accessed under the lock of the transmit queue at the channel's index.
/// - `rx`, `pool` and `rxq` are only accessed by the call of the poll callback of `napi` that set
///   `polling`, which clears it at its end; or under the RTNL lock while `napi` is disabled and
///   `polling` is clear. `napi` is enabled exactly while `running` is true, and that only while
///   the interface is up.
/// - `pool` was made for `napi`, and `rxq` for both.
/// - `dim` is set up for [`Self::adapt_work`] by [`Self::set_up`]. The library decides in one poll at a
///   time, which has set `polling` and so may use `dim_seen`; its work runs beside that, which the
///   library is made for, and does not run when `napi` is disabled.
/// - `turn` is set up for [`Self::take_turn`] by [`Self::set_up`], and scheduled by polls only. Like
///   `dim_seen`, `long_polls` is used by the call that has set `polling`.
/// - `running`, `listed` and `irq_name` are only accessed under the RTNL lock, except that the interrupt core
///   reads the name while `running` is true, when it does not change.
pub(crate) struct Channel<T: Operations> {
    napi: Opaque<b::napi_struct>,
    tx: UnsafeCell<Option<T::Tx>>,
    rx: UnsafeCell<Option<T::Rx>>,
    pool: UnsafeCell<Option<PagePool>>,
    /// Goes before the pool.
    rxq: UnsafeCell<Option<RxqInfo>>,
    /// Set while the poll callback uses its state. NAPI alone does not tell: once a poll has been
    /// completed, the next may begin on another CPU while this one still arms the interrupt.
    polling: AtomicFlag,
    running: UnsafeCell<bool>,
    listed: UnsafeCell<bool>,
    /// Adapts the moderation: see coalesce.rs.
    pub(crate) dim: Opaque<b::dim>,
    /// Interrupts when that last looked.
    pub(crate) dim_seen: UnsafeCell<Seen>,
    /// Takes turns with tasks when frames come too fast: see turns.rs.
    pub(crate) turn: Opaque<bindings::work_struct>,
    /// Polls in a row that used all of their budget.
    pub(crate) long_polls: UnsafeCell<u32>,
    pub(crate) turns: Counter,
    irq_name: UnsafeCell<IrqName>,
    /// `None` for a device that is software only.
    irq: Option<u32>,
    index: u16,
    pub(crate) interrupts: Counter,
}

// SAFETY: the states are `Send`, and by the invariants reached by one task at a time.
unsafe impl<T: Operations> Send for Channel<T> {}
// SAFETY: as above.
unsafe impl<T: Operations> Sync for Channel<T> {}

/// Name of an interrupt in /proc/interrupts: that of the interface, a dash, the channel.
struct IrqName {
    bytes: [u8; 24],
    len: usize,
}

impl Write for IrqName {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        // The last byte stays zero.
        let room = self.bytes.len() - 1 - self.len;
        let part = &s.as_bytes()[..s.len().min(room)];
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        Ok(())
    }
}

impl<T: Operations> Channel<T> {
    /// A stopped channel. [`Self::set_up`] must follow before it is used.
    pub(crate) fn new(index: u16, irq: Option<u32>) -> Self {
        Self {
            napi: Opaque::zeroed(),
            tx: UnsafeCell::new(None),
            rx: UnsafeCell::new(None),
            pool: UnsafeCell::new(None),
            rxq: UnsafeCell::new(None),
            polling: AtomicFlag::new(false),
            running: UnsafeCell::new(false),
            listed: UnsafeCell::new(false),
            dim: Opaque::zeroed(),
            dim_seen: UnsafeCell::new(Seen::new()),
            turn: Opaque::zeroed(),
            long_polls: UnsafeCell::new(0),
            turns: Counter::new(),
            irq_name: UnsafeCell::new(IrqName {
                bytes: [0; 24],
                len: 0,
            }),
            irq,
            index,
            interrupts: Counter::new(),
        }
    }

    /// Sets up what it has of the kernel.
    ///
    /// # Safety
    ///
    /// The channel is pinned in the private data of a device that is not yet registered, and this is called once.
    pub(crate) unsafe fn set_up(self: Pin<&Self>) {
        if !T::HAS_POLL {
            return;
        }
        // SAFETY: the context is zeroed, and nobody else knows it.
        unsafe { b::nd_napi_init(self.napi.get()) }
        self.init_adaptation();
        self.init_turns();
    }

    /// Adds the NAPI context to the device, for as long as it is used: the core waits for those that are there and
    /// do not run, when it is to poll in threads no more, without an end and with the device locked.
    ///
    /// # Safety
    ///
    /// The RTNL lock is held; the channel belongs to `dev`.
    unsafe fn list(&self, dev: &NetDevice<T>) {
        // SAFETY: the RTNL lock is held.
        let listed = unsafe { &mut *self.listed.get() };
        if !T::HAS_POLL || core::mem::replace(listed, true) {
            return;
        }
        // SAFETY: by the caller; the context is pinned and not on a list.
        unsafe {
            b::nd_napi_add(
                dev.as_raw(),
                self.napi.get(),
                Some(Self::poll),
                i32::from(self.index),
            )
        }
    }

    /// Takes it off.
    ///
    /// # Safety
    ///
    /// The RTNL lock is held, or nobody else uses the device any more; and NAPI is disabled.
    pub(crate) unsafe fn unlist(&self) {
        // SAFETY: by the caller.
        if unsafe { core::mem::take(&mut *self.listed.get()) } {
            // SAFETY: by the caller; `list` added it.
            unsafe { b::nd_napi_del(self.napi.get()) }
        }
    }

    /// See [`crate::Locked::create_pool`].
    ///
    /// # Safety
    ///
    /// The RTNL lock is held; the channel belongs to `dev`.
    pub(crate) unsafe fn create_pool(&self, dev: &NetDevice<T>, params: PoolParams) -> Result {
        // Its pages are mapped for the parent, and given back in the poll.
        if !dev.has_parent() || !T::HAS_POLL {
            return Err(ENODEV);
        }
        // A pool made while the interface is down would be overlooked when the device goes.
        if !dev.is_running() {
            return Err(ENETDOWN);
        }
        // SAFETY: the RTNL lock is held.
        if unsafe { *self.running.get() } {
            return Err(EBUSY);
        }
        // SAFETY: the channel does not run, so NAPI is disabled and the RTNL lock guards the pool.
        // When that is dropped, here or in `stop`, NAPI is disabled again, and before the device
        // goes, the interface is taken down, which stops the channel. So the parent is bound.
        unsafe {
            self.drop_pool();
            self.list(dev);
            let made = self.make_pool(dev, params);
            if made.is_err() {
                self.unlist();
            }
            made
        }
    }

    /// # Safety
    ///
    /// NAPI is disabled and on the list of `dev`, and the RTNL lock held. There is no pool.
    unsafe fn make_pool(&self, dev: &NetDevice<T>, params: PoolParams) -> Result {
        // SAFETY: by the caller.
        unsafe {
            let pool = PagePool::new(dev.as_raw(), self.napi.get(), self.index, params)?;
            let rxq = RxqInfo::new(self.napi.get(), self.index, pool.as_raw())?;
            *self.pool.get() = Some(pool);
            *self.rxq.get() = Some(rxq);
        }
        Ok(())
    }

    /// See [`crate::Locked::alloc_buffer`].
    ///
    /// # Safety
    ///
    /// The RTNL lock is held.
    pub(crate) unsafe fn alloc_buffer_stopped(&self) -> Option<PoolBuffer> {
        // SAFETY: the RTNL lock is held; it guards the pool of a channel that does not run, whose
        // NAPI is disabled. Its holder may sleep.
        unsafe {
            if *self.running.get() {
                return None;
            }
            (*self.pool.get()).as_ref()?.alloc(true)
        }
    }

    /// See [`crate::Locked::start_channel`].
    ///
    /// # Safety
    ///
    /// The RTNL lock is held; the channel belongs to `dev`.
    pub(crate) unsafe fn start(&self, dev: &NetDevice<T>, tx: T::Tx, rx: T::Rx) -> Result {
        // SAFETY: the RTNL lock is held.
        let (running, name) = unsafe { (&mut *self.running.get(), &mut *self.irq_name.get()) };
        let queue = dev.tx_queue(self.index).ok_or(EINVAL)?;
        if !dev.is_running() {
            return Err(ENETDOWN);
        }
        if *running {
            return Err(EBUSY);
        }
        name.len = 0;
        name.bytes = [0; 24];
        let _ = name.write_str(dev.name().to_str().unwrap_or("vnet"));
        let _ = core::write!(name, "-{}", self.index);

        // SAFETY: by the caller. Before there is an interrupt, which schedules it.
        unsafe { self.list(dev) };
        // SAFETY: the channel does not run, so NAPI is disabled and the RTNL lock guards the state.
        unsafe { *self.rx.get() = Some(rx) };
        {
            let _locked = queue.lock_bh();
            // SAFETY: the lock of the queue is held.
            unsafe { *self.tx.get() = Some(tx) };
        }
        if let Some(irq) = self.irq {
            // SAFETY: the handler gets a pointer to the channel, which is pinned and outlives the
            // request: `stop` frees it, and a running channel is always stopped before it is
            // dropped. So does the name.
            let requested = to_result(unsafe {
                bindings::request_threaded_irq(
                    irq,
                    Some(Self::interrupt),
                    None,
                    0,
                    name.bytes.as_ptr().cast(),
                    core::ptr::from_ref(self).cast_mut().cast(),
                )
            });
            if let Err(e) = requested {
                // SAFETY: as for this function; NAPI is disabled and the handler not registered.
                unsafe {
                    self.drop_states(&queue);
                    self.unlist();
                }
                return Err(e);
            }
            // SAFETY: the context was added and is disabled; the interrupt is requested, and `stop`
            // takes the hint back.
            unsafe {
                // The interrupt must be known when NAPI is enabled: that gives it its CPU.
                b::nd_napi_set_irq(self.napi.get(), irq as c_int);
                cpu::give_hint(dev, self.index, irq);
            }
        }
        if T::HAS_POLL {
            // SAFETY: the RTNL lock is held, `napi` belongs to the device and is disabled, and both
            // queues exist.
            unsafe {
                b::napi_enable(self.napi.get());
                self.tell_queues(dev, self.napi.get());
            }
        }
        *running = true;
        Ok(())
    }

    /// See [`crate::Locked::stop_channel`].
    ///
    /// # Safety
    ///
    /// The RTNL lock is held; the channel belongs to `dev`.
    pub(crate) unsafe fn stop(&self, dev: &NetDevice<T>) {
        // SAFETY: the RTNL lock is held.
        if unsafe { !*self.running.get() } {
            // It may have a pool, if it was about to be started.
            // SAFETY: NAPI is disabled and the RTNL lock held.
            unsafe {
                self.drop_pool();
                self.unlist();
            }
            return;
        }
        let Some(queue) = dev.tx_queue(self.index) else {
            return;
        };
        // SAFETY: the RTNL lock is held, and `start` set what is taken back here.
        unsafe {
            if T::HAS_POLL {
                self.tell_queues(dev, core::ptr::null_mut());
            }
            if let Some(irq) = self.irq {
                b::nd_napi_set_irq(self.napi.get(), -1);
                cpu::take_hint(irq);
                bindings::free_irq(irq, core::ptr::from_ref(self).cast_mut().cast());
            }
        }
        if !T::HAS_POLL {
            // SAFETY: as for this function; there is neither a poll nor a handler.
            unsafe { self.drop_states(&queue) };
            return;
        }
        // SAFETY: as for this function; NAPI was enabled by `start`, and the handler is gone.
        unsafe {
            b::napi_disable(self.napi.get());
            // The last poll is completed, but may still be arming, which takes no time to speak of.
            while self.polling.load(Acquire) {
                udelay(Delta::from_micros(1));
            }
            self.end_turns();
            self.drop_states(&queue);
        }
        self.end_adaptation();
        // SAFETY: the RTNL lock is held, and NAPI is disabled.
        unsafe { self.unlist() };
    }

    /// Tells the core which NAPI context serves the queues, if any.
    ///
    /// # Safety
    ///
    /// The RTNL lock is held; the channel belongs to `dev`, and `napi` is its context or null.
    unsafe fn tell_queues(&self, dev: &NetDevice<T>, napi: *mut b::napi_struct) {
        for kind in [
            b::netdev_queue_type_NETDEV_QUEUE_TYPE_RX,
            b::netdev_queue_type_NETDEV_QUEUE_TYPE_TX,
        ] {
            // SAFETY: by the caller; both queues exist.
            unsafe { b::netif_queue_set_napi(dev.as_raw(), u32::from(self.index), kind, napi) }
        }
    }

    /// Drops the states and the pool.
    ///
    /// # Safety
    ///
    /// The RTNL lock is held, NAPI is disabled with no poll under way, and the interrupt handler is
    /// not registered.
    unsafe fn drop_states(&self, queue: &TxQueue<'_>) {
        let tx = {
            let guard = queue.lock_bh();
            guard.stop();
            // Not when it starts again, which it may never do: to the stack's watchdog a queue that is over
            // its limit is stuck, in use or not.
            guard.reset();
            // SAFETY: the lock of the queue is held.
            unsafe { (*self.tx.get()).take() }
        };
        // SAFETY: NAPI is disabled and the RTNL lock held.
        let rx = unsafe { (*self.rx.get()).take() };
        // SAFETY: the RTNL lock is held.
        unsafe { *self.running.get() = false };
        drop((tx, rx));
        // The last, as most of its pages just came back.
        // SAFETY: NAPI is disabled and the RTNL lock held.
        unsafe { self.drop_pool() };
    }

    /// # Safety
    ///
    /// NAPI is disabled and the RTNL lock held.
    unsafe fn drop_pool(&self) {
        // SAFETY: by the caller, nobody else has access.
        unsafe {
            *self.rxq.get() = None;
            *self.pool.get() = None;
        }
    }

    /// The state of the transmit queue.
    ///
    /// # Safety
    ///
    /// The lock of the queue is held for `'a`, and no other reference to the state exists.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn tx<'a>(&self) -> Option<&'a mut T::Tx> {
        // SAFETY: by the caller.
        unsafe { (*self.tx.get()).as_mut() }
    }

    #[inline]
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// The device that the channel was added to.
    ///
    /// # Safety
    ///
    /// That was made for `T`, and is valid for `'a`.
    pub(crate) unsafe fn device<'a>(&self) -> &'a NetDevice<T> {
        // SAFETY: by the caller; the field does not change.
        unsafe { NetDevice::from_raw((*self.napi.get()).dev) }
    }

    /// Has the poll called. Does nothing for a channel that does not run.
    pub(crate) fn schedule(&self) {
        if T::HAS_POLL {
            // SAFETY: `napi` is valid; scheduling a disabled context has no effect.
            unsafe { b::nd_napi_schedule(self.napi.get()) }
        }
    }

    /// The same for what stands in for an interrupt, and counts as one.
    ///
    /// # Safety
    ///
    /// Interrupts are off, but with `PREEMPT_RT`, and the channel was added to a device made for `T`.
    pub(crate) unsafe fn raise(&self) {
        if T::HAS_POLL {
            self.interrupts.add(1);
            // SAFETY: by the caller; the device outlives its channels.
            trace::irq(unsafe { self.device() }, self.index);
            // SAFETY: `napi` is valid, and interrupts are off where the core relies on it.
            unsafe { b::nd_napi_schedule_irqoff(self.napi.get()) }
        }
    }

    /// The interrupt of the channel.
    ///
    /// # Safety
    ///
    /// `data` points to a channel that is valid and added to a device.
    unsafe extern "C" fn interrupt(_irq: c_int, data: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: `start` gave this pointer, valid until `free_irq` returns.
        let channel = unsafe { &*data.cast::<Self>() };
        // SAFETY: interrupts are off in a handler, and a channel is added before it is started.
        unsafe { channel.raise() };
        series::IRQ_HANDLED
    }

    /// The poll callback of the NAPI context.
    ///
    /// # Safety
    ///
    /// `napi` is the context of a channel of a device made for `T`, and polled by the core.
    unsafe extern "C" fn poll(napi: *mut b::napi_struct, budget: c_int) -> c_int {
        // SAFETY: only the contexts of channels have this callback.
        let channel = unsafe { &*container_of!(Opaque::cast_from(napi), Self, napi) };
        // SAFETY: the context was added to a device made for `T`, which outlives it.
        let dev = unsafe { NetDevice::<T>::from_raw((*napi).dev) };
        let budget = u32::try_from(budget).unwrap_or(0);
        if budget == 0 {
            // netpoll, for completed transmissions only. The context may not be scheduled, so it
            // is not completed either. The lock is only tried: its holder may be who is
            // interrupted here.
            let napi_ref = Napi {
                channel,
                dev,
                budget,
                _task: NotThreadSafe,
            };
            if T::HAS_RECLAIM {
                if let Some(mut guard) = TxGuard::try_lock(dev, channel) {
                    let (queue, tx) = guard.split();
                    dev.ops().reclaim(dev, &napi_ref, queue, tx);
                }
            }
            return 0;
        }
        let Some(polling) = Polling::begin(&channel.polling) else {
            // The poll before, on another CPU, is about to be through.
            return budget as c_int;
        };
        // SAFETY: this call has set `polling`, and NAPI was enabled when it began; whoever disables
        // it waits for `polling` to be clear before touching the state.
        let Some(rx) = (unsafe { (*channel.rx.get()).as_mut() }) else {
            // SAFETY: called by the poll callback.
            unsafe { b::napi_complete_done(napi, 0) };
            return 0;
        };
        let napi_ref = Napi {
            channel,
            dev,
            budget,
            _task: NotThreadSafe,
        };
        let polled = dev.ops().poll(dev, &napi_ref, rx, budget);
        let done = match polled {
            Polled::Idle(done) if done < budget => done,
            Polled::Waits => {
                // An interrupt that came meanwhile has the core poll again.
                // SAFETY: called by the poll callback.
                unsafe { b::napi_complete_done(napi, 0) };
                return 0;
            }
            Polled::Idle(done) | Polled::Again(done) => {
                trace::poll(dev, channel.index, done, budget, false);
                // SAFETY: this call has set `polling`.
                if !unsafe { channel.note_long_poll() } {
                    return budget as c_int;
                }
                // False as below; then there is nothing to do but to say that it is complete.
                // SAFETY: called by the poll callback.
                if unsafe { b::napi_complete_done(napi, done as c_int) } {
                    // SAFETY: this call has set `polling`.
                    unsafe { channel.queue_turn() };
                    // Not before: `stop` waits for this, and only then for the work.
                    drop(polling);
                }
                // All of the budget would mean that it is not complete.
                return (budget - 1) as c_int;
            }
        };
        // SAFETY: this call has set `polling`.
        unsafe { channel.note_short_poll() };
        trace::poll(dev, channel.index, done, budget, true);
        // False if the core is going to poll by itself: it was asked to meanwhile, a process polls
        // busily, or a timer does until the interrupt is wanted again. Then the card stays silent.
        // SAFETY: called by the poll callback.
        if unsafe { b::napi_complete_done(napi, done as c_int) } {
            // SAFETY: this call has set `polling`.
            unsafe { channel.adapt(dev, rx) };
            let armed = !T::HAS_ARM || dev.ops().arm(&Arming { channel, dev }, rx);
            drop(polling);
            if !armed {
                // SAFETY: the context is valid; one that was disabled since is not scheduled.
                unsafe { b::nd_napi_schedule(napi) }
            }
        }
        done as c_int
    }
}

/// Exclusive use of the state of a poll.
struct Polling<'a>(&'a AtomicFlag);

impl<'a> Polling<'a> {
    #[inline]
    fn begin(flag: &'a AtomicFlag) -> Option<Self> {
        (!flag.xchg(true, Acquire)).then_some(Self(flag))
    }
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

/// A poll that is completed: the channel is about to wait for its interrupt.
///
/// Softirq context, bottom halves disabled. The argument of [`Operations::arm`]: it can do less than a [`Napi`], as the
/// next poll of the channel may begin on another CPU meanwhile.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// fn arm(&self, channel: &Arming<'_, Self>, rx: &mut Rx) -> bool {
///     rx.enable_interrupts()
///         && channel
///             .lock_tx()
///             .is_none_or(|mut tx| tx.enable_interrupts())
/// }
/// ```
pub struct Arming<'a, T: Operations> {
    channel: &'a Channel<T>,
    dev: &'a NetDevice<T>,
}

impl<T: Operations> Arming<'_, T> {
    /// Locks the transmit queue of the channel. `None` if it has no state: it is being stopped.
    #[inline]
    pub fn lock_tx(&self) -> Option<TxGuard<'_, T>> {
        TxGuard::lock(self.dev, self.channel)
    }
}

/// The NAPI context of a running poll.
///
/// Softirq context, bottom halves disabled, never twice at a time for one channel. Methods of other types that are for that
/// context only take one as the proof.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase5_napi.rs
/// if let Some(mut tx) = napi.lock_tx() {
///     let (queue, ring) = tx.split();
///     ring.complete(queue, Some(napi), |_, _| c.tx_packets.add(1));
/// }
/// ```
pub struct Napi<'a, T: Operations> {
    channel: &'a Channel<T>,
    dev: &'a NetDevice<T>,
    budget: u32,
    _task: NotThreadSafe,
}

impl<T: Operations> Napi<'_, T> {
    /// False in a poll for completed transmissions only, which may be in hard interrupt context.
    #[inline]
    pub fn is_scheduled(&self) -> bool {
        self.budget != 0
    }

    /// Index of the channel.
    #[inline]
    pub fn index(&self) -> u16 {
        self.channel.index
    }

    /// The device that is polled.
    #[inline]
    pub fn device(&self) -> &NetDevice<T> {
        self.dev
    }

    /// A buffer of the channel's pool, mapped for the device to write. Does not sleep.
    #[inline]
    pub fn alloc_buffer(&self) -> Option<PoolBuffer> {
        // A poll for completed transmissions has nothing to do with receiving.
        if self.budget == 0 {
            return None;
        }
        // SAFETY: this is within the poll of the channel, as a `Napi` does not leave its task, and
        // so nobody else uses the pool, which was made for this context.
        unsafe { (*self.channel.pool.get()).as_ref()?.alloc(false) }
    }

    /// The pool of the linear parts of skbs, which only this poll uses.
    #[inline]
    pub(crate) fn head_pool(&self) -> Option<NonNull<b::page_pool>> {
        // A poll for completed transmissions has nothing to do with receiving.
        if self.budget == 0 {
            return None;
        }
        // SAFETY: within the poll of the channel, as above.
        unsafe { (*self.channel.pool.get()).as_ref() }.map(PagePool::heads)
    }

    /// What XDP programs are told of the receive queue, and what its buffers are.
    #[inline]
    pub(crate) fn rxq_info(&self) -> Option<(NonNull<b::xdp_rxq_info>, PoolParams)> {
        // SAFETY: within the poll of the channel, as above; the address stays until it is stopped.
        let (info, pool) = unsafe {
            (
                (*self.channel.rxq.get()).as_ref()?,
                (*self.channel.pool.get()).as_ref()?,
            )
        };
        Some((NonNull::new(info.as_raw())?, pool.params()))
    }

    /// Locks the transmit queue of the channel. `None` if it has no state: it is being stopped.
    #[inline]
    pub fn lock_tx(&self) -> Option<TxGuard<'_, T>> {
        TxGuard::lock(self.dev, self.channel)
    }

    pub(crate) fn as_raw(&self) -> *mut b::napi_struct {
        self.channel.napi.get()
    }

    pub(crate) fn budget(&self) -> c_int {
        self.budget as c_int
    }
}
