// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Chains, the memory that they lie in, and what the card owns.

use super::*;

#[test]
fn chains() {
    type Told = [&'static str; 2];
    type Case = (&'static str, u16, Option<u16>, Told, fn(&mut Bench));
    let cases: [Case; 9] = [
        (
            "avail-index",
            TX,
            None,
            ["avail index jumped to 65", "64 at most"],
            |b| {
                b.tx.move_index(SIZE + 1);
                b.ring(TX);
                b.card.wait_queue_error(b.queue(TX)).unwrap();
            },
        ),
        (
            "chain-index",
            TX,
            Some(64),
            [
                "descriptor index 64 is outside the ring or the indirect table",
                CHAIN,
            ],
            |b| b.offer_bad(TX, SIZE),
        ),
        (
            "chain-loop",
            TX,
            Some(11),
            ["chain at descriptor 11 loops", CHAIN],
            |b| {
                let at = b.tx_buffer(0);
                b.tx.desc(11, at, 100, DESC_F_NEXT, 11);
                b.offer_bad(TX, 11);
            },
        ),
        (
            "chain-direction",
            TX,
            Some(12),
            ["descriptor 12 has the wrong direction", CHAIN],
            |b| {
                let at = b.tx_buffer(0);
                b.tx.desc(12, at, 100, DESC_F_WRITE, 0);
                b.offer_bad(TX, 12);
            },
        ),
        (
            "chain-direction",
            RX,
            Some(13),
            ["descriptor 13 has the wrong direction", CHAIN],
            |b| {
                let at = b.rx_buffer(0);
                b.rx.desc(13, at, 2048, 0, 0);
                b.rx.offer(13);
                b.ring(RX);
                b.start(TX, NO_VECTOR);
                b.send(NetHdr::default(), &[0x5a; 60]);
                b.card.wait_queue_error(b.queue(RX)).unwrap();
            },
        ),
        (
            "chain-length",
            TX,
            Some(14),
            ["buffer at descriptor 14 has a bad length", CHAIN],
            |b| {
                let at = b.tx_buffer(0);
                b.tx.desc(14, at, 12 + 13, 0, 0);
                b.offer_bad(TX, 14);
            },
        ),
        (
            "chain-indirect",
            TX,
            Some(15),
            [
                "descriptor 15 is indirect and must not be, or its table is wrong",
                CHAIN,
            ],
            |b| {
                let (table, addr) = (b.tx_buffer(1), b.tx_buffer(0));
                let desc = Desc {
                    addr,
                    len: 100,
                    flags: 0,
                    next: 0,
                };
                b.tx.indirect(15, table, &[desc]);
                b.offer_bad(TX, 15);
            },
        ),
        (
            "dma-unreachable",
            TX,
            Some(16),
            ["bus address 0x100000000", MAPPED],
            |b| {
                b.tx.desc(16, 0x1_0000_0000, 100, 0, 0);
                b.offer_bad(TX, 16);
            },
        ),
        (
            "dma-unmapped",
            TX,
            Some(17),
            ["bus address 0x10000010", MAPPED],
            |b| {
                let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
                b.card.map(&other).unwrap();
                b.card.unmap(other.base(), other.size()).unwrap();
                b.tx.desc(17, other.base() + 0x10, 100, 0, 0);
                b.offer_bad(TX, 17);
            },
        ),
    ];
    for (rule, kind, head, told, bad) in cases {
        for pair in 0..2 {
            let queue = format!("Queue {}", 2 * pair + kind);
            let place = match head {
                Some(head) => format!("{queue}, descriptor {head}"),
                None => queue,
            };
            breaks(rule, &place, told, "loopback", |server| {
                let mut bench = Bench::of_pair(server, pair);
                bench.start(kind, 0);
                bad(&mut bench);
            });
        }
    }
}

/// Whether memory was taken depends on what was mapped, and not on what the client asked for.
#[test]
fn memory_that_comes_and_goes() {
    breaks(
        "dma-unreachable",
        "Queue 3, descriptor 18",
        ["bus address 0x100000000", MAPPED],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.card.unmap(0, u64::MAX).unwrap();
            bench.card.map(&bench.ram).unwrap();
            bench.start(TX, 0);
            bench.tx.desc(18, 0x1_0000_0000, 100, 0, 0);
            bench.offer_bad(TX, 18);
        },
    );
    // A card that is watched does not ask for memory.
    breaks(
        "dma-unreachable",
        "Queue 3",
        ["bus address 0x10000000", MAPPED],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            let other = Arc::new(GuestRam::new(0x1000_0000, 0x1_0000).unwrap());
            bench.card.keep(&other).unwrap();
            bench.tx = RawQueue::new(&other, SIZE);
            let (rings, queue) = (bench.tx.ring.addresses(), bench.queue(TX));
            bench.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        },
    );
    // Given back, but not for this.
    breaks(
        "dma-unreachable",
        "Queue 2, descriptor 19",
        ["bus address 0x10000000", MAPPED],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
            let (base, size) = (other.base(), other.size());
            bench.card.map(&other).unwrap();
            bench.card.unmap(base, size).unwrap();
            bench.card.map_range(&other, 0, base, size, false).unwrap();
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            bench.rx.desc(19, base, 2048, DESC_F_WRITE, 0);
            bench.rx.offer(19);
            bench.ring(RX);
            bench.send(NetHdr::default(), &[0x5a; 60]);
            bench.card.wait_queue_error(bench.queue(RX)).unwrap();
        },
    );
}

/// A driver that frees a part of its ring while the queue runs.
#[test]
fn ring_memory_that_vanishes() {
    for part in 0..3 {
        breaks(
            "dma-unmapped",
            "Queue 3",
            ["bus address 0x10000000", MAPPED],
            "null",
            |server| {
                let mut bench = Bench::new(server);
                let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
                bench.card.map(&other).unwrap();
                let mut rings = bench.tx.ring.addresses();
                rings[part] = other.base();
                let queue = bench.queue(TX);
                bench.card.enable(queue, SIZE.into(), rings, 0).unwrap();
                assert_eq!(bench.card.queue_error(queue).unwrap(), None);
                bench.card.unmap(other.base(), other.size()).unwrap();
                bench.packet(FIRST, NetHdr::default(), &[0x5a; 60]);
                bench.offer_bad(TX, FIRST);
            },
        );
    }
}

#[test]
fn what_the_card_owns() {
    breaks(
        "chain-reused",
        "Queue 2, descriptor 21",
        [
            "descriptor 21, which the chain at 21 takes",
            "one that was returned",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            bench.post(21);
            bench.post(21);
            bench.ring(RX);
            moment();
        },
    );
    breaks(
        "chain-changed",
        "Queue 2, descriptor 21",
        [
            "other descriptors",
            "the same as when it was made available",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            bench.post(21);
            bench.ring(RX);
            moment();
            let at = bench.rx_buffer(21);
            bench.rx.desc(21, at, 1024, DESC_F_WRITE, 0);
            bench.loop_back();
        },
    );
    breaks(
        "buffer-overlap",
        "Queue 2, descriptor 23",
        [
            "0x1167ff, which is also of the buffer at descriptor 22 of queue 2",
            "memory of its own",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            let at = bench.rx_buffer(21);
            bench.rx.desc(22, at, 2048, DESC_F_WRITE, 0);
            bench.rx.desc(23, at + 2047, 2048, DESC_F_WRITE, 0);
            bench.rx.offer(22);
            bench.rx.offer(23);
            bench.ring(RX);
            moment();
        },
    );
    breaks(
        "buffer-changed",
        "Queue 2, descriptor 21",
        [
            "other contents than before",
            "that the driver leaves it alone",
        ],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(RX, 0);
            bench.post(21);
            bench.ring(RX);
            moment();
            bench.ram.write(bench.rx_buffer(21), &[1]);
            moment();
        },
    );
    breaks(
        "dma-unmapped",
        "Queue 2, descriptor 24",
        ["bus address 0x10000000", MAPPED],
        "loopback",
        |server| {
            let mut bench = Bench::new(server);
            let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
            bench.card.map(&other).unwrap();
            bench.start(RX, 0);
            bench.rx.desc(24, other.base(), 2048, DESC_F_WRITE, 0);
            bench.rx.offer(24);
            bench.ring(RX);
            moment();
            bench.card.unmap(other.base(), other.size()).unwrap();
            linger(&mut bench.card);
        },
    );
}
