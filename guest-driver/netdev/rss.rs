// SPDX-License-Identifier: GPL-2.0

//! Receive side scaling: what `ethtool -x`, `-X` and `-n ... rx-flow-hash` show and set.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

use core::slice;
use kernel::{
    error::from_result,
    prelude::*, //
};

use crate::{
    bindings as b,
    error::EOPNOTSUPP,
    ethtool::Answer,
    vtable::Callbacks,
    Locked,
    NetDevice,
    Operations, //
};

/// Kinds of frames that have a choice of what is hashed.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/rss.rs
/// Flow::TcpV4 => regs::RSS_HASH_TCPV4,
/// Flow::UdpV4 => regs::RSS_HASH_UDPV4,
/// Flow::TcpV6 => regs::RSS_HASH_TCPV6,
/// Flow::UdpV6 => regs::RSS_HASH_UDPV6,
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// TCP over IPv4.
    TcpV4,
    /// UDP over IPv4.
    UdpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv6.
    UdpV6,
}

/// Kinds of frames as `ethtool` names them.
enum Kind {
    /// One with ports that may be hashed.
    Ports(Flow),
    /// One of which addresses are hashed at most.
    Addresses,
    /// One that has none, or that is not known.
    Other,
}

impl Kind {
    fn of(flow_type: u32) -> Self {
        match flow_type {
            b::TCP_V4_FLOW => Self::Ports(Flow::TcpV4),
            b::UDP_V4_FLOW => Self::Ports(Flow::UdpV4),
            b::TCP_V6_FLOW => Self::Ports(Flow::TcpV6),
            b::UDP_V6_FLOW => Self::Ports(Flow::UdpV6),
            b::SCTP_V4_FLOW
            | b::AH_ESP_V4_FLOW
            | b::AH_V4_FLOW
            | b::ESP_V4_FLOW
            | b::IPV4_FLOW
            | b::SCTP_V6_FLOW
            | b::AH_ESP_V6_FLOW
            | b::AH_V6_FLOW
            | b::ESP_V6_FLOW
            | b::IPV6_FLOW => Self::Addresses,
            _ => Self::Other,
        }
    }
}

const ADDRESSES: u32 = b::RXH_IP_SRC | b::RXH_IP_DST;
const PORTS: u32 = b::RXH_L4_B_0_1 | b::RXH_L4_B_2_3;

/// A change of the set-up; what is `None` stays as it is.
///
/// The argument of [`crate::ethtool::Operations::set_rss`]. The layer has checked that entries are channels in use.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/rss.rs
/// if let Some(table) = change.table {
///     if table.iter().any(|pair| *pair >= pairs) {
///         return Err(EINVAL);
///     }
///     for (entry, pair) in rss.table.iter_mut().zip(table) {
///         *entry = *pair as u8;
///     }
/// }
/// ```
pub struct RssChange<'a> {
    /// The indirection table, as long as the device's.
    pub table: Option<&'a [u32]>,
    /// The key, as long as the device's.
    pub key: Option<&'a [u8]>,
    /// Whether both directions of a flow get the same hash.
    pub symmetric: Option<bool>,
}

/// The set-up as it is, to be written. A part that nobody asked for is empty.
///
/// The argument of [`crate::ethtool::Operations::rss`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/rss.rs
/// pub(crate) fn show_rss(&self, state: &mut RssState<'_>) -> Result {
///     let rss = self.rss.as_ref().ok_or(EOPNOTSUPP)?.lock();
///     for (out, entry) in state.table.iter_mut().zip(&rss.table[..rss.len]) {
///         *out = u32::from(*entry);
///     }
///     for (out, byte) in state.key.iter_mut().zip(&rss.key) {
///         *out = *byte;
///     }
///     state.symmetric = rss.symmetric;
///     Ok(())
/// }
/// ```
pub struct RssState<'a> {
    /// The indirection table.
    pub table: &'a mut [u32],
    /// The key.
    pub key: &'a mut [u8],
    /// Whether both directions of a flow get the same hash.
    pub symmetric: bool,
}

/// Fills a key with the random bytes that all devices of this machine share.
pub fn fill_key(key: &mut [u8]) {
    // SAFETY: the slice is valid, and nobody else uses it.
    unsafe { b::netdev_rss_key_fill(key.as_mut_ptr().cast(), key.len()) }
}

impl<T: Operations> Locked<'_, T> {
    /// True if the user chose the indirection table; it is to be kept as it is then.
    pub fn rss_table_is_chosen(&self) -> bool {
        // SAFETY: the device is valid.
        unsafe { b::netif_is_rxfh_configured(self.as_raw()) }
    }
}

impl<T: Operations> Callbacks<T> {
    /// Symmetric by exclusive or of source and destination.
    pub(crate) const SYMMETRIC: u32 = b::RXH_XFRM_SYM_XOR;

    /// Number of receive queues in use.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    pub(crate) unsafe extern "C" fn get_rx_ring_count(dev: *mut b::net_device) -> u32 {
        // SAFETY: the core gives a device that was registered for `T`.
        u32::from(unsafe { NetDevice::<T>::from_raw(dev) }.active_channels())
    }

    /// Length of the key.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    pub(crate) unsafe extern "C" fn get_rxfh_key_size(dev: *mut b::net_device) -> u32 {
        // SAFETY: the core gives a device that was registered for `T`.
        let (key, _) = unsafe { NetDevice::<T>::from_raw(dev) }.ops().rss_sizes();
        key as u32
    }

    /// Entries of the indirection table.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`.
    pub(crate) unsafe extern "C" fn get_rxfh_indir_size(dev: *mut b::net_device) -> u32 {
        // SAFETY: the core gives a device that was registered for `T`.
        let (_, table) = unsafe { NetDevice::<T>::from_raw(dev) }.ops().rss_sizes();
        table as u32
    }

    /// Key, table and transformation.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`; `param` is not shared, and has null or room for as much as the
    /// functions above say.
    pub(crate) unsafe extern "C" fn get_rxfh(
        dev: *mut b::net_device,
        param: *mut b::ethtool_rxfh_param,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, param) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *param) };
        let (key, table) = dev.ops().rss_sizes();
        // SAFETY: the core allocated what it wants to know by the functions above.
        let (key, table) = unsafe { (part_mut(param.key, key), part_mut(param.indir, table)) };
        let mut state = RssState {
            table,
            key,
            symmetric: false,
        };
        from_result(|| {
            dev.ops().rss(&mut state)?;
            param.input_xfrm = if state.symmetric {
                Self::SYMMETRIC as u8
            } else {
                0
            };
            param.hfunc = b::ND_RSS_TOEPLITZ;
            Ok(0)
        })
    }

    /// Changes key, table and transformation.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and `param` is valid.
    pub(crate) unsafe extern "C" fn set_rxfh(
        dev: *mut b::net_device,
        param: *mut b::ethtool_rxfh_param,
        extack: *mut b::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T`, with the RTNL lock held, and
        // valid structures.
        let (dev, param, mut answer) =
            unsafe { (Self::locked(dev), &*param, Answer::from_raw(extack)) };
        from_result(|| {
            if param.hfunc != b::ND_RSS_TOEPLITZ && param.hfunc != b::ND_RSS_NO_CHANGE {
                answer.say(c"the hash is Toeplitz");
                return Err(EOPNOTSUPP);
            }
            let symmetric = match u32::from(param.input_xfrm) {
                b::RXH_XFRM_NO_CHANGE => None,
                Self::SYMMETRIC => Some(true),
                0 => Some(false),
                _ => return Err(EOPNOTSUPP),
            };
            let (key, table) = dev.ops().rss_sizes();
            // SAFETY: the core checked the sizes against those of the functions above.
            let (key, table) = unsafe { (part(param.key, key), part(param.indir, table)) };
            dev.ops().set_rss(
                &dev,
                &RssChange {
                    table,
                    key,
                    symmetric,
                },
            )?;
            Ok(0)
        })
    }

    /// What is hashed of a kind of frame.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `fields` is not shared.
    pub(crate) unsafe extern "C" fn get_rxfh_fields(
        dev: *mut b::net_device,
        fields: *mut b::ethtool_rxfh_fields,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, fields) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *fields) };
        from_result(|| {
            if dev.ops().rss_sizes() == (0, 0) {
                return Err(EOPNOTSUPP);
            }
            fields.data = match Kind::of(fields.flow_type) {
                Kind::Ports(flow) if dev.ops().hashes_ports(flow) => ADDRESSES | PORTS,
                Kind::Ports(_) | Kind::Addresses => ADDRESSES,
                Kind::Other => 0,
            };
            Ok(0)
        })
    }

    /// Changes what is hashed of a kind of frame.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, and `fields` is valid.
    pub(crate) unsafe extern "C" fn set_rxfh_fields(
        dev: *mut b::net_device,
        fields: *const b::ethtool_rxfh_fields,
        extack: *mut b::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T`, with the RTNL lock held, and
        // valid structures.
        let (dev, fields, mut answer) =
            unsafe { (Self::locked(dev), &*fields, Answer::from_raw(extack)) };
        from_result(|| {
            if dev.ops().rss_sizes() == (0, 0) {
                return Err(EOPNOTSUPP);
            }
            match (Kind::of(fields.flow_type), fields.data) {
                (Kind::Ports(flow), ADDRESSES) => dev.ops().hash_ports(&dev, flow, false)?,
                (Kind::Ports(flow), ALL) => dev.ops().hash_ports(&dev, flow, true)?,
                (Kind::Addresses, ADDRESSES) => {}
                _ => {
                    answer.say(c"both addresses are hashed, and both ports of TCP and UDP or none");
                    return Err(EINVAL);
                }
            }
            Ok(0)
        })
    }
}

const ALL: u32 = ADDRESSES | PORTS;

/// # Safety
///
/// `at` is null, or valid for `len` items that nobody writes for `'a`.
unsafe fn part<'a, I>(at: *const I, len: usize) -> Option<&'a [I]> {
    // SAFETY: by the caller.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at, len) })
}

/// # Safety
///
/// `at` is null, or valid for `len` items that nobody else uses for `'a`.
unsafe fn part_mut<'a, I>(at: *mut I, len: usize) -> &'a mut [I] {
    if at.is_null() {
        return &mut [];
    }
    // SAFETY: by the caller.
    unsafe { slice::from_raw_parts_mut(at, len) }
}
