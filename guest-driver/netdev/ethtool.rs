// SPDX-License-Identifier: GPL-2.0

//! What `ethtool` shows and sets.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

use core::{
    fmt::{
        self,
        Write, //
    },
    slice, //
};
use kernel::{
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*, //
};

use crate::{
    bindings as b,
    coalesce::Coalesce,
    error::EOPNOTSUPP,
    rss::{
        Flow,
        RssChange,
        RssState, //
    },
    vtable::{
        given,
        Callbacks,
        Table, //
    },
    Locked,
    NetDevice, //
};

/// Sizes of the rings.
///
/// Told by [`Operations::ring_sizes`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/ethtool.rs
/// fn ring_sizes(&self) -> RingSizes {
///     let (shape, max) = (self.shape(), u32::from(self.identity.max_ring));
///     RingSizes {
///         rx: (u32::from(shape.rx_ring), max),
///         tx: (u32::from(shape.tx_ring), max),
///         split: self.splits().then_some(shape.split),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RingSizes {
    /// Descriptors of a receive ring, and the most that it can have.
    pub rx: (u32, u32),
    /// Descriptors of a transmit ring, and the most that it can have.
    pub tx: (u32, u32),
    /// Whether headers are received apart from payload; `None` if the device cannot.
    pub split: Option<bool>,
}

/// What the user wants of the rings.
///
/// The argument of [`Operations::set_rings`]; the numbers are at most what the device said.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/ethtool.rs
/// fn set_rings(
///     &self,
///     dev: &Locked<'_, Self>,
///     change: RingChange,
///     answer: &mut Answer<'_>,
/// ) -> Result {
///     let shape = Shape {
///         rx_ring: self.ring_size(change.rx, answer)?,
///         tx_ring: self.ring_size(change.tx, answer)?,
///         split: self.may_split(change.split, answer)?,
///         ..self.shape()
///     };
///     self.reshape(dev, shape)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingChange {
    /// Descriptors of a receive ring.
    pub rx: u32,
    /// Descriptors of a transmit ring.
    pub tx: u32,
    /// Headers are to be received apart from payload.
    pub split: bool,
}

/// State of the link.
///
/// Told by [`Operations::link`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/ethtool.rs
/// fn link(&self) -> Link {
///     let link = self.link.load(Relaxed);
///     let up = link & regs::LINK_UP != 0 && self.present();
///     let speed = self.link_speed.load(Relaxed);
///     Link {
///         speed: (up && speed != regs::LINK_SPEED_UNKNOWN).then_some(speed),
///         full_duplex: up.then_some(link & regs::LINK_FULL_DUPLEX != 0),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Speed in Mbit/s, if known.
    pub speed: Option<u32>,
    /// Full duplex, if known.
    pub full_duplex: Option<bool>,
}

/// What a device tells `ethtool`. All methods run in process context with the RTNL lock held, and all
/// are optional: `ethtool` says of what is not implemented that it is not supported.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/ethtool_ops.rs
/// impl ethtool::Operations for Nic {
///     fn firmware_version(&self, out: &mut dyn Write) -> fmt::Result {
///         out.write_str("tour")
///     }
///
///     fn message_level(&self) -> u32 {
///         self.message_level.0.load(Relaxed)
///     }
///
///     fn set_message_level(&self, level: u32) {
///         self.message_level.0.store(level, Relaxed);
///     }
///
///     fn stats_names(&self, names: &mut Names<'_>) {
///         Counters::names(names);
///     }
///
///     fn stats_values(&self, _dev: &NetDevice<Self>, values: &mut Values<'_>) {
///         self.counters.values(values);
///     }
/// }
/// ```
#[vtable]
#[allow(unused_variables)] // of methods that are not implemented
pub trait Operations: Sized {
    /// Writes the version of the hardware or firmware, which is told with the name of the driver.
    fn firmware_version(&self, out: &mut dyn Write) -> fmt::Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The message level: a set of `NETIF_MSG_*` bits.
    fn message_level(&self) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the message level.
    fn set_message_level(&self, level: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sizes of the rings.
    fn ring_sizes(&self) -> RingSizes {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the rings, whose sizes are at most what [`Self::ring_sizes`] says. After an error
    /// nothing is changed.
    fn set_rings(
        &self,
        dev: &Locked<'_, Self>,
        change: RingChange,
        answer: &mut Answer<'_>,
    ) -> Result
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the number of channels in use, which is at least one and at most
    /// [`NetDevice::channels`]. After an error nothing is changed.
    fn set_channels(&self, dev: &Locked<'_, Self>, channels: u16) -> Result
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Interrupt moderation; `None` if the device has none.
    fn coalesce(&self) -> Option<Coalesce> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the interrupt moderation. After an error nothing is changed.
    fn set_coalesce(
        &self,
        dev: &Locked<'_, Self>,
        coalesce: Coalesce,
        answer: &mut Answer<'_>,
    ) -> Result
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Bytes of the key, and entries of the indirection table, of receive side scaling; zero if the
    /// device has none. They do not change.
    fn rss_sizes(&self) -> (usize, usize) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes the set-up of receive side scaling.
    fn rss(&self, state: &mut RssState<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the set-up of receive side scaling. Table entries are channels in use.
    fn set_rss(&self, dev: &Locked<'_, Self>, change: &RssChange<'_>) -> Result
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// True if the ports of such frames are hashed with the addresses.
    fn hashes_ports(&self, flow: Flow) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Has the ports of such frames hashed with the addresses, or not.
    fn hash_ports(&self, dev: &Locked<'_, Self>, flow: Flow, ports: bool) -> Result
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// State of the link.
    fn link(&self) -> Link {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Names the statistics. They are always the same.
    fn stats_names(&self, names: &mut Names<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes their values, in the same order.
    fn stats_values(&self, dev: &NetDevice<Self>, values: &mut Values<'_>)
    where
        Self: crate::Operations,
    {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// What is said with the answer to a request, beside an error number.
///
/// Process context, for the time of the request.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/split.rs
/// pub(crate) fn may_split(&self, wanted: bool, answer: &mut Answer<'_>) -> Result<bool> {
///     if !wanted {
///         return Ok(false);
///     }
///     if !self.splits() {
///         answer.say(c"the card cannot split headers and data");
///         return Err(EOPNOTSUPP);
///     }
///     if self.shape().program.is_some() {
///         answer.say(c"there is an XDP program, which has no use for tcp-data-split");
///         return Err(EBUSY);
///     }
///     Ok(true)
/// }
/// ```
pub struct Answer<'a>(Option<&'a mut b::netlink_ext_ack>);

impl Answer<'_> {
    /// # Safety
    ///
    /// `raw` is null, or valid and not shared for as long as the result is in use.
    pub(crate) unsafe fn from_raw(raw: *mut b::netlink_ext_ack) -> Self {
        // SAFETY: by the caller.
        Self(unsafe { raw.as_mut() })
    }

    /// Says why the request is refused.
    pub fn say(&mut self, why: &'static CStr) {
        if let Some(raw) = &mut self.0 {
            raw._msg = why.as_char_ptr();
        }
    }
}

/// Names of statistics, to be written one after the other. There are as many as names.
///
/// The argument of [`Operations::stats_names`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/counters.rs
/// pub(crate) fn names(names: &mut Names<'_>) {
///     for name in NAMES {
///         names.push(format_args!("{name}"));
///     }
/// }
/// ```
pub struct Names<'a> {
    room: slice::ChunksExactMut<'a, u8>,
    count: usize,
}

impl<'a> Names<'a> {
    const LEN: usize = b::ETH_GSTRING_LEN as usize;

    fn new(room: &'a mut [u8]) -> Self {
        Self {
            room: room.chunks_exact_mut(Self::LEN),
            count: 0,
        }
    }

    /// Counts the next name and, if there is room, writes it, cut to 31 bytes.
    pub fn push(&mut self, name: fmt::Arguments<'_>) {
        self.count += 1;
        if let Some(out) = self.room.next() {
            let room = out.len() - 1;
            // What does not fit is cut off, which `Text` never reports as an error.
            let _ = Text(&mut out[..room], 0).write_fmt(name);
        }
    }
}

/// Values of statistics, to be written one after the other.
///
/// The argument of [`Operations::stats_values`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/counters.rs
/// pub(crate) fn values(&self, values: &mut Values<'_>) {
///     for i in 0..NAMES.len() {
///         values.push(self.0.sum(i));
///     }
/// }
/// ```
pub struct Values<'a>(slice::IterMut<'a, u64>);

impl Values<'_> {
    /// Writes the next value. Values beyond the count are ignored.
    pub fn push(&mut self, value: u64) {
        if let Some(out) = self.0.next() {
            *out = value;
        }
    }
}

/// Text in a buffer of fixed size.
struct Text<'a>(&'a mut [u8], usize);

impl Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let part = &s.as_bytes()[..s.len().min(self.0.len() - self.1)];
        self.0[self.1..self.1 + part.len()].copy_from_slice(part);
        self.1 += part.len();
        Ok(())
    }
}

impl<T: crate::Operations> Callbacks<T> {
    pub(crate) const ETHTOOL: &'static Table<b::ethtool_ops> = &Table(b::ethtool_ops {
        supported_coalesce_params: if T::HAS_SET_COALESCE {
            Self::COALESCE
        } else {
            0
        },
        supported_ring_params: if T::HAS_SET_RINGS {
            b::ND_RING_PARAMS
        } else {
            0
        },
        _bitfield_1: Self::bits(),
        get_link: Some(b::ethtool_op_get_link),
        get_ts_info: Some(b::ethtool_op_get_ts_info),
        get_drvinfo: given!(T::HAS_FIRMWARE_VERSION, Self::get_drvinfo),
        get_msglevel: given!(T::HAS_MESSAGE_LEVEL, Self::get_msglevel),
        set_msglevel: given!(T::HAS_SET_MESSAGE_LEVEL, Self::set_msglevel),
        get_ringparam: given!(T::HAS_RING_SIZES, Self::get_ringparam),
        set_ringparam: given!(T::HAS_SET_RINGS, Self::set_ringparam),
        get_channels: given!(T::HAS_SET_CHANNELS, Self::get_channels),
        set_channels: given!(T::HAS_SET_CHANNELS, Self::set_channels),
        get_coalesce: given!(T::HAS_COALESCE, Self::get_coalesce),
        set_coalesce: given!(T::HAS_SET_COALESCE, Self::set_coalesce),
        get_rx_ring_count: given!(T::HAS_RSS, Self::get_rx_ring_count),
        get_rxfh_key_size: given!(T::HAS_RSS, Self::get_rxfh_key_size),
        get_rxfh_indir_size: given!(T::HAS_RSS, Self::get_rxfh_indir_size),
        get_rxfh: given!(T::HAS_RSS, Self::get_rxfh),
        set_rxfh: given!(T::HAS_SET_RSS, Self::set_rxfh),
        get_rxfh_fields: given!(T::HAS_HASHES_PORTS, Self::get_rxfh_fields),
        set_rxfh_fields: given!(T::HAS_HASH_PORTS, Self::set_rxfh_fields),
        get_sset_count: given!(T::HAS_STATS_NAMES, Self::get_sset_count),
        get_strings: given!(T::HAS_STATS_NAMES, Self::get_strings),
        get_ethtool_stats: given!(T::HAS_STATS_VALUES, Self::get_ethtool_stats),
        get_link_ksettings: given!(T::HAS_LINK, Self::get_link_ksettings),
        ..pin_init::zeroed()
    });

    /// The bit fields of the structure, of which `supported_input_xfrm` is the first and a byte
    /// wide: bindgen's function to make them is not a constant one.
    const fn bits() -> b::__BindgenBitfieldUnit<[u8; 2]> {
        let symmetric = if T::HAS_SET_RSS { Self::SYMMETRIC } else { 0 };
        b::__BindgenBitfieldUnit::new([symmetric as u8, 0])
    }

    /// Version of the device, and the name of the driver.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `info` is zeroed and not shared.
    unsafe extern "C" fn get_drvinfo(dev: *mut b::net_device, info: *mut b::ethtool_drvinfo) {
        // SAFETY: the core gives a device that was registered for `T` and a zeroed structure, which
        // it fills with the names of driver and bus itself where the device has a parent.
        let (dev, info) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *info) };
        if !dev.has_parent() {
            // SAFETY: the structure is the core's.
            unsafe { b::nd_driver_name(info) };
        }
        let mut text = [0u8; 31];
        let _ = dev.ops().firmware_version(&mut Text(&mut text, 0));
        info.fw_version[..text.len()].copy_from_slice(&text);
    }

    /// Message level.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    unsafe extern "C" fn get_msglevel(dev: *mut b::net_device) -> u32 {
        // SAFETY: the core gives a device that was registered for `T`.
        unsafe { NetDevice::<T>::from_raw(dev) }
            .ops()
            .message_level()
    }

    /// Sets the message level.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    unsafe extern "C" fn set_msglevel(dev: *mut b::net_device, level: u32) {
        // SAFETY: the core gives a device that was registered for `T`.
        unsafe { NetDevice::<T>::from_raw(dev) }
            .ops()
            .set_message_level(level)
    }

    /// Ring sizes.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `ring` and `kernel_ring` are valid and not shared.
    unsafe extern "C" fn get_ringparam(
        dev: *mut b::net_device,
        ring: *mut b::ethtool_ringparam,
        kernel_ring: *mut b::kernel_ethtool_ringparam,
        _extack: *mut b::netlink_ext_ack,
    ) {
        // SAFETY: the core gives a device that was registered for `T` and structures to fill.
        let (dev, ring, kernel_ring) =
            unsafe { (NetDevice::<T>::from_raw(dev), &mut *ring, &mut *kernel_ring) };
        let sizes = dev.ops().ring_sizes();
        (ring.rx_pending, ring.rx_max_pending) = sizes.rx;
        (ring.tx_pending, ring.tx_max_pending) = sizes.tx;
        if let Some(split) = sizes.split {
            kernel_ring.tcp_data_split = if split {
                b::ND_SPLIT_ON
            } else {
                b::ND_SPLIT_OFF
            };
        }
    }

    /// Changes the rings.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, `ring` and `kernel_ring` are valid, and
    /// `extack` is null or valid and not shared.
    unsafe extern "C" fn set_ringparam(
        dev: *mut b::net_device,
        ring: *mut b::ethtool_ringparam,
        kernel_ring: *mut b::kernel_ethtool_ringparam,
        extack: *mut b::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T`, with the RTNL lock held, and
        // valid structures.
        let (dev, ring, kernel_ring, mut answer) = unsafe {
            (
                Self::locked(dev),
                &*ring,
                &*kernel_ring,
                Answer::from_raw(extack),
            )
        };
        from_result(|| {
            // The core checked the sizes against what `get_ringparam` says is the most.
            let change = RingChange {
                rx: ring.rx_pending,
                tx: ring.tx_pending,
                // Left to the driver, it is off.
                split: kernel_ring.tcp_data_split == b::ND_SPLIT_ON,
            };
            dev.ops().set_rings(&dev, change, &mut answer)?;
            Ok(0)
        })
    }

    /// Numbers of channels.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `channels` is zeroed and not shared.
    unsafe extern "C" fn get_channels(dev: *mut b::net_device, channels: *mut b::ethtool_channels) {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, channels) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *channels) };
        channels.combined_count = u32::from(dev.active_channels());
        channels.max_combined = u32::from(dev.channels());
    }

    /// Changes the number of channels.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and `channels` is not shared.
    unsafe extern "C" fn set_channels(
        dev: *mut b::net_device,
        channels: *mut b::ethtool_channels,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T`, with the RTNL lock held, and
        // a valid structure.
        let (dev, channels) = unsafe { (Self::locked(dev), &*channels) };
        from_result(|| {
            // The core checked all counts against what `get_channels` says is the most.
            let n = u16::try_from(channels.combined_count)?;
            if n == 0 || n > dev.channels() {
                return Err(EINVAL);
            }
            dev.ops().set_channels(&dev, n)?;
            Ok(0)
        })
    }

    /// Number of the statistics: that of their names.
    fn stats_count(dev: &NetDevice<T>) -> usize {
        let mut names = Names::new(&mut []);
        dev.ops().stats_names(&mut names);
        names.count
    }

    /// Number of strings in a set.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    unsafe extern "C" fn get_sset_count(dev: *mut b::net_device, set: c_int) -> c_int {
        if set != b::ethtool_stringset_ETH_SS_STATS as c_int {
            return EOPNOTSUPP.to_errno();
        }
        // SAFETY: the core gives a device that was registered for `T`.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        c_int::try_from(Self::stats_count(dev)).unwrap_or(0)
    }

    /// The strings of a set.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `data` is zeroed room for as many strings as
    /// [`Self::get_sset_count`] said.
    unsafe extern "C" fn get_strings(dev: *mut b::net_device, set: u32, data: *mut u8) {
        if set != b::ethtool_stringset_ETH_SS_STATS {
            return;
        }
        // SAFETY: the core gives a device that was registered for `T`.
        let dev = unsafe { NetDevice::<T>::from_raw(dev) };
        // SAFETY: the core allocated, zeroed, a string per statistic, by `get_sset_count`.
        let data = unsafe { slice::from_raw_parts_mut(data, Self::stats_count(dev) * Names::LEN) };
        dev.ops().stats_names(&mut Names::new(data));
    }

    /// Values of the statistics.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `data` is zeroed room for as many values as `stats` says.
    unsafe extern "C" fn get_ethtool_stats(
        dev: *mut b::net_device,
        stats: *mut b::ethtool_stats,
        data: *mut u64,
    ) {
        // SAFETY: the core gives a device that was registered for `T`, and room, zeroed, for as
        // many values as `n_stats` says, by `get_sset_count`.
        let (dev, data) = unsafe {
            let n = (*stats).n_stats as usize;
            (
                NetDevice::<T>::from_raw(dev),
                slice::from_raw_parts_mut(data, n),
            )
        };
        dev.ops().stats_values(dev, &mut Values(data.iter_mut()));
    }

    /// State of the link.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `settings` is zeroed and not shared.
    unsafe extern "C" fn get_link_ksettings(
        dev: *mut b::net_device,
        settings: *mut b::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, settings) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *settings) };
        let link = dev.ops().link();
        settings.base.speed = link.speed.unwrap_or(b::SPEED_UNKNOWN as u32);
        settings.base.duplex = match link.full_duplex {
            Some(true) => b::DUPLEX_FULL as u8,
            Some(false) => b::DUPLEX_HALF as u8,
            None => b::DUPLEX_UNKNOWN as u8,
        };
        settings.base.port = b::PORT_OTHER as u8;
        settings.base.autoneg = b::AUTONEG_DISABLE as u8;
        0
    }
}
