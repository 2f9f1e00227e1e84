// SPDX-License-Identifier: GPL-2.0

//! Counters.
//!
//! Each has one writer at a time: those of a transmit queue count under its lock, those of a
//! receive queue in its poll, and those of the card under the RTNL lock or in the control
//! interrupt's thread. But for `tx_timeouts`: the stack's watchdog, which runs in a timer, may find a
//! queue stuck at the same moment as the driver's own check does. Then the two count as one.

use netdev::{
    Counter,
    RxQueueStats,
    TxQueueStats, //
};

use crate::drops::Drops;

macro_rules! counters {
    ($(#[$doc:meta])* $type:ident { $($(#[$field_doc:meta])* $name:ident,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $type {
            $($(#[$field_doc])* pub(crate) $name: Counter,)*
        }

        impl $type {
            /// Names, in the order of [`Self::values`].
            pub(crate) const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// Values, in the order of [`Self::NAMES`].
            pub(crate) fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name.get(),)*]
            }
        }
    };
}

counters! {
    /// Frames by protocol.
    Protocols {
        arp,
        ipv4,
        ipv6,
        other,
    }
}

impl Protocols {
    /// Counts a frame with this EtherType.
    #[inline]
    pub(crate) fn count(&self, ethertype: u16) {
        match ethertype {
            0x0800 => &self.ipv4,
            0x86dd => &self.ipv6,
            0x0806 => &self.arp,
            _ => &self.other,
        }
        .add(1);
    }
}

counters! {
    /// Counters of a transmit queue.
    TxCounters {
        packets,
        bytes,
        /// Frames whose checksum was left to the card.
        csum,
        /// Frames that were left to the card to cut into segments.
        gso,
        /// Segments that it makes of them.
        gso_segments,
        /// Short frames that were copied.
        copied,
        /// Frames whose header had to be passed beside them.
        header_apart,
        /// Frames that took one descriptor of the ring, as the others are in a table of their own.
        indirect,
        /// Frames dropped for want of memory or descriptors, or because they are malformed.
        dropped,
        doorbells,
        /// Times that the stack was held back for want of descriptors.
        stops,
        /// Frames of XDP programs, of this device and others, and those that there was no room for.
        xdp_xmit,
        xdp_full,
        wakes,
        /// Times that the queue failed, and why: the used index, an id or a length.
        errors,
        bad_index,
        bad_id,
        bad_length,
    }
}

counters! {
    /// Counters of a receive queue.
    RxCounters {
        packets,
        bytes,
        /// Frames whose checksum the card vouched for.
        csum_unnecessary,
        /// Frames whose checksum is still to be completed, should they leave the machine.
        csum_partial,
        /// Frames made of several segments, their bytes, and the segments.
        hw_gro_packets,
        hw_gro_bytes,
        hw_gro_wire_packets,
        /// Frames that were copied out of their buffer.
        copied,
        multicast,
        /// Frames dropped for want of memory.
        dropped,
        /// Frames dropped because the header or length that the card gave is impossible.
        bad_frames,
        /// Times that no page was to be had for the ring.
        alloc_failed,
        /// Frames that an XDP program let pass, dropped, sent and redirected, and those dropped because
        /// it failed or what it asked for did.
        xdp_pass,
        xdp_drop,
        xdp_tx,
        xdp_redirect,
        xdp_errors,
        doorbells,
        polls,
        /// Times that frames lay there, or completed transmissions, and no interrupt came.
        lost_interrupts,
        /// Times that the queue failed, and why: the used index, an id, a length, or the buffers of a
        /// frame.
        errors,
        bad_index,
        bad_id,
        bad_length,
        bad_buffers,
    }
}

counters! {
    /// Counters of the card as a whole.
    CardCounters {
        /// Resets that the driver did because something failed.
        resets,
        /// Queue pairs that it started anew because one of their queues failed.
        queue_restarts,
        /// Queue errors that the card reported.
        queue_errors,
        /// Transmit queues found stuck.
        tx_timeouts,
        /// Times that the card had lost its state, and times that it did not answer.
        lost_states,
        lost_cards,
        link_changes,
    }
}

/// Counters of a transmit queue, with frames by protocol.
#[derive(Default)]
pub(crate) struct TxStats {
    pub(crate) queue: TxCounters,
    pub(crate) protocols: Protocols,
    /// Frames that the card dropped.
    pub(crate) drops: Drops,
}

/// Counters of a receive queue, with frames by protocol.
#[derive(Default)]
pub(crate) struct RxStats {
    pub(crate) queue: RxCounters,
    pub(crate) protocols: Protocols,
    /// Frames that the card dropped, and those of them for which it had no buffers.
    pub(crate) drops: Drops,
    pub(crate) missed: Drops,
}

impl TxStats {
    /// What the kernel tells of a transmit queue.
    pub(crate) fn told(&self) -> TxQueueStats {
        let queue = &self.queue;
        TxQueueStats {
            packets: queue.packets.get(),
            bytes: queue.bytes.get(),
            hw_drops: self.drops.get(),
            needs_csum: queue.csum.get(),
            hw_gso_packets: queue.gso.get(),
            hw_gso_wire_packets: queue.gso_segments.get(),
            stop: queue.stops.get(),
            wake: queue.wakes.get(),
        }
    }
}

impl RxStats {
    /// What the kernel tells of a receive queue.
    pub(crate) fn told(&self) -> RxQueueStats {
        let queue = &self.queue;
        let unnecessary = queue.csum_unnecessary.get();
        let packets = queue.packets.get();
        RxQueueStats {
            packets,
            bytes: queue.bytes.get(),
            alloc_fail: queue.alloc_failed.get().wrapping_add(queue.dropped.get()),
            hw_drops: self.drops.get(),
            hw_drop_overruns: self.missed.get(),
            csum_unnecessary: unnecessary,
            // A poll may be counting at the same time, so the difference is of no exact moment.
            csum_none: packets
                .saturating_sub(unnecessary)
                .saturating_sub(queue.csum_partial.get()),
            hw_gro_packets: queue.hw_gro_packets.get(),
            hw_gro_bytes: queue.hw_gro_bytes.get(),
            hw_gro_wire_packets: queue.hw_gro_wire_packets.get(),
        }
    }
}
