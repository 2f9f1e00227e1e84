// SPDX-License-Identifier: GPL-2.0

//! The operations of a device as C sees them.
//!
//! Every callback gets a device that was registered for `T`; that is the safety argument of each
//! `from_raw` here, and none of them outlives the call.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::from_result,
    prelude::*, //
};

use crate::{
    bindings as b,
    error::EADDRNOTAVAIL,
    skb::DropReason,
    xdp,
    AddressList,
    Features,
    LinkStats,
    Locked,
    NetDevice,
    Operations,
    RxMode,
    SkBuff, //
};

/// A table of callbacks: immutable, so it may be shared.
pub(crate) struct Table<C>(pub(crate) C);
// SAFETY: immutable.
unsafe impl<C> Sync for Table<C> {}

/// A callback, if the driver has what it calls.
macro_rules! given {
    ($has:expr, $callback:expr) => {
        if $has {
            Some($callback)
        } else {
            None
        }
    };
}
pub(crate) use given;

pub(crate) struct Callbacks<T>(PhantomData<T>);

impl<T: Operations> Callbacks<T> {
    pub(crate) const NETDEV: &'static Table<b::net_device_ops> = &Table(b::net_device_ops {
        ndo_open: Some(Self::open),
        ndo_stop: Some(Self::stop),
        ndo_start_xmit: Some(Self::start_xmit),
        ndo_features_check: Some(Self::features_check),
        ndo_validate_addr: Some(b::eth_validate_addr),
        ndo_set_mac_address: given!(T::HAS_SET_MAC_ADDRESS, Self::set_mac_address),
        ndo_set_rx_mode_async: given!(T::HAS_SET_RX_MODE, Self::set_rx_mode),
        ndo_change_mtu: given!(T::HAS_CHANGE_MTU, Self::change_mtu),
        ndo_fix_features: given!(T::HAS_FIX_FEATURES, Self::fix_features),
        ndo_set_features: given!(T::HAS_SET_FEATURES, Self::set_features),
        ndo_tx_timeout: given!(T::HAS_TX_TIMEOUT, Self::tx_timeout),
        ndo_get_stats64: given!(T::HAS_STATS, Self::get_stats64),
        ndo_work: given!(T::HAS_WORK, Self::work),
        ndo_bpf: given!(T::HAS_SET_XDP, Self::bpf),
        ndo_xdp_xmit: given!(T::HAS_SET_XDP, Self::xdp_xmit),
        ..pin_init::zeroed()
    });

    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held for `'a`.
    pub(crate) unsafe fn locked<'a>(dev: *mut b::net_device) -> Locked<'a, T> {
        // SAFETY: by the caller.
        unsafe { Locked::new(NetDevice::from_raw(dev)) }
    }

    /// `ndo_open`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn open(dev: *mut b::net_device) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        from_result(|| {
            dev.ops().open(&dev).inspect_err(|_| {
                dev.timer().stop();
                dev.stop_all();
            })?;
            dev.start_ticker();
            Ok(0)
        })
    }

    /// `ndo_stop`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn stop(dev: *mut b::net_device) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        dev.ticker().stop();
        dev.ops().stop(&dev);
        dev.timer().stop();
        dev.stop_all();
        0
    }

    /// `ndo_start_xmit`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, `skb` is passed on, and the lock of the queue that it is mapped
    /// to is held with bottom halves disabled.
    unsafe extern "C" fn start_xmit(
        skb: *mut b::sk_buff,
        dev: *mut b::net_device,
    ) -> b::netdev_tx_t {
        // SAFETY: see the module.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        if let Some(skb) = NonNull::new(skb) {
            // SAFETY: the core passes the skb on.
            let skb = unsafe { SkBuff::from_raw(skb) };
            let meta = skb.meta();
            let index = meta.queue();
            match dev.tx_queue(index).zip(dev.channel(index)) {
                Some((queue, channel)) => {
                    // SAFETY: the core holds the lock of the queue that the skb is mapped to, as
                    // the device does not claim to do without (`lltx`), and calls this function
                    // once at a time under it.
                    match unsafe { channel.tx() } {
                        Some(tx) => dev.ops().start_xmit(dev, &queue, tx, skb, &meta),
                        None => skb.drop_with(DropReason::DeviceNotReady),
                    }
                }
                None => skb.drop_with(DropReason::DeviceNotReady),
            }
        }
        b::netdev_tx_NETDEV_TX_OK
    }

    /// `ndo_features_check`.
    ///
    /// # Safety
    ///
    /// `skb` is valid.
    unsafe extern "C" fn features_check(
        skb: *mut b::sk_buff,
        _dev: *mut b::net_device,
        features: b::netdev_features_t,
    ) -> b::netdev_features_t {
        // SAFETY: by the caller.
        unsafe { b::nd_features_check(skb, features) }
    }

    /// `ndo_set_mac_address`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and `addr` is a socket address that holds
    /// at least as many bytes as an Ethernet address has.
    unsafe extern "C" fn set_mac_address(dev: *mut b::net_device, addr: *mut c_void) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        from_result(|| {
            // SAFETY: `addr` is a `struct sockaddr_storage` in effect, whose data of at least
            // the address length follow the 16-bit family.
            let mac = unsafe { addr.cast::<u8>().add(2).cast::<[u8; 6]>().read() };
            // Valid for a station: neither zero nor multicast.
            if mac == [0; 6] || mac[0] & 1 != 0 {
                return Err(EADDRNOTAVAIL);
            }
            dev.ops().set_mac_address(&dev, mac)?;
            // SAFETY: the device is valid and the RTNL lock held.
            unsafe { b::nd_set_mac(dev.as_raw(), mac.as_ptr()) };
            Ok(0)
        })
    }

    /// `ndo_set_rx_mode_async`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and the lists are snapshots.
    unsafe extern "C" fn set_rx_mode(
        dev: *mut b::net_device,
        unicast: *mut b::netdev_hw_addr_list,
        multicast: *mut b::netdev_hw_addr_list,
    ) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock, and the lists are snapshots.
        let (dev, unicast, multicast, flags) = unsafe {
            (
                Self::locked(dev),
                AddressList::from_raw(unicast),
                AddressList::from_raw(multicast),
                (*dev).flags,
            )
        };
        from_result(|| {
            let mode = RxMode::from_flags(flags);
            dev.ops().set_rx_mode(&dev, mode, &unicast, &multicast)?;
            Ok(0)
        })
    }

    /// `ndo_change_mtu`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn change_mtu(dev: *mut b::net_device, mtu: c_int) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock and checked the limits.
        let dev = unsafe { Self::locked(dev) };
        from_result(|| {
            let mtu = u32::try_from(mtu)?;
            dev.ops().change_mtu(&dev, mtu)?;
            // SAFETY: the field is valid; readers use `READ_ONCE()`.
            unsafe { (&raw mut (*dev.as_raw()).mtu).write_volatile(mtu) };
            Ok(0)
        })
    }

    /// `ndo_fix_features`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn fix_features(
        dev: *mut b::net_device,
        features: b::netdev_features_t,
    ) -> b::netdev_features_t {
        // SAFETY: see the module.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        dev.ops()
            .fix_features(Features::from_raw(features))
            .as_raw()
    }

    /// `ndo_set_features`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn set_features(
        dev: *mut b::net_device,
        features: b::netdev_features_t,
    ) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        from_result(|| {
            dev.ops().set_features(&dev, Features::from_raw(features))?;
            Ok(0)
        })
    }

    /// `ndo_tx_timeout`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    unsafe extern "C" fn tx_timeout(dev: *mut b::net_device, queue: c_uint) {
        // SAFETY: see the module.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        dev.ops().tx_timeout(dev, queue as u16);
    }

    /// `ndo_get_stats64`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `stats` is zeroed and not shared.
    unsafe extern "C" fn get_stats64(dev: *mut b::net_device, stats: *mut b::rtnl_link_stats64) {
        // SAFETY: see the module; `stats` is zeroed by the core and not shared.
        let (dev, stats) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *stats) };
        dev.ops().stats(dev, &mut LinkStats::new(stats));
    }

    /// `ndo_work`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and the RTNL lock is held.
    unsafe extern "C" fn work(dev: *mut b::net_device, events: c_ulong) {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        dev.ops().work(&dev, events);
    }

    /// `ndo_bpf`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and `bpf` is valid with the members that
    /// its command has.
    unsafe extern "C" fn bpf(dev: *mut b::net_device, bpf: *mut b::netdev_bpf) -> c_int {
        // SAFETY: see the module; the core holds the RTNL lock.
        let dev = unsafe { Self::locked(dev) };
        // SAFETY: by the caller.
        let (command, setup) =
            unsafe { ((*bpf).command, (*bpf).__bindgen_anon_1.__bindgen_anon_1) };
        if command != b::bpf_netdev_command_XDP_SETUP_PROG {
            return EINVAL.to_errno();
        }
        // SAFETY: the core passes a reference to the program on if this succeeds.
        match unsafe { xdp::set_program(&dev, setup.prog) } {
            Ok(()) => 0,
            Err(refusal) => {
                if !setup.extack.is_null() {
                    // SAFETY: valid if it is there; the message is static.
                    unsafe { (*setup.extack)._msg = refusal.message.as_char_ptr() };
                }
                if setup.prog.is_null() {
                    // The core takes the program for gone, which it is.
                    crate::err!(dev, "XDP: {}\n", refusal.message.to_str().unwrap_or(""));
                    return 0;
                }
                refusal.error.to_errno()
            }
        }
    }

    /// `ndo_xdp_xmit`.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, bottom halves are disabled, and `frames` has `count` frames, of
    /// which those that the result counts are passed on.
    unsafe extern "C" fn xdp_xmit(
        dev: *mut b::net_device,
        count: c_int,
        frames: *mut *mut b::xdp_frame,
        flags: u32,
    ) -> c_int {
        // SAFETY: see the module.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        from_result(|| {
            if flags & !b::ND_XDP_XMIT_FLUSH != 0 {
                return Err(EINVAL);
            }
            let count = usize::try_from(count).unwrap_or(0);
            let flush = flags & b::ND_XDP_XMIT_FLUSH != 0;
            // SAFETY: by the caller.
            let sent = unsafe { xdp::transmit(dev, frames, count, flush) }?;
            Ok(sent as c_int)
        })
    }
}
