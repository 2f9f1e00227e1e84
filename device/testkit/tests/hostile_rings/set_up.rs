// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that must not start, and registers that must not be written while they run.

use vnet_contract::queue::{Error, Kind};
use vnet_contract::regs;
use vnet_testkit::{Server, LIMIT};

use crate::common::{counter, round_trip};
use crate::rig::{Rig, NOWHERE, READ_ONLY};

#[test]
fn queues_that_must_not_start() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    let good = rig.raw.ring.addresses();
    let end = rig.nic.ram.end();
    let shifted = |part: usize, to: u64| {
        let mut rings = good;
        rings[part] = to;
        rings
    };
    let page = rig.page;
    let cases = [
        ("size 0", 0, good, 0, Error::Size),
        ("size 3", 3, good, 0, Error::Size),
        ("size 32", 32, good, 0, Error::Size),
        ("size 65", 65, good, 0, Error::Size),
        ("size 8192", 8192, good, 0, Error::Size),
        ("size 2^31", 1 << 31, good, 0, Error::Size),
        ("size 64 + 2^16", 0x1_0040, good, 0, Error::Size),
        ("vector 3", 64, good, 3, Error::Vector),
        ("vector 0xfffe", 64, good, 0xfffe, Error::Vector),
        (
            "table not aligned",
            64,
            shifted(0, page + 8),
            0,
            Error::Alignment,
        ),
        (
            "avail ring not aligned",
            64,
            shifted(1, page + 1),
            0,
            Error::Alignment,
        ),
        (
            "used ring not aligned",
            64,
            shifted(2, page + 2),
            0,
            Error::Alignment,
        ),
        (
            "table nowhere",
            64,
            shifted(0, NOWHERE),
            0,
            Error::RingFault,
        ),
        (
            "avail ring nowhere",
            64,
            shifted(1, NOWHERE),
            0,
            Error::RingFault,
        ),
        (
            "used ring nowhere",
            64,
            shifted(2, NOWHERE),
            0,
            Error::RingFault,
        ),
        (
            "table runs out",
            64,
            shifted(0, end - 1008),
            0,
            Error::RingFault,
        ),
        (
            "avail ring runs out",
            64,
            shifted(1, end - 132),
            0,
            Error::RingFault,
        ),
        (
            "used ring runs out",
            64,
            shifted(2, end - 516),
            0,
            Error::RingFault,
        ),
        (
            "used ring read-only",
            64,
            shifted(2, READ_ONLY),
            0,
            Error::RingFault,
        ),
        (
            "used ring wraps",
            64,
            shifted(2, u64::MAX - 3),
            0,
            Error::RingFault,
        ),
        (
            "table wraps",
            64,
            shifted(0, u64::MAX - 15),
            0,
            Error::RingFault,
        ),
        ("all at address zero", 64, [0; 3], 0, Error::RingFault),
    ];
    let queue = rig.queue();
    for (n, (what, size, rings, vector, error)) in cases.into_iter().enumerate() {
        rig.nic.card.disable(queue).unwrap();
        rig.nic.card.enable(queue, size, rings, vector).unwrap();
        let seen = rig.nic.card.queue_error(queue).unwrap();
        assert_eq!(seen, Some(error), "{what}");
        assert_eq!(rig.reg(regs::Q_CTRL), 0, "{what}");
        let errors = counter(&mut rig.nic, queue, regs::S_ERRORS);
        assert_eq!(errors, n as u64 + 1, "{what}");
        assert!(rig.nic.events.wait(LIMIT).unwrap(), "{what}: no event");
        rig.nic
            .card
            .set_reg(regs::EVENT_CAUSE, regs::EVENT_MASK)
            .unwrap();
        round_trip(&mut rig.nic, 1, n as u64);
    }
    rig.assert_repairable("after all of them");

    // A read-only table and avail ring are fine: the card only reads them.
    rig.nic.card.disable(queue).unwrap();
    let rings = [READ_ONLY, READ_ONLY + 0x1000, good[2]];
    rig.nic.card.enable(queue, 64, rings, 0).unwrap();
    assert_eq!(rig.nic.card.queue_error(queue).unwrap(), None);

    // Before the features are in force nothing starts.
    rig.nic.card.reset().unwrap();
    rig.nic.card.enable(queue, 64, good, 0).unwrap();
    let seen = rig.nic.card.queue_error(queue).unwrap();
    assert_eq!(seen, Some(Error::NotNegotiated));
}

#[test]
fn set_up_of_a_running_queue() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    let locked = regs::QUEUE
        .iter()
        .filter(|r| r.access == regs::Access::RwStopped);
    let mut count = 0;
    for register in locked {
        let queue = rig.queue();
        let before = rig.reg(register.offset);
        rig.nic
            .card
            .set_reg(regs::queue_reg(queue, register.offset), 0x1234_5670)
            .unwrap();
        let info = Some(register.offset);
        rig.assert_failed(register.name, Error::ConfigWhileRunning, info);
        assert_eq!(rig.reg(register.offset), before, "{}", register.name);
        rig.assert_repairable(register.name);
        count += 1;
    }
    assert!(
        count >= 9,
        "the contract has fewer such registers than that?"
    );
}
