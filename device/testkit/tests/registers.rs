// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers as the bus shows them, and every way to misuse them.
#![allow(missing_docs)]

mod common;

use common::{options, round_trip};
use proptest::prelude::*;
use vnet_contract::regs::{self, Access, Register, Reset};
use vnet_contract::{features, pci, queue};
use vnet_testkit::{command, region, Card, Server};

/// Offset in the BAR, its register, and the index of the slot in it.
fn global(offered: u64) -> Vec<(u32, &'static Register)> {
    let present = |r: &&Register| r.feature & !offered == 0;
    regs::GLOBAL
        .iter()
        .filter(present)
        .flat_map(|r| (0..r.count).map(move |n| (r.offset + n * r.stride, r)))
        .collect()
}

#[test]
fn a_fresh_card_shows_its_reset_values() {
    let server = Server::start_with("null", &["--queues", "3"]).unwrap();
    let mut card = server.card().unwrap();
    let offered = card.reg64(regs::DEVICE_FEATURES_LO).unwrap();
    for (offset, register) in global(offered) {
        // Doorbells beyond the last queue and filter entries beyond the last do not exist.
        if let (Reset::Value(value), 1) = (register.reset, register.count) {
            assert_eq!(card.reg(offset).unwrap(), value, "{}", register.name);
        }
    }
    for queue in 0..6 {
        for register in regs::QUEUE.iter().filter(|r| r.feature & !offered == 0) {
            if let Reset::Value(value) = register.reset {
                let got = card.reg(regs::queue_reg(queue, register.offset));
                assert_eq!(got.unwrap(), value, "queue {queue} {}", register.name);
            }
        }
    }
    assert_eq!(card.reg(regs::STATUS).unwrap(), regs::STATUS_READY);
    assert_eq!(card.reg(regs::QUEUE_PAIRS).unwrap(), 3);
    assert_eq!(card.reg(regs::VECTORS).unwrap(), 4);
    assert_eq!(card.reg(regs::ILLEGAL_ACCESSES).unwrap(), 0);
}

/// Counts the illegal accesses of `deed`.
fn illegal(card: &mut Card, deed: impl FnOnce(&mut Card)) -> u32 {
    let before = card.reg(regs::ILLEGAL_ACCESSES).unwrap();
    deed(card);
    card.reg(regs::ILLEGAL_ACCESSES).unwrap() - before
}

#[test]
fn illegal_accesses_read_zero_write_nothing_and_are_counted() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let offered = card.reg64(regs::DEVICE_FEATURES_LO).unwrap();
    let odd = [
        (0, 1),
        (0, 2),
        (1, 4),
        (2, 4),
        (3, 1),
        (2, 2),
        (4, 8),
        (0x1001, 2),
        (0x2002, 4),
    ];
    for (offset, len) in odd {
        let mut data = [0xaa; 8];
        let count = illegal(&mut card, |card| {
            card.read(region::BAR0, offset, &mut data[..len]).unwrap();
        });
        assert_eq!(count, 1, "read of {len} at {offset:#x}");
        assert!(data[..len].iter().all(|&b| b == 0));
        let count = illegal(&mut card, |card| {
            card.write(region::BAR0, offset, &data[..len]).unwrap();
        });
        assert_eq!(count, 1, "write of {len} at {offset:#x}");
    }
    // Holes, the counters and doorbells of queues that are not there, and missing features.
    let mut nowhere = vec![0x7c, 0x7fc, 0x103c, 0x1ffc, 0x3038, 0x3ffc];
    nowhere.push(regs::queue_reg(2, regs::Q_SIZE));
    nowhere.push(regs::stats_reg(2, regs::S_FRAMES));
    let absent = |f: u64| offered & f == 0;
    assert!(absent(features::VLAN_FILTER) && absent(features::TIMESTAMP));
    nowhere.push(regs::VLAN_FILTER);
    nowhere.push(regs::CLOCK_LO);
    for offset in nowhere {
        let count = illegal(&mut card, |card| {
            assert_eq!(card.reg(offset).unwrap(), 0, "{offset:#x}");
            card.set_reg(offset, 0xffff_ffff).unwrap();
            assert_eq!(card.reg(offset).unwrap(), 0, "{offset:#x}");
        });
        assert_eq!(count, 3, "{offset:#x}");
    }
    assert_eq!(illegal(&mut card, |c| c.doorbell(2, 0).unwrap()), 1);
    for (offset, register) in global(offered) {
        if register.access == Access::Ro && offset != regs::ILLEGAL_ACCESSES {
            let before = card.reg(offset).unwrap();
            let count = illegal(&mut card, |c| c.set_reg(offset, !before).unwrap());
            assert_eq!(count, 1, "{}", register.name);
            assert_eq!(card.reg(offset).unwrap(), before, "{}", register.name);
        }
    }
    // A reset forgets them.
    card.reset().unwrap();
    assert_eq!(card.reg(regs::ILLEGAL_ACCESSES).unwrap(), 0);
}

#[test]
fn eight_bytes_are_two_registers() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let mut data = [0; 8];
    card.read(region::BAR0, regs::ID.into(), &mut data).unwrap();
    let both = u64::from(regs::ID_VALUE) | u64::from(regs::VERSION_VALUE) << 32;
    assert_eq!(u64::from_le_bytes(data), both);
    let desc = regs::queue_reg(0, regs::Q_DESC_LO);
    let value = 0x1234_5678_9abc_def0u64;
    card.write(region::BAR0, desc.into(), &value.to_le_bytes())
        .unwrap();
    assert_eq!(card.reg64(desc).unwrap(), value);
    assert_eq!(card.reg(regs::ILLEGAL_ACCESSES).unwrap(), 0);
}

#[test]
fn features_are_negotiated_once() {
    let server = Server::start("loopback").unwrap();
    let mut card = server.card().unwrap();
    let offered = card.reg64(regs::DEVICE_FEATURES_LO).unwrap();
    for bit in 0..64 {
        let one = 1u64 << bit;
        card.reset().unwrap();
        let fits = features::check(offered, one).is_ok();
        assert_eq!(card.negotiate(one).is_ok(), fits, "feature {bit}");
    }
    card.reset().unwrap();
    card.negotiate(offered).unwrap();
    let count = illegal(&mut card, |card| {
        card.set_reg64(regs::DRIVER_FEATURES_LO, 0).unwrap();
        assert_eq!(card.reg64(regs::DRIVER_FEATURES_LO).unwrap(), offered);
    });
    assert_eq!(count, 2);
}

#[test]
fn an_address_or_mtu_that_cannot_be_is_refused() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let mac = [card.reg(regs::MAC_LO), card.reg(regs::MAC_HI)].map(Result::unwrap);
    for bad in [[0; 6], [0xff; 6], [1, 0, 0, 0, 0, 0]] {
        let (lo, hi) = regs::mac_to_regs(bad);
        let count = illegal(&mut card, |card| {
            card.set_reg(regs::MAC_LO, lo).unwrap();
            card.set_reg(regs::MAC_HI, hi).unwrap();
        });
        assert_eq!(count, 1, "{bad:?}");
        assert_eq!(card.reg(regs::MAC_LO).unwrap(), mac[0]);
        assert_eq!(card.reg(regs::MAC_HI).unwrap(), mac[1]);
    }
    let limits = card.reg(regs::MTU_LIMITS).unwrap();
    let (min, max) = (limits & 0xffff, limits >> 16);
    assert_eq!((min, max), (68, 9000));
    for (mtu, ok) in [
        (min, true),
        (max, true),
        (min - 1, false),
        (max + 1, false),
        (0, false),
        (u32::MAX, false),
    ] {
        card.set_reg(regs::MTU, 1500).unwrap();
        let count = illegal(&mut card, |c| c.set_reg(regs::MTU, mtu).unwrap());
        assert_eq!(count, u32::from(!ok), "{mtu}");
        let now = card.reg(regs::MTU).unwrap();
        assert_eq!(now, if ok { mtu } else { 1500 });
    }
}

#[test]
fn accesses_outside_a_region_harm_nobody() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let access = |offset: u64, region: u32, count: u32| {
        let mut m = offset.to_le_bytes().to_vec();
        m.extend_from_slice(&region.to_le_bytes());
        m.extend_from_slice(&count.to_le_bytes());
        m
    };
    let wire = &mut nic.card.wire;
    for (offset, region, count) in [
        (pci::BAR_REGS_SIZE, 0, 4),
        (pci::BAR_REGS_SIZE - 2, 0, 4),
        (u64::MAX, 0, 4),
        (u64::MAX - 3, 0, 4),
        (0, 1, 4),
        (0, 6, 4),
        (0, 8, 4),
        (0, 9, 4),
        (0, u32::MAX, 4),
        (4096, 7, 4),
        (0, 0, u32::MAX),
        (0, 7, 1 << 30),
        (0, 0, 0),
    ] {
        let reply = wire
            .request(command::REGION_READ, &access(offset, region, count), &[])
            .unwrap();
        if reply.error.is_none() {
            let data = &reply.payload[16..];
            assert!(data.len() <= 4096 && data.iter().all(|&b| b == 0 || b == 0xff));
        }
    }
    round_trip(&mut nic, 0, 1);
}

/// Offsets around everything that exists.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..pci::BAR_REGS_SIZE / 4).prop_map(|n| n * 4),
        6 => (0u32..0x80).prop_map(|n| u64::from(regs::QUEUE_BASE + n * 4)),
        4 => (0u32..0x20).prop_map(|n| u64::from(n * 4)),
        2 => 0..pci::BAR_REGS_SIZE,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![12 => Just(4usize), 2 => Just(8usize), 1 => 1usize..17]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        any::<u64>(),
        Just(64),
        Just(u64::MAX),
        (0u64..0x1000).prop_map(|p| 0x4000_0000 + p * 64)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::rounds(64), failure_persistence: None, ..Default::default() })]

    /// Any accesses to the registers and configuration space, in any order: the server answers
    /// each, and after a reset the card works.
    #[test]
    fn any_access_leaves_a_card_that_a_reset_repairs(
        list in prop::collection::vec((any::<bool>(), 0u8..8, offset(), length(), value()), 1..200)
    ) {
        thread_local! {
            static SERVER: Server = Server::start_with("loopback", &["--log", "error"]).unwrap();
        }
        SERVER.with(|server| {
            let mut nic = server.nic_with(options()).unwrap();
            for (write, region, offset, len, value) in list {
                let (region, offset) = match region {
                    0 => (region::CONFIG, offset % 256),
                    1 => (region::BAR2, offset % pci::BAR_MSIX_SIZE),
                    _ => (region::BAR0, offset),
                };
                let mut data = [0; 16];
                data[..8].copy_from_slice(&value.to_le_bytes());
                let data = &mut data[..len];
                // An access beyond the end is refused, which is an answer too.
                let answer = if write {
                    nic.card.write(region, offset, data)
                } else {
                    nic.card.read(region, offset, data)
                };
                if let Err(e) = answer {
                    assert!(matches!(e, vnet_testkit::Error::Refused { .. }), "{e}");
                }
            }
            nic.card.wire.call(command::DEVICE_RESET, &[], &[]).unwrap();
            nic.card.set_bus_master(true).unwrap();
            nic.restart().unwrap();
            round_trip(&mut nic, 0, 1);
            assert_eq!(nic.card.queue_error(queue::rx_index(0)).unwrap(), None);
        });
    }
}
