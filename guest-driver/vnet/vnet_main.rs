// SPDX-License-Identifier: GPL-2.0

//! Driver of the vnet card.
//!
//! The card, its registers and its rings are described in docs/datasheet.md and defined in the
//! `vnet_contract` crate, which the device server compiles too. This crate contains no `unsafe`
//! code: what talks to C is the `netdev` crate, and what talks to the rings is `vnet_ring`.
//!
//! | file | subject |
//! |---|---|
//! | `probe.rs` | finding out what the card is, and agreeing with it on features |
//! | `regs.rs` | access to the registers; noticing that the card is gone |
//! | `nic.rs` | the data of one card, and the operations of its network device |
//! | `queues.rs` | bringing queues up and down |
//! | `shape.rs` | how many pairs run, of what size; changing that |
//! | `rss.rs` | which pair gets a received frame |
//! | `moderation.rs` | how long an interrupt may wait |
//! | `tx.rs`, `rx.rs` | the two halves of a queue pair |
//! | `split.rs` | received frames whose headers are apart from payload |
//! | `xdp.rs` | XDP programs and their frames |
//! | `poll.rs` | the NAPI poll that serves both |
//! | `watch.rs` | interrupts that get lost |
//! | `memory.rs` | ring memory |
//! | `recovery.rs` | when to try again |
//! | `events.rs` | control interrupt, errors and reset |
//! | `power.rs` | sleep, function level reset, shutdown |
//! | `filter.rs` | receive mode and MAC filters |
//! | `stats.rs`, `ethtool.rs` | counters, and how they are shown |

#![forbid(unsafe_code)]

use kernel::pci;

mod drops;
mod ethtool;
mod events;
mod filter;
mod memory;
mod moderation;
mod nic;
mod offloads;
mod poll;
mod power;
mod probe;
mod queues;
mod recovery;
mod regs;
mod rss;
mod rx;
mod shape;
mod split;
mod stats;
mod tx;
mod watch;
mod xdp;

/// The driver.
struct Vnet;

netdev::pci_device_table!(
    PCI_TABLE,
    (),
    [(
        pci::DeviceId::from_id(
            pci::Vendor::REDHAT_QUMRANET,
            vnet_contract::pci::DEVICE_ID as u32
        ),
        ()
    )]
);

const _: () = assert!(
    pci::Vendor::REDHAT_QUMRANET.as_raw() == vnet_contract::pci::VENDOR_ID,
    "the id table names the vendor of the contract"
);

kernel::module_driver!(<T>, netdev::pci::Adapter<T>, {
    type: Vnet,
    name: "vnet",
    authors: ["The vnet authors"],
    description: "vnet network card",
    license: "GPL",
});
