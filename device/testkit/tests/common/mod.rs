// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames, and what several tests ask of a card.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::time::Duration;

use vnet_contract::hdr::NetHdr;
use vnet_contract::{features, regs};
use vnet_testkit::{Nic, Options};

/// EtherType for local experiments.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A frame from `nic` to `to`, of `len` bytes, whose contents follow from `seed`.
pub fn frame(nic: &Nic, to: [u8; 6], len: usize, seed: u64) -> Vec<u8> {
    let mut frame = [&to[..], &nic.mac, &ETHERTYPE].concat();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while frame.len() < len {
        // xorshift64: any generator will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        frame.push(state as u8);
    }
    frame
}

/// A frame that a loopback card gives back: it is for the card itself.
pub fn own(nic: &Nic, len: usize, seed: u64) -> Vec<u8> {
    frame(nic, nic.mac, len, seed)
}

/// Sends a frame through the loopback and insists on its return.
pub fn round_trip(nic: &mut Nic, pair: u16, seed: u64) {
    let frame = own(nic, 60 + (seed % 1400) as usize, seed);
    nic.send(pair, &frame).unwrap();
    let back = nic.expect(pair).unwrap();
    assert_eq!(back.frame, frame);
    assert_eq!(back.header.num_buffers, 1);
}

/// Sends `count` frames of 60 to `60 + spread` bytes through the loopback, at most `window` of them on
/// their way, and insists that they return whole and in order.
pub fn burst(nic: &mut Nic, count: u64, window: u64, spread: u64) {
    let len = |n: u64| 60 + (n % spread) as usize;
    let (mut sent, mut back) = (0, 0);
    while back < count {
        while sent < count && sent - back < window {
            let frame = own(nic, len(sent), sent);
            nic.queue(0, NetHdr::default(), &frame).unwrap();
            sent += 1;
        }
        nic.flush(0).unwrap();
        let mut next = nic.receive(0, vnet_testkit::LIMIT).unwrap();
        assert!(next.is_some(), "{back} of {count}");
        while let Some(got) = next {
            assert_eq!(got.frame, own(nic, len(back), back));
            back += 1;
            next = nic.try_receive(0).unwrap();
        }
    }
    nic.drain(0).unwrap();
}

/// Insists that no frame comes.
pub fn silence(nic: &mut Nic, pair: u16) {
    let got = nic.receive(pair, vnet_testkit::QUIET).unwrap();
    assert_eq!(got, None);
}

/// A counter of a queue.
pub fn counter(nic: &mut Nic, queue: u16, which: u32) -> u64 {
    nic.card.reg64(regs::stats_reg(queue, which)).unwrap()
}

/// Waits for a counter to reach a value.
pub fn wait_counter(nic: &mut Nic, queue: u16, which: u32, value: u64) {
    let end = std::time::Instant::now() + vnet_testkit::LIMIT;
    loop {
        let now = counter(nic, queue, which);
        if now >= value {
            assert_eq!(now, value);
            return;
        }
        assert!(std::time::Instant::now() < end, "{now} instead of {value}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All features that the driver of these tests knows how to use.
pub fn options() -> Options {
    let options = Options::default();
    Options {
        features: options.features | features::QUEUE_STATS | features::MAC_FILTER,
        ..options
    }
}

/// Rounds of a property test: many more in a long run of all tests.
pub fn rounds(usual: u32) -> u32 {
    match std::env::var_os("VNET_LONG") {
        Some(_) => usual * 20,
        None => usual,
    }
}
