// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Starting and stopping queues.

use rustix::event::{eventfd, EventfdFlags};
use vnet_contract::queue::Error as Rule;
use vnet_contract::regs::{self, queue_reg, stats_reg};
use vnet_contract::ring::{Desc, DESC_F_WRITE};
use vnet_irq::EventFd;

use super::bench::{Bench, BUS_MASTER, MEMORY, MEMORY_SPACE, PAIRS, PM_CTRL};

/// The transmit queue of the second pair.
const TX: u16 = 3;

#[test]
fn a_queue_carries_a_frame_and_stops() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(TX);
    assert!(b.is_running(TX));
    b.send(TX);
    while b.used(TX) != 1 {
        std::thread::yield_now();
    }
    b.write(queue_reg(TX, regs::Q_CTRL), 0);
    assert!(!b.is_running(TX));
    assert_eq!(b.read(queue_reg(TX, regs::Q_INDEX)), 1 << 16 | 1);
    assert_eq!(b.read(stats_reg(TX, regs::S_FRAMES)), 1);
    assert_eq!(b.read(stats_reg(TX, regs::S_BYTES)), 60);
    assert_eq!(b.read(stats_reg(TX, regs::S_DOORBELLS)), 1);
    assert_eq!(b.error(TX), None);
    assert_eq!(b.illegal(), 0);
}

#[test]
fn what_stands_in_the_way_of_a_start_is_said() {
    let mut b = Bench::new();
    b.start(0);
    assert_eq!(b.error(0), Some((Rule::NotNegotiated, 0)));
    b.accept(0);

    b.start(0);
    assert_eq!((b.error(0), b.is_running(0)), (None, true));
    b.write(queue_reg(0, regs::Q_CTRL), 0);

    for (reg, value, expected) in [
        (regs::Q_SIZE, 96, (Rule::Size, 96)),
        (
            regs::Q_VECTOR,
            u32::from(PAIRS) + 1,
            (Rule::Vector, u32::from(PAIRS) + 1),
        ),
        (regs::Q_VECTOR, 0x1_0000, (Rule::Vector, 0x1_0000)),
        (
            regs::Q_DESC_LO,
            MEMORY as u32 + 8,
            (Rule::Alignment, MEMORY as u32 + 8),
        ),
        (
            regs::Q_USED_HI,
            1,
            (Rule::RingFault, MEMORY as u32 + 0x2000),
        ),
    ] {
        let before = b.read(queue_reg(0, reg));
        b.write(queue_reg(0, reg), value);
        b.write(queue_reg(0, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
        assert!(!b.is_running(0));
        assert_eq!(b.error(0), Some(expected));
        b.write(queue_reg(0, reg), before);
    }
    // Stopping keeps the error for whoever comes to look; starting forgets it.
    b.write(queue_reg(0, regs::Q_CTRL), 0);
    assert!(b.error(0).is_some());
    b.write(queue_reg(0, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    assert_eq!((b.error(0), b.is_running(0)), (None, true));
    assert_eq!(b.read(stats_reg(0, regs::S_ERRORS)), 6);
    assert_eq!(b.illegal(), 0);
}

#[test]
fn programming_a_running_queue_stops_it_and_no_other() {
    let mut b = Bench::new();
    b.accept(0);
    b.write(regs::EVENT_VECTOR, u32::from(PAIRS));
    b.write(regs::EVENT_ENABLE, regs::EVENT_QUEUE_ERROR);
    b.start(0);
    b.start(1);
    let desc = b.read(queue_reg(0, regs::Q_DESC_LO));
    b.write(queue_reg(0, regs::Q_DESC_LO), 0);
    assert_eq!(
        b.error(0),
        Some((Rule::ConfigWhileRunning, regs::Q_DESC_LO))
    );
    assert_eq!(b.read(queue_reg(0, regs::Q_DESC_LO)), desc);
    assert!(!b.is_running(0) && b.is_running(1));
    assert_eq!(b.read(regs::EVENT_CAUSE), regs::EVENT_QUEUE_ERROR);
    assert_eq!(b.pending(), 1 << PAIRS);
    b.write(regs::EVENT_CAUSE, regs::EVENT_QUEUE_ERROR);
    assert_eq!(b.read(regs::EVENT_CAUSE), 0);
    // Starting a queue that runs does nothing.
    b.write(queue_reg(1, regs::Q_CTRL), regs::Q_CTRL_ENABLE);
    assert!(b.is_running(1));
}

#[test]
fn a_ring_that_breaks_a_rule_is_reported_through_registers() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(1);
    b.start(TX);
    b.send_chain(
        TX,
        Desc {
            addr: MEMORY,
            len: 100,
            flags: DESC_F_WRITE,
            next: 0,
        },
    );
    while b.read(regs::EVENT_CAUSE) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(b.error(TX), Some((Rule::Direction, 0)));
    assert!(b.is_running(1) && !b.is_running(TX));
    // The queue does not run, so that its registers can be written.
    b.write(queue_reg(TX, regs::Q_INDEX), 1 << 16 | 1);
    assert_eq!(b.read(queue_reg(TX, regs::Q_INDEX)), 1 << 16 | 1);
    assert_eq!(b.error(TX), Some((Rule::Direction, 0)));
    assert_eq!(b.illegal(), 0);
}

#[test]
fn a_paused_card_goes_on_when_bus_mastering_returns() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(TX);
    b.command(MEMORY_SPACE);
    b.send(TX);
    assert!(b.is_running(TX));
    assert_eq!(b.used(TX), 0);
    b.command(MEMORY_SPACE | BUS_MASTER);
    while b.used(TX) != 1 {
        std::thread::yield_now();
    }
    assert_eq!(b.error(TX), None);
}

#[test]
fn memory_that_is_taken_away_is_out_of_use_at_once() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(TX);
    b.card.unmap(0, u64::MAX);
    b.send(TX);
    while b.error(TX).is_none() {
        std::thread::yield_now();
    }
    assert_eq!(b.used(TX), 0);
    assert!(!b.is_running(TX));
}

#[test]
fn a_client_that_leaves_takes_everything_along() {
    let mut b = Bench::new();
    b.accept(0);
    b.start(TX);
    b.card.vectors().raise(0, 1).unwrap();
    b.card.disconnect();
    assert!(!b.card.dma_enabled());
    b.command(MEMORY_SPACE | BUS_MASTER);
    b.assert_reset_values();
    b.accept(0);
    b.start(TX);
    assert!(matches!(b.error(TX), Some((Rule::RingFault, _))));
}

#[test]
fn no_interrupt_is_delivered_without_bus_mastering() {
    let mut b = Bench::new();
    let client = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let fired = || rustix::io::read(&client, &mut [0; 8]).is_ok();
    let fd = EventFd::new(client.try_clone().unwrap()).unwrap();
    b.card.vectors().attach(0, vec![fd]).unwrap();
    b.command(MEMORY_SPACE);
    b.card.vectors().raise(0, 1).unwrap();
    assert_eq!((fired(), b.pending()), (false, 1));
    b.command(MEMORY_SPACE | BUS_MASTER);
    assert_eq!((fired(), b.pending()), (true, 0));

    // The same goes for D3hot.
    b.card.write_config(PM_CTRL, &[3]);
    b.card.vectors().raise(0, 1).unwrap();
    assert_eq!((fired(), b.pending()), (false, 1));
    b.card.write_config(PM_CTRL, &[0]);
    assert_eq!((fired(), b.pending()), (true, 0));
}
