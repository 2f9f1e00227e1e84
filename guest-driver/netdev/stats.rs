// SPDX-License-Identifier: GPL-2.0

//! Counters and the statistics of a device.

use core::cell::UnsafeCell;

use crate::bindings as b;

/// A 64-bit counter with one writer and any number of readers.
///
/// Made for state that is counted in one context at a time, such as a poll or under a lock: adding
/// takes a plain load and store, not an atomic operation. Two writers at a time lose counts, no
/// more. 64-bit machines only, where a reader sees no half of a value.
///
/// Any context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// // One frame at a time, under the queue's lock: the counter has one writer.
/// self.dropped.add(1);
/// ```
#[derive(Default)]
pub struct Counter(UnsafeCell<u64>);

// SAFETY: all accesses are volatile and of a machine word, which the kernel's memory model treats
// as relaxed atomics.
unsafe impl Sync for Counter {}
// SAFETY: plain data.
unsafe impl Send for Counter {}

const _: () = assert!(size_of::<usize>() == 8, "counters need 64-bit words");

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// Adds to the counter.
    #[inline]
    pub fn add(&self, n: u64) {
        let p = self.0.get();
        // SAFETY: see `Sync`.
        unsafe { p.write_volatile(p.read_volatile().wrapping_add(n)) }
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        // SAFETY: see `Sync`.
        unsafe { self.0.get().read_volatile() }
    }
}

/// The standard statistics of a device, to be added to.
///
/// The argument of [`Operations::stats`](crate::Operations::stats), which may be called in any context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
///     stats.tx_dropped(self.dropped.get());
/// }
/// ```
pub struct LinkStats<'a>(&'a mut b::rtnl_link_stats64);

macro_rules! link_stats {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        impl<'a> LinkStats<'a> {
            pub(crate) fn new(raw: &'a mut b::rtnl_link_stats64) -> Self {
                Self(raw)
            }

            $(
                $(#[$doc])*
                pub fn $name(&mut self, n: u64) {
                    self.0.$name = self.0.$name.wrapping_add(n);
                }
            )*
        }
    };
}

link_stats! {
    /// Frames received.
    rx_packets;
    /// Bytes received.
    rx_bytes;
    /// Frames received wrongly.
    rx_errors;
    /// Frames received and dropped for want of memory.
    rx_dropped;
    /// Frames that the device dropped for want of buffers.
    rx_missed_errors;
    /// Multicast frames received.
    multicast;
    /// Frames sent.
    tx_packets;
    /// Bytes sent.
    tx_bytes;
    /// Frames that could not be sent.
    tx_errors;
    /// Frames dropped before they were sent.
    tx_dropped;
}
