// SPDX-License-Identifier: GPL-2.0

//! Network device abstractions.
//!
//! What `kernel` 7.3 lacks for a network driver: net devices and their operations, socket buffers,
//! NAPI, transmit queues, the page pool, streaming DMA, ethtool, and the PCI callbacks beyond
//! probe and remove. All `unsafe` code of the module lives in this crate; the driver above it
//! forbids it.
//!
//! # Shape
//!
//! A PCI driver implements [`pci::Driver`]: its `probe` returns a [`Config`], and the crate turns
//! that into a registered [`NetDevice`] that lives as long as the driver is bound. A device without
//! hardware implements [`software::Driver`], and lives as long as its module is loaded. The device's
//! behaviour is the [`Operations`] trait, implemented by the driver's private data; most of it is
//! optional.
//!
//! # Who may touch what
//!
//! A device has *channels*: an interrupt vector, a NAPI context, a receive and a transmit queue.
//! The mutable state of a channel is handed to the crate when the channel starts
//! ([`Locked::start_channel`]) and dropped when it stops ([`Locked::stop_channel`], or at the latest
//! when the interface is down). In between
//!
//! - [`Operations::Tx`] is reachable in [`Operations::start_xmit`], where the core holds the lock of
//!   the transmit queue, and through [`Napi::lock_tx`], which takes it;
//! - [`Operations::Rx`] is reachable in [`Operations::poll`] only, which never runs twice at a time
//!   for one channel. So it is with the channel's page pool ([`Napi::alloc_buffer`]).
//!
//! Everything else in the private data is shared and immutable, or atomic. Operations that the core
//! serializes by the RTNL lock get a [`Locked`] device, the proof of holding it.
//!
//! C headers: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h),
//! [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

mod bindings;
mod channel;
pub mod coalesce;
mod cpu;
mod device;
pub mod dma;
pub mod error;
pub mod ethtool;
mod features;
mod locked;
mod mac;
mod message;
mod operations;
mod page_pool;
pub mod pci;
mod percpu;
mod qstats;
mod queue;
mod registration;
pub mod rss;
mod series;
mod skb;
pub mod software;
#[cfg(kernel_7_2)]
mod spinlock;
mod stats;
mod ticker;
mod timer;
pub mod trace;
mod turns;
mod vectors;
mod vtable;
mod xdp;

pub use channel::{
    Arming,
    Napi,
    Polled, //
};
pub use cpu::online_cpus;
pub use device::NetDevice;
pub use features::Features;
pub use locked::Locked;
pub use mac::{
    AddressList,
    RxMode, //
};
pub use message::Level;
pub use operations::Operations;
pub use page_pool::{
    PoolBuffer,
    PoolParams,
    PAGE_SIZE, //
};
pub use percpu::CpuCounters;
pub use qstats::{
    RxQueueStats,
    TxQueueStats, //
};
pub use queue::{
    TxGuard,
    TxQueue, //
};
pub use registration::{
    Config,
    Registration, //
};
#[cfg(not(kernel_7_2))]
pub use series::new_spinlock_irq;
pub use series::SpinLockIrq;
pub use skb::{
    DropReason,
    InFlightSkb,
    PartialChecksum,
    Received,
    RxSkb,
    SegmentKind,
    Segmentation,
    SkBuff,
    TxMeta,
    MAX_FRAGS, //
};
pub use stats::{
    Counter,
    LinkStats, //
};
pub use timer::Interrupt;
pub use vectors::Vectors;
pub use xdp::{
    Program,
    Refusal,
    ReturnedFrames,
    Verdict,
    Xdp,
    XdpBuff,
    XdpFrame,
    XDP_HEADROOM,
    XDP_TAILROOM, //
};

/// What most drivers need.
pub mod prelude {
    pub use crate::{
        ethtool,
        software,
        Arming,
        Config,
        Counter,
        CpuCounters,
        DropReason,
        Interrupt,
        LinkStats,
        Locked,
        Napi,
        NetDevice,
        Operations,
        Polled,
        RxSkb,
        SkBuff,
        TxMeta,
        TxQueue, //
    };
}

/// Message level bit: interrupts.
pub const MSG_INTR: u32 = 1 << bindings::NETIF_MSG_INTR_BIT;
/// Message level bit: frames that are put into a transmit queue.
pub const MSG_TX_QUEUED: u32 = 1 << bindings::NETIF_MSG_TX_QUEUED_BIT;
/// Message level bit: transmitted frames that came back.
pub const MSG_TX_DONE: u32 = 1 << bindings::NETIF_MSG_TX_DONE_BIT;
/// Message level bit: polls of a receive queue.
pub const MSG_RX_STATUS: u32 = 1 << bindings::NETIF_MSG_RX_STATUS_BIT;

/// Prefix of messages that this crate prints without a device.
const __LOG_PREFIX: &[u8] = b"vnet\0";
