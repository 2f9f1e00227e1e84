// SPDX-License-Identifier: GPL-2.0

//! Statistics of single queues, which the kernel tells by netlink (`netdev`, `qstats-get`).
//!
//! C header: [`include/net/netdev_queues.h`](srctree/include/net/netdev_queues.h)

use kernel::prelude::*;

use crate::{
    bindings as b,
    vtable::{
        Callbacks,
        Table, //
    },
    NetDevice, //
};

macro_rules! queue_stats {
    ($($(#[$doc:meta])* $type:ident is $raw:ident { $($(#[$field_doc:meta])* $name:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $type {
                $($(#[$field_doc])* pub $name: u64,)*
            }

            impl $type {
                /// Sets what is counted here; the rest is left as not counted.
                fn write(&self, raw: &mut b::$raw) {
                    $(raw.$name = self.$name;)*
                }

                fn add(&mut self, other: Self) {
                    $(self.$name = self.$name.wrapping_add(other.$name);)*
                }
            }
        )*
    };
}

queue_stats! {
    /// Statistics of a receive queue, since the device was registered.
    RxQueueStats is netdev_queue_stats_rx {
        /// Frames given to the stack.
        packets,
        /// Their bytes.
        bytes,
        /// Times that there was no memory for a buffer or an skb.
        alloc_fail,
        /// Frames that the device dropped, for whatever reason.
        hw_drops,
        /// Those of them for which it had no buffers.
        hw_drop_overruns,
        /// Frames whose checksum the device vouched for.
        csum_unnecessary,
        /// Frames of whose checksum the device said nothing.
        csum_none,
        /// Frames that the device made of several segments.
        hw_gro_packets,
        /// Their bytes.
        hw_gro_bytes,
        /// The segments that they were made of.
        hw_gro_wire_packets,
    }

    /// Statistics of a transmit queue, since the device was registered.
    TxQueueStats is netdev_queue_stats_tx {
        /// Frames that the device took.
        packets,
        /// Their bytes.
        bytes,
        /// Frames that the device dropped.
        hw_drops,
        /// Frames whose checksum was left to the device.
        needs_csum,
        /// Frames that were left to the device to cut into segments.
        hw_gso_packets,
        /// The segments that it makes of them.
        hw_gso_wire_packets,
        /// Times that the queue was stopped for want of descriptors.
        stop,
        /// Times that it was woken again.
        wake,
    }
}

impl<T: crate::Operations> Callbacks<T> {
    pub(crate) const STATS: &'static Table<b::netdev_stat_ops> = &Table(b::netdev_stat_ops {
        get_queue_stats_rx: Some(Self::get_queue_stats_rx),
        get_queue_stats_tx: Some(Self::get_queue_stats_tx),
        get_base_stats: Some(Self::get_base_stats),
    });

    /// Statistics of a receive queue that is in use.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `stats` is valid and not shared.
    unsafe extern "C" fn get_queue_stats_rx(
        dev: *mut b::net_device,
        queue: c_int,
        stats: *mut b::netdev_queue_stats_rx,
    ) {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, stats) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *stats) };
        dev.ops().rx_queue_stats(queue as u16).write(stats);
    }

    /// Statistics of a transmit queue that is in use.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `stats` is valid and not shared.
    unsafe extern "C" fn get_queue_stats_tx(
        dev: *mut b::net_device,
        queue: c_int,
        stats: *mut b::netdev_queue_stats_tx,
    ) {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, stats) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *stats) };
        dev.ops().tx_queue_stats(queue as u16).write(stats);
    }

    /// Statistics of the queues that are not in use, to which the core adds the others.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `rx` and `tx` are valid and not shared.
    unsafe extern "C" fn get_base_stats(
        dev: *mut b::net_device,
        rx: *mut b::netdev_queue_stats_rx,
        tx: *mut b::netdev_queue_stats_tx,
    ) {
        // SAFETY: the core gives a device that was registered for `T` and structures to fill.
        let (dev, rx, tx) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *rx, &mut *tx) };
        let (mut received, mut sent) = (RxQueueStats::default(), TxQueueStats::default());
        for queue in dev.active_channels()..dev.channels() {
            received.add(dev.ops().rx_queue_stats(queue));
            sent.add(dev.ops().tx_queue_stats(queue));
        }
        received.write(rx);
        sent.write(tx);
    }
}
