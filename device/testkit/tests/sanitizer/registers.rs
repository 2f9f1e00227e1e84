// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers, and setting queues up.

use super::*;

#[test]
fn registers() {
    const WIDTH: &str = "4 or 8 bytes, and aligned to that";
    const HAS: &str = "a register that this card has";
    const ZEROS: &str = "zeros, but for bits that are defined";
    type Case = (&'static str, [&'static str; 2], fn(&mut Card));
    let cases: [Case; 9] = [
        ("register-width", ["2 bytes at 0x4", WIDTH], |card| {
            card.read(region::BAR0, 4, &mut [0; 2]).unwrap();
        }),
        ("register-width", ["4 bytes at 0x2", WIDTH], |card| {
            card.write(region::BAR0, 2, &[0; 4]).unwrap();
        }),
        ("register-unknown", ["an access at 0x1100", HAS], |card| {
            card.reg(regs::queue_reg(4, regs::Q_SIZE)).unwrap();
        }),
        // One of a feature that the card lacks.
        ("register-unknown", ["an access at 0x80", HAS], |card| {
            card.set_reg(regs::CLOCK_LO, 0).unwrap();
        }),
        (
            "register-read-only",
            ["0x1 written at 0x0", "that it is only read"],
            |card| card.set_reg(regs::ID, 1).unwrap(),
        ),
        (
            "register-value",
            ["0x1 written at 0x40", "a value that it takes now"],
            |card| card.set_reg(regs::MTU, 1).unwrap(),
        ),
        (
            "register-reserved",
            ["bits 0x80000000 at 0x44", ZEROS],
            |card| {
                card.set_reg(regs::RX_MODE, 1 << 31).unwrap();
            },
        ),
        ("register-reserved", ["bits 0x2 at 0x1004", ZEROS], |card| {
            card.set_reg(regs::queue_reg(0, regs::Q_CTRL), 2).unwrap();
        }),
        (
            "features-refused",
            [
                "features 0x8000000000000000",
                "of 0x24ffff, with all that they need",
            ],
            |card| {
                card.set_reg64(regs::DRIVER_FEATURES_LO, 1 << 63).unwrap();
                card.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES)
                    .unwrap();
            },
        ),
    ];
    for (rule, told, drive) in cases {
        breaks(rule, "", told, "null", |server| {
            drive(&mut server.card().unwrap());
        });
    }
}

#[test]
fn setting_queues_up() {
    breaks(
        "queue-setup",
        "Queue 3",
        [
            "63 is not a ring size",
            "what section 6.2 of the data sheet asks for",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            let rings = bench.tx.ring.addresses();
            let queue = bench.queue(TX);
            bench.card.enable(queue, 63, rings, 0).unwrap();
        },
    );
    breaks(
        "queue-running",
        "Queue 3",
        [
            "a write of register 0x0 of the queue",
            "that the queue is stopped first",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, 0);
            let size = regs::queue_reg(bench.queue(TX), regs::Q_SIZE);
            bench.card.set_reg(size, 64).unwrap();
        },
    );
    breaks(
        "msix-disabled",
        "Queue 3",
        [
            "vector 1 with MSI-X disabled",
            "that MSI-X is enabled first",
        ],
        "null",
        |server| {
            Bench::without_msix(server, 1).start(TX, 1);
        },
    );
    breaks(
        "dma-unreachable",
        "Queue 3",
        ["bus address 0x100000000", MAPPED],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            let mut rings = bench.tx.ring.addresses();
            rings[2] = 0x1_0000_0000;
            let queue = bench.queue(TX);
            bench.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        },
    );
    breaks(
        "dma-unreachable",
        "Queue 3",
        ["no bus mastering", "that bus mastering is enabled first"],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.card.set_bus_master(false).unwrap();
            let rings = bench.tx.ring.addresses();
            let queue = bench.queue(TX);
            bench.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        },
    );
    breaks(
        "dma-unmapped",
        "Queue 2",
        ["bus address 0x10000000", MAPPED],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            let other = Arc::new(GuestRam::new(0x1000_0000, 0x1_0000).unwrap());
            bench.rx = RawQueue::new(&other, SIZE);
            bench.card.map(&other).unwrap();
            bench.start(RX, 0);
            bench.card.reset().unwrap();
            bench.card.negotiate(0).unwrap();
            bench.card.unmap(other.base(), other.size()).unwrap();
            let (rings, queue) = (bench.rx.ring.addresses(), bench.queue(RX));
            bench.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        },
    );
}
