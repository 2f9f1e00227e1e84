// SPDX-License-Identifier: GPL-2.0

//! Receive modes and address lists.

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::container_of;

use crate::bindings as b;

/// What a device is to receive beside its own address and the lists.
///
/// The argument of [`Operations::set_rx_mode`](crate::Operations::set_rx_mode): process context, RTNL lock held.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/filter.rs
/// if mode.promiscuous || !filter.add(unicast, room) {
///     filter.mode |= regs::RX_MODE_PROMISC;
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMode {
    /// Every frame.
    pub promiscuous: bool,
    /// Every multicast frame.
    pub all_multicast: bool,
}

impl RxMode {
    pub(crate) fn from_flags(flags: u32) -> Self {
        Self {
            promiscuous: flags & b::net_device_flags_IFF_PROMISC != 0,
            all_multicast: flags & b::net_device_flags_IFF_ALLMULTI != 0,
        }
    }
}

/// A list of addresses, which does not change while it is borrowed.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/filter.rs
/// fn add(&mut self, list: &AddressList<'_>, room: usize) -> bool {
///     if list.len() > room - self.len {
///         return false;
///     }
///     for (slot, address) in self.addresses[self.len..room].iter_mut().zip(list.iter()) {
///         *slot = address;
///         self.len += 1;
///     }
///     true
/// }
/// ```
pub struct AddressList<'a>(&'a b::netdev_hw_addr_list);

impl<'a> AddressList<'a> {
    /// # Safety
    ///
    /// `list` is a valid list that nobody changes for `'a`.
    pub(crate) unsafe fn from_raw(list: *const b::netdev_hw_addr_list) -> Self {
        // SAFETY: by the caller.
        Self(unsafe { &*list })
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        usize::try_from(self.0.count).unwrap_or(0)
    }

    /// True for a list without addresses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses.
    pub fn iter(&self) -> impl Iterator<Item = [u8; 6]> + 'a {
        Addresses {
            head: ptr::from_ref(&self.0.list),
            at: self.0.list.next,
            _list: PhantomData,
        }
    }
}

struct Addresses<'a> {
    head: *const b::list_head,
    at: *mut b::list_head,
    _list: PhantomData<&'a b::netdev_hw_addr_list>,
}

impl Iterator for Addresses<'_> {
    type Item = [u8; 6];

    fn next(&mut self) -> Option<[u8; 6]> {
        if ptr::eq(self.at, self.head) {
            return None;
        }
        // SAFETY: the list does not change, and all of its members but the head are in addresses,
        // of which an Ethernet device uses the first six bytes.
        unsafe {
            let address = container_of!(self.at, b::netdev_hw_addr, list);
            self.at = (*self.at).next;
            Some((&raw const (*address).addr).cast::<[u8; 6]>().read())
        }
    }
}
