// SPDX-License-Identifier: GPL-2.0

//! Counters of 64 bits, a copy for each CPU: what phase 6 is about.

use kernel::prelude::*;
use netdev::{
    ethtool::{
        Names,
        Values, //
    },
    prelude::*,
    Received, //
};

macro_rules! counters {
    ($($count:ident is $name:literal,)*) => {
        /// What is counted.
        #[derive(Clone, Copy)]
        #[allow(dead_code)] // ARP comes in phase 7
        pub(crate) enum Count {
            $($count,)*
        }

        /// What `ethtool -S` calls it, in the same order.
        const NAMES: &[&str] = &[$($name,)*];
    };
}

counters! {
    RxPackets is "rx_packets",
    RxBytes is "rx_bytes",
    RxDropped is "rx_dropped",
    RxMissed is "rx_missed",
    RxArp is "rx_arp",
    RxIpv4 is "rx_ipv4",
    RxIpv6 is "rx_ipv6",
    RxOther is "rx_other",
    TxPackets is "tx_packets",
    TxBytes is "tx_bytes",
    TxDropped is "tx_dropped",
    TxArp is "tx_arp",
    TxIpv4 is "tx_ipv4",
    TxIpv6 is "tx_ipv6",
    TxOther is "tx_other",
    ArpAnswered is "arp_answered",
    ArpAnswers is "arp_answers",
    Polls is "polls",
    FullPolls is "full_polls",
}

/// The counters of a device. Whoever counts does so on the CPU where it runs, so none of them waits for
/// another, whatever its context.
pub(crate) struct Counters(CpuCounters<{ NAMES.len() }>);

impl Counters {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(CpuCounters::new()?))
    }

    pub(crate) fn add(&self, count: Count, n: u64) {
        self.0.add(count as usize, n);
    }

    /// Counts a frame that was given to the stack, by the EtherType that it took it for.
    pub(crate) fn received(&self, taken: Option<Received>, bytes: u64) {
        let Some(Received { protocol, .. }) = taken else {
            return self.add(Count::RxDropped, 1);
        };
        self.add(Count::RxPackets, 1);
        self.add(Count::RxBytes, bytes);
        let count = match protocol {
            0x0806 => Count::RxArp,
            0x0800 => Count::RxIpv4,
            0x86dd => Count::RxIpv6,
            _ => Count::RxOther,
        };
        self.add(count, 1);
    }

    /// Counts a frame of so many bytes that is on the wire.
    pub(crate) fn sent(&self, bytes: u32) {
        self.add(Count::TxPackets, 1);
        self.add(Count::TxBytes, bytes.into());
    }

    /// Counts a frame that was put into the transmit ring, by its EtherType.
    pub(crate) fn queued(&self, protocol: u16) {
        let count = match protocol {
            0x0806 => Count::TxArp,
            0x0800 => Count::TxIpv4,
            0x86dd => Count::TxIpv6,
            _ => Count::TxOther,
        };
        self.add(count, 1);
    }

    /// For `ip -s link`.
    pub(crate) fn tell(&self, stats: &mut LinkStats<'_>) {
        let sum = |count| self.0.sum(count as usize);
        stats.rx_packets(sum(Count::RxPackets));
        stats.rx_bytes(sum(Count::RxBytes));
        stats.rx_dropped(sum(Count::RxDropped));
        stats.rx_missed_errors(sum(Count::RxMissed));
        stats.tx_packets(sum(Count::TxPackets));
        stats.tx_bytes(sum(Count::TxBytes));
        stats.tx_dropped(sum(Count::TxDropped));
    }

    pub(crate) fn names(names: &mut Names<'_>) {
        for name in NAMES {
            names.push(format_args!("{name}"));
        }
    }

    pub(crate) fn values(&self, values: &mut Values<'_>) {
        for i in 0..NAMES.len() {
            values.push(self.0.sum(i));
        }
    }
}
