// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Interrupt moderation over the real socket: how many interrupts traffic makes, and how late.
#![allow(missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{counter, options, own};
use vnet_contract::regs::{queue_reg, Q_MODERATION, Q_MODERATION_FRAMES, Q_MODERATION_USECS};
use vnet_contract::{features, queue, regs};
use vnet_testkit::{Nic, Options, Server, LIMIT};

/// The longest wait, in microseconds.
const LONGEST: u16 = u16::MAX;

fn bring_up(server: &Server) -> Nic {
    let options = options();
    let options = Options {
        // Room for all frames of a test, which take two descriptors each: to wait for some would be to
        // take interrupts that are counted.
        ring_size: 1024,
        features: options.features | features::MODERATION,
        ..options
    };
    let nic = server.nic_with(options).unwrap();
    assert_ne!(nic.features & features::MODERATION, 0);
    nic
}

fn moderate(nic: &mut Nic, queue: u16, usecs: u16, frames: u16) {
    let value = Q_MODERATION_USECS.put(usecs.into()) | Q_MODERATION_FRAMES.put(frames.into());
    nic.card
        .set_reg(queue_reg(queue, Q_MODERATION), value)
        .unwrap();
}

/// Sends single frames to a driver that sleeps until it is interrupted and polls once then.
/// Returns how many interrupts that took, with those that the card counts.
fn interrupts(nic: &mut Nic, frames: u64) -> (u64, u64) {
    let (rx, tx) = (queue::rx_index(0), queue::tx_index(0));
    let counted =
        |nic: &mut Nic| counter(nic, rx, regs::S_INTERRUPTS) + counter(nic, tx, regs::S_INTERRUPTS);
    let before = counted(nic);
    assert!(nic.arm(0).unwrap());
    nic.vectors[0].take();
    let (mut seen, mut received) = (0, 0);
    for n in 0..frames {
        let frame = own(nic, 60, n);
        nic.send(0, &frame).unwrap();
        // Any read waits for the round that the doorbell caused.
        nic.card.reg(regs::STATUS).unwrap();
        let came = nic.vectors[0].take();
        if came == 0 {
            continue;
        }
        seen += came;
        while !nic.arm(0).unwrap() {}
        while nic.try_receive(0).unwrap().is_some() {
            received += 1;
        }
    }
    let end = Instant::now() + LIMIT;
    while received < frames {
        let came = nic.vectors[0].take();
        if came == 0 {
            assert!(Instant::now() < end, "{received} frames, and no interrupt");
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        seen += came;
        while !nic.arm(0).unwrap() {}
        while nic.try_receive(0).unwrap().is_some() {
            received += 1;
        }
    }
    // The card raises an interrupt before it counts it.
    loop {
        let told = counted(nic) - before;
        seen += nic.vectors[0].take();
        if seen == told || Instant::now() > end {
            return (seen, told);
        }
    }
}

#[test]
fn frames_that_wait_for_each_other_share_an_interrupt() {
    const FRAMES: u64 = 320;
    let server = Server::start("loopback").unwrap();
    let mut nic = bring_up(&server);
    let (each, counted) = interrupts(&mut nic, FRAMES);
    assert_eq!(each, counted);

    moderate(&mut nic, queue::rx_index(0), LONGEST, 16);
    moderate(&mut nic, queue::tx_index(0), LONGEST, 0);
    let start = Instant::now();
    let (few, counted) = interrupts(&mut nic, FRAMES);
    assert_eq!(few, counted);
    // Every 16 frames, and when the time is over before that; for more at once if the card is slow.
    let late = start.elapsed().as_micros() as u64 / u64::from(LONGEST);
    let most = FRAMES / 16 + late;
    assert!((1..=most).contains(&few), "{few}, not {most}");
}

#[test]
fn no_interrupt_is_early_or_forgotten() {
    const WAIT: Duration = Duration::from_millis(4);
    let server = Server::start("loopback").unwrap();
    let mut nic = bring_up(&server);
    for queue in [queue::rx_index(0), queue::tx_index(0)] {
        moderate(&mut nic, queue, WAIT.as_micros() as u16, 0);
    }
    for n in 0..50 {
        while !nic.arm(0).unwrap() {}
        nic.vectors[0].take();
        let start = Instant::now();
        let frame = own(&nic, 60, n);
        nic.send(0, &frame).unwrap();
        assert!(nic.vectors[0].wait(LIMIT).unwrap());
        assert!(start.elapsed() >= WAIT, "{:?}", start.elapsed());
        assert!(nic.try_receive(0).unwrap().is_some());
    }
}
