// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Doorbells and interrupts: what is waited for in vain.

use super::*;

/// Starts both queues, and has fifty frames come back.
fn receive_fifty(bench: &mut Bench) {
    bench.start(RX, 0);
    bench.start(TX, NO_VECTOR);
    (0..SIZE).for_each(|head| bench.post(head));
    bench.ring(RX);
    (0..50).for_each(|_| bench.loop_back());
}

#[test]
fn doorbells() {
    breaks(
        "doorbell-early",
        "Queue 3",
        ["avail index 0, next entry of the card 0", "1, as rung"],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            bench.packet(0, NetHdr::default(), &[0; 60]);
            bench.card.doorbell(bench.queue(TX), 1).unwrap();
            bench.card.status(bench.queue(TX)).unwrap();
            bench.tx.offer(0);
            bench.ring(TX);
            eventually(|| bench.tx.used_index() == 1);
        },
    );
    breaks(
        "doorbell-missing",
        "Queue 3",
        [
            "avail index 1, used index 0, used_event 0",
            "a doorbell within 1s",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            moment();
            bench.packet(0, NetHdr::default(), &[0; 60]);
            bench.tx.offer(0);
            linger(&mut bench.card);
        },
    );
    // A driver that does not know of the reset: the card does nothing of what it asks for.
    breaks(
        "doorbell-reset",
        "Queue 3",
        [
            "0x1 written to the doorbell",
            "that the queue is started first",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            (0..SIZE).for_each(|head| bench.post(head));
            bench.ring(RX);
            moment();
            bench.card.reset().unwrap();
            bench.packet(FIRST, NetHdr::default(), &[0x5a; 60]);
            bench.tx.offer(FIRST);
            bench.ring(TX);
            linger(&mut bench.card);
            assert_eq!((bench.rx.used_index(), bench.tx.used_index()), (0, 0));
        },
    );
}

#[test]
fn interrupts() {
    breaks(
        "used-ignored",
        "Queue 2",
        [
            "avail index 64, used index 50, used_event 0",
            "a look at the used entries within 1s",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            receive_fifty(&mut bench);
            assert!(bench.vectors[0].wait(LIMIT).unwrap());
            linger(&mut bench.card);
        },
    );
    breaks(
        "rearm-race",
        "Queue 2",
        [
            "avail index 64, used index 50, used_event 0",
            "another look at the used entries within 1s",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.rx.ring.write_used_event(NEVER);
            receive_fifty(&mut bench);
            bench.rx.ring.write_used_event(0);
            linger(&mut bench.card);
        },
    );
    breaks(
        "rearm-missing",
        "Queue 2",
        [
            "avail index 64, used index 50, used_event 65535",
            "a look at the used entries, or an interrupt asked for them within 1s",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.rx.ring.write_used_event(NEVER);
            receive_fifty(&mut bench);
            linger(&mut bench.card);
        },
    );
    breaks(
        "tx-unreclaimed",
        "Queue 3",
        [
            "avail index 1, used index 1, used_event 65535",
            "a look at the used entries, or an interrupt asked for them within 1s",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.tx.ring.write_used_event(NEVER);
            bench.start(TX, 0);
            bench.send(NetHdr::default(), &[0; 60]);
            linger(&mut bench.card);
        },
    );
    breaks(
        "vector-masked",
        "Queue 3",
        [
            "avail index 1, used index 1, used_event 0",
            "a vector that takes the interrupt within 1s",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
            let card = &mut bench.card;
            card.set_irqs(irq::MSIX, trigger, 0, 1, None).unwrap();
            bench.start(TX, 0);
            bench.send(NetHdr::default(), &[0; 60]);
            linger(&mut bench.card);
        },
    );
    breaks(
        "interrupt-storm",
        "Queue 2",
        [
            "one more for used entry 48, and no buffer was posted since long",
            "none until buffers are taken, and posted again",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            (0..SIZE).for_each(|head| bench.post(head));
            bench.ring(RX);
            for _ in 0..50 {
                bench.loop_back();
                assert!(bench.vectors[0].wait(LIMIT).unwrap());
                let index = bench.rx.used_index();
                bench.rx.ring.write_used_event(index);
            }
        },
    );
}
