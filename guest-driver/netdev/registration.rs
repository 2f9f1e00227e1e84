// SPDX-License-Identifier: GPL-2.0

//! Registered devices.

use core::{
    marker::PhantomData,
    ops::RangeInclusive,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    error::to_result,
    prelude::*,
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
};

use crate::{
    bindings as b,
    channel::Channel,
    device::Private,
    series,
    ticker::Ticker,
    timer::Timer,
    vectors::Vectors,
    vtable::Callbacks,
    xdp,
    Features,
    NetDevice,
    Operations, //
};

/// What a driver's probe hands over to have a network device registered.
///
/// Made in process context, and registered when `probe` has returned it: no callback comes before that.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// fn probe() -> Result<Config<'static, Nic>> {
///     Ok(Config {
///         // Locally administered (the 2 in the first byte), and the same at every start.
///         mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x20],
///         ..Config::new(Nic::default(), c"vnet%d")
///     })
/// }
/// ```
pub struct Config<'a, T: Operations> {
    /// The driver's data.
    pub ops: T,
    /// Template of the interface's name, such as `c"eth%d"`; at most 15 bytes.
    pub name: &'static CStr,
    /// Number of channels that there can be, at least one.
    pub channels: u16,
    /// Number of channels in use at first; see
    /// [`Locked::set_active_channels`](crate::Locked::set_active_channels).
    pub active: u16,
    /// Interrupt vectors: one per channel, and after those one for [`Operations::event`] if that is
    /// implemented. `None` for a device that has no hardware.
    pub vectors: Option<Vectors<'a>>,
    /// Address of the device.
    pub mac: [u8; 6],
    /// MTUs that it can be set to.
    pub mtu: RangeInclusive<u32>,
    /// Its offloads.
    pub features: Features,
    /// Bytes that it would like to write in front of each frame to send.
    pub headroom: u16,
    /// True if XDP programs may get to see frames of several buffers.
    pub xdp_frags: bool,
    /// True if it filters unicast addresses; otherwise the core sets promiscuous mode when there
    /// is more than one.
    pub unicast_filter: bool,
    /// Milliseconds without progress after which a stopped transmit queue counts as stuck.
    pub watchdog: u32,
    /// Milliseconds between calls of [`Operations::tick`].
    pub tick: u32,
}

impl<'a, T: Operations> Config<'a, T> {
    /// A device with one channel and nothing else that is special about it: no vectors, no offloads,
    /// an address that changes each time, frames as Ethernet has them.
    pub fn new(ops: T, name: &'static CStr) -> Self {
        let mut mac = [0; 6];
        // SAFETY: there is room for an address.
        unsafe { b::nd_random_mac(mac.as_mut_ptr()) };
        Self {
            ops,
            name,
            channels: 1,
            active: 1,
            vectors: None,
            mac,
            mtu: b::ETH_MIN_MTU..=b::ETH_DATA_LEN,
            features: Features::default(),
            headroom: 0,
            xdp_frags: false,
            unicast_filter: false,
            watchdog: 0,
            tick: 0,
        }
    }
}

/// A registered network device. Dropping it takes the interface down and unregisters it.
///
/// # Invariants
///
/// `dev` is a registered device that `new` made, with `control`, if any, requested for it.
///
/// Process context, without the RTNL lock. No driver makes one: that is what `probe` returns a [`Config`] for.
pub struct Registration<'a, T: Operations> {
    dev: NonNull<b::net_device>,
    control: Option<u32>,
    /// Freed after the interrupts, which `drop` frees.
    _vectors: Option<Vectors<'a>>,
    _ops: PhantomData<T>,
}

// SAFETY: a device may be unregistered from any task that may sleep, and `T` is `Send`.
unsafe impl<T: Operations> Send for Registration<'_, T> {}
// SAFETY: `&Registration` gives `&NetDevice<T>` only, which is `Sync`.
unsafe impl<T: Operations> Sync for Registration<'_, T> {}

/// Says what went wrong before there is an interface to say it of.
fn say(parent: Option<&Device<Bound>>, what: &str, e: Error) {
    match parent {
        Some(parent) => dev_err!(parent, "{what}: {e:?}\n"),
        None => pr_err!("{what}: {e:?}\n"),
    }
}

/// Name of the control interrupt in /proc/interrupts, as the interface may change its own.
const CONTROL_NAME: &CStr = c"vnet-control";

impl<'a, T: Operations> Registration<'a, T> {
    /// Registers a device, below `parent` if it is part of one.
    ///
    /// # Safety
    ///
    /// The value must be dropped while `parent` is bound and the code of the module is there; it must
    /// not be leaked.
    pub(crate) unsafe fn new(
        parent: Option<&'a Device<Bound>>,
        config: Config<'a, T>,
    ) -> Result<Self> {
        const { assert!(align_of::<Private<T>>() <= b::NETDEV_ALIGN as usize) };

        // The core takes a longer one for a bug in itself.
        if config.name.to_bytes().len() >= b::IFNAMSIZ as usize || config.channels == 0 {
            return Err(EINVAL);
        }
        // The interrupt of a channel has its poll called.
        if config.vectors.is_some() && !(T::HAS_POLL && parent.is_some()) {
            return Err(EINVAL);
        }
        let irq = |i: u16| -> Result<Option<u32>> {
            match &config.vectors {
                Some(vectors) => Ok(Some(vectors.irq(i)?)),
                None => Ok(None),
            }
        };
        let control = if T::HAS_EVENT {
            irq(config.channels)?
        } else {
            None
        };
        let mut channels = KVec::with_capacity(usize::from(config.channels), GFP_KERNEL)?;
        for i in 0..config.channels {
            let channel = KBox::pin(Channel::<T>::new(i, irq(i)?), GFP_KERNEL)?;
            channels.push(channel, GFP_KERNEL)?;
        }

        let queues = u32::from(config.channels);
        // SAFETY: the name is terminated and short, as the core checks; `ether_setup` is a set-up
        // function. "Predictable" says that the kernel's choice is to be kept, which udev does.
        let dev = NonNull::new(unsafe {
            b::alloc_netdev_mqs(
                size_of::<Private<T>>() as c_int,
                config.name.as_char_ptr(),
                b::NET_NAME_PREDICTABLE as u8,
                Some(b::ether_setup),
                queues,
                queues,
            )
        })
        .ok_or(ENOMEM)?;
        let raw = dev.as_ptr();
        // SAFETY: started by callbacks of the device only, and stopped when it is taken down, which
        // unregistering does.
        let timers = unsafe {
            Ticker::new::<T>(raw, msecs_to_jiffies(config.tick))
                .and_then(|ticker| Ok((ticker, Timer::new::<T>(raw)?)))
        };
        let (ticker, timer) = match timers {
            Ok(timers) => timers,
            Err(e) => {
                // SAFETY: allocated above, with nothing in its private area yet.
                unsafe { b::free_netdev(raw) };
                return Err(e);
            }
        };
        // SAFETY: the device is fresh and nobody else knows it; its private area has the size of
        // `Private<T>` and, as asserted, its alignment.
        unsafe {
            NetDevice::<T>::private_ptr(raw).write(Private {
                ops: config.ops,
                channels,
                ticker,
                timer,
                program: xdp::Slot::new(),
                control,
            });
            (*raw).netdev_ops = &Callbacks::<T>::NETDEV.0;
            if T::HAS_RX_QUEUE_STATS {
                (*raw).stat_ops = &Callbacks::<T>::STATS.0;
            }
            (*raw).ethtool_ops = &Callbacks::<T>::ETHTOOL.0;
            (*raw).dev.parent = parent.map_or(core::ptr::null_mut(), crate::dma::as_raw);
            (*raw).min_mtu = *config.mtu.start();
            (*raw).max_mtu = *config.mtu.end();
            (*raw).mtu = (*raw).mtu.min(*config.mtu.end());
            (*raw).hw_features = config.features.as_raw();
            (*raw).features = config.features.as_raw() | b::ND_F_HIGHDMA;
            (*raw).vlan_features = (*raw).features;
            // A checksum is summed from wherever the frame says, be it in a tunnel. Segments of
            // tunnels are cut by software.
            (*raw).hw_enc_features = (*raw).features & !b::ND_F_GSO_MASK;
            (*raw).needed_headroom = config.headroom;
            if T::HAS_SET_XDP {
                (*raw).xdp_features = xdp::features(config.xdp_frags);
            }
            let watchdog: Jiffies = msecs_to_jiffies(config.watchdog);
            (*raw).watchdog_timeo = watchdog as c_int;
            if config.unicast_filter {
                b::nd_set_unicast_filter(raw);
            }
            b::nd_set_mac(raw, config.mac.as_ptr());
            b::netif_carrier_off(raw);
            for channel in &(*NetDevice::<T>::private_ptr(raw)).channels {
                channel.as_ref().set_up();
            }
        }
        let active = c_uint::from(config.active);
        // SAFETY: the device is allocated with its queues, and nobody else knows it.
        let sized = unsafe {
            if config.vectors.is_some() {
                // Each interrupt gets a CPU of its own, and keeps the one that the user chose. Which is
                // near the core asks the device, that is where its parent is only once registered.
                b::nd_set_parent_node(raw);
                b::netif_set_affinity_auto(raw);
            }
            to_result(b::netif_set_real_num_queues(raw, active, active))
        };
        if let Err(e) = sized {
            // SAFETY: not registered, so nobody else uses it.
            unsafe { Self::free(raw) };
            return Err(e);
        }
        // SAFETY: the device is complete.
        if let Err(e) = to_result(unsafe { b::register_netdev(raw) }) {
            say(parent, "cannot register the network device", e);
            // SAFETY: not registered, so nobody else uses it.
            unsafe { Self::free(raw) };
            return Err(e);
        }
        if let Some(control) = control {
            // SAFETY: the handler gets the device, which outlives the request: `drop` frees it first.
            let requested = to_result(unsafe {
                bindings::request_threaded_irq(
                    control,
                    None,
                    Some(Self::control),
                    bindings::IRQF_ONESHOT as usize,
                    CONTROL_NAME.as_char_ptr(),
                    raw.cast(),
                )
            });
            if let Err(e) = requested {
                say(parent, "cannot request the control interrupt", e);
                // SAFETY: registered above, and used by nobody when unregistering returns.
                unsafe {
                    b::unregister_netdev(raw);
                    Self::free(raw);
                }
                return Err(e);
            }
        }
        // INVARIANT: registered, and the interrupt requested.
        let this = Self {
            dev,
            control,
            _vectors: config.vectors,
            _ops: PhantomData,
        };
        this.device().with_lock(|dev| dev.spread_cpus());
        if T::HAS_EVENT {
            this.device().ops().event(this.device());
        }
        Ok(this)
    }

    /// The device.
    pub fn device(&self) -> &NetDevice<T> {
        // SAFETY: by the type invariant.
        unsafe { NetDevice::from_raw(self.dev.as_ptr()) }
    }

    /// Frees a device that is not registered.
    ///
    /// # Safety
    ///
    /// The device was made by `new`, is not registered and used by nobody.
    unsafe fn free(dev: *mut b::net_device) {
        // SAFETY: by the caller. The driver's data may hold page pools that know NAPI contexts,
        // so it goes before these, which go before the memory that they are in.
        unsafe {
            let private = NetDevice::<T>::private_ptr(dev);
            core::ptr::drop_in_place(&raw mut (*private).ops);
            for channel in &(*private).channels {
                channel.unlist();
            }
            core::ptr::drop_in_place(&raw mut (*private).channels);
            core::ptr::drop_in_place(&raw mut (*private).ticker);
            core::ptr::drop_in_place(&raw mut (*private).timer);
            core::ptr::drop_in_place(&raw mut (*private).program);
            b::free_netdev(dev);
        }
    }

    /// The thread of the control interrupt.
    ///
    /// # Safety
    ///
    /// `data` points to a device that was registered for `T`.
    unsafe extern "C" fn control(_irq: c_int, data: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: `new` gave this pointer, valid until `free_irq` returns.
        let dev = unsafe { NetDevice::<T>::from_raw(data.cast()) };
        if T::HAS_EVENT {
            dev.ops().event(dev);
        }
        series::IRQ_HANDLED
    }
}

impl<T: Operations> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        let dev = self.dev.as_ptr();
        // SAFETY: by the type invariant. Unregistering takes the interface down, waits for all
        // users, and returns when no callback runs any more.
        unsafe {
            if let Some(control) = self.control {
                bindings::free_irq(control, dev.cast());
            }
            b::unregister_netdev(dev);
            Registration::<'_, T>::free(dev);
        }
    }
}
