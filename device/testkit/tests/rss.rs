// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Receive side scaling over the real socket: which pair a frame comes out of, and with what hash.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{counter, options, own, rounds, silence, wait_counter};
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_contract::{features, queue, regs};
use vnet_testkit::{Nic, Options, Server, LIMIT};

/// The key of the published values.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

type End = ([u8; 4], u16);

/// A UDP frame to the card itself, so that a loopback gives it back, with a serial number.
fn udp(nic: &Nic, from: End, to: End, serial: u32, len: usize) -> Vec<u8> {
    let mut f = [&nic.mac[..], &nic.mac, &[8, 0, 0x45, 0]].concat();
    f.extend((len as u16 - 14).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    f.extend([from.0, to.0].concat());
    f.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    f.extend([0, 8, 0, 0]);
    f.extend(serial.to_be_bytes());
    f.resize(len, serial as u8);
    f
}

fn serial(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[42..46].try_into().unwrap())
}

/// A flow for each number.
fn flow(nic: &Nic, number: u16, serial: u32) -> Vec<u8> {
    let len = 60 + usize::from(number) % 1200;
    udp(
        nic,
        ([10, 0, 0, 1], number),
        ([10, 0, 0, 2], 9),
        serial,
        len,
    )
}

fn pairs(server: &Server, pairs: u16) -> Nic {
    let options = options();
    let features = options.features | features::RSS | features::HASH_REPORT;
    server
        .nic_with(Options {
            pairs,
            features,
            ring_size: 128,
            ..options
        })
        .unwrap()
}

fn set_key(nic: &mut Nic, key: &[u8; 40]) {
    for (i, four) in (0..).zip(key.chunks_exact(4)) {
        let word = u32::from_le_bytes(four.try_into().unwrap());
        nic.card.set_reg(regs::RSS_KEY + i * 4, word).unwrap();
    }
}

fn set_table(nic: &mut Nic, entry: impl Fn(u32) -> u8) -> Vec<u8> {
    let size = nic.card.reg(regs::RSS_TABLE_SIZE).unwrap();
    let table: Vec<u8> = (0..size).map(entry).collect();
    for (i, four) in (0..).zip(table.chunks_exact(4)) {
        let word = u32::from_le_bytes(four.try_into().unwrap());
        nic.card.set_reg(regs::RSS_TABLE + i * 4, word).unwrap();
    }
    table
}

/// Programs key, types and table as drivers do, and turns spreading on.
fn spread(nic: &mut Nic, ctrl: u32, entry: impl Fn(u32) -> u8) -> Vec<u8> {
    set_key(nic, &KEY);
    let types = nic.card.reg(regs::RSS_HASH_SUPPORTED).unwrap();
    nic.card.set_reg(regs::RSS_HASH_TYPES, types).unwrap();
    let table = set_table(nic, entry);
    let ctrl = regs::RSS_CTRL_ENABLE | ctrl;
    nic.card.set_reg(regs::RSS_CTRL, ctrl).unwrap();
    assert_eq!(nic.card.reg(regs::RSS_CTRL).unwrap(), ctrl);
    table
}

/// Sends a frame, and returns the pair that it comes out of with its hash.
fn pass(nic: &mut Nic, pairs: u16, via: u16, frame: &[u8]) -> (u16, hdr::FlowHash) {
    nic.send(via, frame).unwrap();
    let end = Instant::now() + LIMIT;
    loop {
        for pair in 0..pairs {
            if let Some(got) = nic.try_receive(pair).unwrap() {
                assert_eq!(got.frame, frame);
                return (pair, got.hash);
            }
        }
        assert!(Instant::now() < end, "no frame came");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_single_pair_reports_the_published_hashes() {
    let server = Server::start("loopback").unwrap();
    let mut nic = pairs(&server, 1);
    assert_eq!(nic.features & features::HASH_REPORT, features::HASH_REPORT);
    // Nothing is hashed before the driver says what.
    let frame = flow(&nic, 1, 0);
    assert_eq!(pass(&mut nic, 1, 0, &frame).1, hdr::FlowHash::default());
    spread(&mut nic, 0, |_| 0);
    for (to, from, hash) in [
        (
            ([161, 142, 100, 80], 1766),
            ([66, 9, 149, 187], 2794),
            0x51cc_c178,
        ),
        (
            ([65, 69, 140, 83], 4739),
            ([199, 92, 111, 2], 14230),
            0xc626_b0ea,
        ),
        (
            ([12, 22, 207, 184], 38024),
            ([24, 19, 198, 95], 12898),
            0x5c2b_394a,
        ),
        (
            ([209, 142, 163, 6], 2217),
            ([38, 27, 205, 30], 48228),
            0xafc7_327f,
        ),
        (
            ([202, 188, 127, 2], 1303),
            ([153, 39, 163, 191], 44251),
            0x10e8_28a2,
        ),
    ] {
        let frame = udp(&nic, from, to, 0, 100);
        let got = pass(&mut nic, 1, 0, &frame).1;
        assert_eq!((got.value, got.report), (hash, hdr::HASH_UDPV4));
    }
    // Hashes come without spreading, too; what is not IP has none.
    nic.card.set_reg(regs::RSS_CTRL, 0).unwrap();
    let frame = udp(
        &nic,
        ([66, 9, 149, 187], 2794),
        ([161, 142, 100, 80], 1766),
        0,
        100,
    );
    assert_eq!(pass(&mut nic, 1, 0, &frame).1.value, 0x51cc_c178);
    let other = own(&nic, 100, 3);
    assert_eq!(pass(&mut nic, 1, 0, &other).1, hdr::FlowHash::default());
}

#[test]
fn the_table_chooses_the_pair_whatever_pair_the_frame_comes_by() {
    const PAIRS: u16 = MAX_QUEUE_PAIRS;
    let server = Server::start_with("loopback", &["--queues", "16"]).unwrap();
    let mut nic = pairs(&server, PAIRS);
    // One entry names a pair that does not exist.
    let table = spread(
        &mut nic,
        0,
        |i| if i == 5 { 99 } else { (i * 7 % 16) as u8 },
    );
    let mut seen = BTreeMap::new();
    for number in 0..256 {
        let frame = flow(&nic, number, 0);
        let (pair, hash) = pass(&mut nic, PAIRS, number % PAIRS, &frame);
        assert_eq!(hash.report, hdr::HASH_UDPV4);
        let entry = u16::from(table[hash.value as usize % table.len()]);
        assert_eq!(pair, if entry < PAIRS { entry } else { 0 }, "flow {number}");
        *seen.entry(pair).or_insert(0u64) += 1;
    }
    assert_eq!(seen.len(), usize::from(PAIRS), "{seen:?}");
    // Without a hash: where entry 0 says.
    set_table(&mut nic, |i| if i == 0 { 11 } else { 1 });
    let frame = own(&nic, 80, 4);
    assert_eq!(
        pass(&mut nic, PAIRS, 2, &frame),
        (11, hdr::FlowHash::default())
    );
    *seen.get_mut(&11).unwrap() += 1;
    for (pair, frames) in seen {
        let rx = queue::rx_index(pair);
        assert_eq!(counter(&mut nic, rx, regs::S_FRAMES), frames, "pair {pair}");
        assert_eq!(counter(&mut nic, rx, regs::S_DROPS), 0);
    }
    // Without spreading: the pair that it came by.
    nic.card.set_reg(regs::RSS_CTRL, 0).unwrap();
    nic.card.reg(regs::RSS_CTRL).unwrap();
    for via in 0..PAIRS {
        let frame = flow(&nic, via, 0);
        assert_eq!(pass(&mut nic, PAIRS, via, &frame).0, via);
    }
}

#[test]
fn both_directions_meet_if_the_hash_is_symmetric() {
    let server = Server::start_with("loopback", &["--queues", "4"]).unwrap();
    let mut nic = pairs(&server, 4);
    let mut differ = 0;
    for ctrl in [0, regs::RSS_CTRL_SYMMETRIC] {
        spread(&mut nic, ctrl, |i| (i % 4) as u8);
        for port in 0..40 {
            let (a, b) = (([10, 0, 0, 1], 1000 + port), ([10, 7, 0, 2], 80));
            let (there, back) = (udp(&nic, a, b, 0, 60), udp(&nic, b, a, 0, 60));
            let one = pass(&mut nic, 4, 0, &there);
            let other = pass(&mut nic, 4, 1, &back);
            match ctrl {
                0 => differ += u32::from(one != other),
                _ => assert_eq!(one, other, "port {port}"),
            }
        }
    }
    assert!(differ > 30, "{differ} of 40 differ");
}

#[test]
fn a_driver_that_did_not_accept_rss_has_none() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let two = Options {
        pairs: 2,
        ..options()
    };
    let mut nic = server.nic_with(two).unwrap();
    spread(&mut nic, 0, |_| 1);
    for via in [0, 1] {
        let frame = flow(&nic, 3, 0);
        assert_eq!(
            pass(&mut nic, 2, via, &frame),
            (via, hdr::FlowHash::default())
        );
    }
}

#[test]
fn frames_get_past_a_pair_that_does_not_receive_and_are_lost_for_it() {
    let server = Server::start_with("loopback", &["--queues", "3"]).unwrap();
    let mut nic = pairs(&server, 3);
    spread(&mut nic, 0, |_| 1);
    let off = queue::rx_index(2);
    nic.stop(off).unwrap();
    // By way of pair 2 to pair 1.
    for n in 0..10 {
        let frame = flow(&nic, n, 0);
        assert_eq!(pass(&mut nic, 3, 2, &frame).0, 1);
    }
    // From everywhere to pair 2.
    set_table(&mut nic, |_| 2);
    for n in 0..30 {
        let frame = flow(&nic, n, 0);
        nic.send(n % 3, &frame).unwrap();
    }
    wait_counter(&mut nic, off, regs::S_DROPS, 30);
    nic.resume(off).unwrap();
    silence(&mut nic, 2);
    let frame = flow(&nic, 1, 0);
    assert_eq!(pass(&mut nic, 3, 0, &frame).0, 2);
    assert_eq!(counter(&mut nic, off, regs::S_FRAMES), 1);
}

#[test]
fn the_filter_of_the_chosen_pair_counts() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut nic = pairs(&server, 2);
    spread(&mut nic, 0, |_| 1);
    let mut stranger = flow(&nic, 1, 0);
    stranger[0..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    nic.send(0, &stranger).unwrap();
    wait_counter(&mut nic, queue::rx_index(1), regs::S_DROPS, 1);
    assert_eq!(counter(&mut nic, queue::rx_index(0), regs::S_DROPS), 0);
}

#[test]
fn a_reset_forgets_what_was_on_its_way() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut nic = pairs(&server, 2);
    for _ in 0..20 {
        spread(&mut nic, 0, |_| 1);
        // More than pair 1 has buffers for: some wait for it.
        for n in 0..300 {
            let frame = flow(&nic, n % 7, 0);
            nic.queue(0, NetHdr::default(), &frame).unwrap();
        }
        nic.flush(0).unwrap();
        nic.restart().unwrap();
        assert_eq!(nic.card.reg(regs::RSS_CTRL).unwrap(), 0);
        assert_eq!(nic.card.reg(regs::RSS_KEY).unwrap(), 0);
        assert_eq!(nic.card.reg(regs::RSS_TABLE).unwrap(), 0);
        for via in [0, 1] {
            let frame = flow(&nic, 3, 0);
            assert_eq!(pass(&mut nic, 2, via, &frame).0, via);
        }
    }
}

/// All pairs send to all pairs as fast as they can. Every frame arrives or is counted, at the pair
/// that its hash chooses, and those of one flow in order.
#[test]
fn a_storm_between_all_pairs() {
    const PAIRS: u16 = 4;
    const FLOWS: u16 = 64;
    let frames: u32 = rounds(40_000);
    let server = Server::start_with("loopback", &["--queues", "4"]).unwrap();
    let mut nic = pairs(&server, PAIRS);
    let table = spread(&mut nic, 0, |i| (i % 4) as u8);
    let mut last = [None; FLOWS as usize];
    let mut arrived = 0u64;
    let mut take = |nic: &mut Nic| {
        for pair in 0..PAIRS {
            while let Some(got) = nic.try_receive(pair).unwrap() {
                let entry = table[got.hash.value as usize % table.len()];
                assert_eq!(u16::from(entry), pair);
                let serial = serial(&got.frame);
                let last = &mut last[(serial % u32::from(FLOWS)) as usize];
                assert!(*last < Some(serial), "{last:?} before {serial}");
                *last = Some(serial);
                arrived += 1;
            }
        }
        arrived
    };
    for n in 0..frames {
        let number = (n % u32::from(FLOWS)) as u16;
        let frame = flow(&nic, number, n);
        // A flow always goes by the same pair; which of them differs from where it belongs.
        nic.queue(number % PAIRS, NetHdr::default(), &frame)
            .unwrap();
        if n % 50 == 0 {
            for pair in 0..PAIRS {
                nic.flush(pair).unwrap();
            }
            take(&mut nic);
        }
    }
    for pair in 0..PAIRS {
        nic.flush(pair).unwrap();
        nic.drain(pair).unwrap();
    }
    let end = Instant::now() + LIMIT;
    loop {
        let arrived = take(&mut nic);
        let dropped: u64 = (0..PAIRS)
            .map(|p| counter(&mut nic, queue::rx_index(p), regs::S_DROPS))
            .sum();
        let lost: u64 = (0..PAIRS)
            .map(|p| counter(&mut nic, queue::tx_index(p), regs::S_DROPS))
            .sum();
        if arrived + dropped + lost == u64::from(frames) {
            // The driver keeps up, more or less: the storm must not be over at once.
            assert!(arrived > u64::from(frames) / 2, "{arrived} of {frames}");
            return;
        }
        assert!(
            Instant::now() < end,
            "{arrived} arrived, {dropped} and {lost} dropped"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
