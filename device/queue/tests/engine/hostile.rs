// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that break one rule at a time, and what the queue says about it.

use vnet_backend::MAX_FRAME;
use vnet_contract::features::{MRG_RXBUF, TX_CSUM, TX_ECN, TX_TSO4, TX_USO};
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::queue::Error;
use vnet_contract::ring::{Desc, DESC_F_NEXT, DESC_F_WRITE};
use vnet_dma::Mapping;
use vnet_queue::mock::{memfd, packet, Driver, Memory};
use vnet_queue::{Budget, Fault, Outcome, RingConfig, Rx, Tx};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS, BUFFER_BYTES, RING};

const SIZE: u16 = 64;
/// A page that the device may read, but not write.
const READ_ONLY: u64 = 0x5000_0000;
/// A page that the device knows of, but cannot reach.
const ROM: u64 = 0x6000_0000;
/// A page with nothing behind it.
const LAST: u64 = BUFFERS + BUFFER_BYTES - 0x1000;

fn world() -> Memory {
    let mem = memory();
    let mapping = |address, file| Mapping {
        address,
        size: 0x1000,
        file,
        offset: 0,
        read: true,
        write: false,
    };
    mem.space
        .map(mapping(READ_ONLY, Some(memfd(0x1000))))
        .unwrap();
    mem.space.map(mapping(ROM, None)).unwrap();
    mem
}

/// Offers a good frame in descriptor 63, then what `setup` makes of descriptor 0, and returns the
/// outcome of the transmit queue.
fn transmit(features: u64, setup: impl FnOnce(&Memory, &mut Driver)) -> Outcome {
    let mem = world();
    let mut driver = driver(&mem, SIZE, features);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    mem.write(LAST, &packet(NetHdr::default(), &frame(60, 1)));
    driver.chain(63, &[(LAST, 72)], false);
    driver.offer(63);
    setup(&mem, &mut driver);
    let mut backend = Backend::default();
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(
        backend.sent.len(),
        1,
        "the frame before is sent, nothing else"
    );
    assert_eq!(driver.take_used(), Some((63, 0)));
    assert_eq!(driver.take_used(), None, "the bad chain is not returned");
    outcome
}

fn receive(features: u64, setup: impl FnOnce(&Memory, &mut Driver)) -> Outcome {
    let mem = world();
    let mut driver = driver(&mem, SIZE, features);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    driver.chain(63, &[(LAST, 2048)], true);
    driver.offer(63);
    setup(&mem, &mut driver);
    let mut backend = Backend::with_frames([frame(60, 1), frame(1500, 2)]);
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!(outcome.frames, 1, "the frame before is delivered");
    assert_eq!(driver.take_used(), Some((63, 72)));
    assert_eq!(driver.take_used(), None, "the bad chain is not returned");
    assert_eq!(backend.waiting.len(), 1, "no frame is lost");
    outcome
}

fn fault(error: Error, info: u32) -> Option<Fault> {
    Some(Fault { error, info })
}

/// A descriptor 0 that ends its chain.
fn single(addr: u64, len: u32, flags: u16) -> impl FnOnce(&Memory, &mut Driver) {
    move |_, driver| {
        let desc = Desc {
            addr,
            len,
            flags,
            next: 0,
        };
        driver.desc(0, desc);
        driver.offer(0);
    }
}

#[test]
fn buffers_outside_memory_or_against_its_permissions() {
    let cases = [
        // In a hole, at the end of memory, and over it.
        (0, 100),
        (BUFFERS - 50, 100),
        (BUFFERS + BUFFER_BYTES, 100),
        (BUFFERS + BUFFER_BYTES - 50, 100),
        (u64::MAX, 100),
        (u64::MAX - 99, 100),
        (ROM, 100),
        (READ_ONLY + 0x1000 - 50, 100),
    ];
    for (addr, len) in cases {
        let tx = transmit(0, single(addr, len, 0)).fault;
        assert_eq!(tx, fault(Error::BufferFault, 0), "{addr:#x}");
        let rx = receive(0, single(addr, len, DESC_F_WRITE)).fault;
        assert_eq!(rx, fault(Error::BufferFault, 0), "{addr:#x}");
    }
    // Reading is what a read-only page is for.
    let rx = receive(0, single(READ_ONLY, 100, DESC_F_WRITE)).fault;
    assert_eq!(rx, fault(Error::BufferFault, 0));
    // The second buffer of a chain.
    let second = |write| {
        move |_: &Memory, driver: &mut Driver| {
            driver.chain(0, &[(BUFFERS, 100), (ROM, 100)], write);
            driver.offer(0);
        }
    };
    assert_eq!(
        transmit(0, second(false)).fault,
        fault(Error::BufferFault, 1)
    );
    assert_eq!(receive(0, second(true)).fault, fault(Error::BufferFault, 1));
}

#[test]
fn a_read_only_page_can_be_transmitted() {
    let mem = world();
    let mut driver = driver(&mem, SIZE, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    driver.chain(0, &[(READ_ONLY, 100)], false);
    driver.offer(0);
    let outcome = tx.run(&mem.device(), &mut Backend::default(), Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (1, None));
}

#[test]
fn zero_short_and_huge_lengths() {
    let max = (hdr::SIZE + MAX_FRAME) as u32;
    for len in [0, 1, 11, 12, 25, max + 1, 1 << 31, u32::MAX] {
        let tx = transmit(0, single(BUFFERS, len, 0)).fault;
        assert_eq!(tx, fault(Error::BufferLength, 0), "{len}");
    }
    for len in [0, 1, 12, (1 << 20) + 1, 1 << 31, u32::MAX] {
        let rx = receive(0, single(BUFFERS, len, DESC_F_WRITE)).fault;
        assert_eq!(rx, fault(Error::BufferLength, 0), "{len}");
    }
    // Lengths that are good alone and bad together, up to where a sum of 32 bits wraps.
    let chain = |count: u16, len: u32, write: bool| {
        move |_: &Memory, driver: &mut Driver| {
            driver.chain(0, &vec![(BUFFERS, len); count.into()], write);
            driver.offer(0);
        }
    };
    assert_eq!(
        transmit(0, chain(3, 30_000, false)).fault,
        fault(Error::BufferLength, 2)
    );
    assert_eq!(
        receive(0, chain(40, 0x1_0000, true)).fault,
        fault(Error::BufferLength, 16)
    );
    assert_eq!(
        transmit(0, |_, driver| {
            driver.chain(0, &[(BUFFERS, 100), (BUFFERS, u32::MAX - 99)], false);
            driver.offer(0);
        })
        .fault,
        fault(Error::BufferLength, 1)
    );
    assert_eq!(
        transmit(0, |_, driver| {
            driver.chain(0, &[(BUFFERS, 100), (BUFFERS, 0)], false);
            driver.offer(0);
        })
        .fault,
        fault(Error::BufferLength, 1)
    );
}

#[test]
fn directions_that_do_not_fit_the_queue() {
    let tx = transmit(0, single(BUFFERS, 100, DESC_F_WRITE)).fault;
    assert_eq!(tx, fault(Error::Direction, 0));
    let rx = receive(0, single(BUFFERS, 100, 0)).fault;
    assert_eq!(rx, fault(Error::Direction, 0));
    // The second descriptor of a chain.
    let second = |first: u16, last: u16| {
        move |_: &Memory, driver: &mut Driver| {
            for (i, flags, next) in [(0, first | DESC_F_NEXT, 5), (5, last, 0)] {
                let desc = Desc {
                    addr: BUFFERS,
                    len: 100,
                    flags,
                    next,
                };
                driver.desc(i, desc);
            }
            driver.offer(0);
        }
    };
    assert_eq!(
        transmit(0, second(0, DESC_F_WRITE)).fault,
        fault(Error::Direction, 5)
    );
    assert_eq!(
        receive(0, second(DESC_F_WRITE, 0)).fault,
        fault(Error::Direction, 5)
    );
}

#[test]
fn chains_that_loop() {
    let cycle = |length: u16, write: u16, len: u32| {
        move |_: &Memory, driver: &mut Driver| {
            for i in 0..length {
                let desc = Desc {
                    addr: BUFFERS,
                    len,
                    flags: write | DESC_F_NEXT,
                    next: (i + 1) % length,
                };
                driver.desc(i, desc);
            }
            driver.offer(0);
        }
    };
    for length in [1, 2, 7, SIZE - 1] {
        assert_eq!(
            transmit(0, cycle(length, 0, 2)).fault,
            fault(Error::ChainLength, 0)
        );
        assert_eq!(
            receive(0, cycle(length, DESC_F_WRITE, 2)).fault,
            fault(Error::ChainLength, 0)
        );
    }
}

#[test]
fn the_longest_chain_is_the_ring_and_no_longer() {
    let mem = world();
    let mut driver = driver(&mem, SIZE, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    driver.chain(0, &vec![(BUFFERS, 10); SIZE.into()], false);
    driver.offer(0);
    let mut backend = Backend::default();
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (1, None));
    // One more: the last descriptor goes on to one that was used.
    let desc = Desc {
        addr: BUFFERS,
        len: 10,
        flags: DESC_F_NEXT,
        next: 3,
    };
    driver.desc(SIZE - 1, desc);
    driver.offer(0);
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(outcome.fault, fault(Error::ChainLength, 0));
}

#[test]
fn descriptor_indices_outside_the_ring() {
    for head in [SIZE, SIZE + 1, 0x8000, u16::MAX] {
        let offer = |_: &Memory, driver: &mut Driver| {
            driver.offer(head);
        };
        let expected = fault(Error::DescIndex, head.into());
        assert_eq!(transmit(0, offer).fault, expected);
        assert_eq!(receive(0, offer).fault, expected);
        let next = |flags: u16| {
            move |_: &Memory, driver: &mut Driver| {
                let desc = Desc {
                    addr: BUFFERS,
                    len: 100,
                    flags: flags | DESC_F_NEXT,
                    next: head,
                };
                driver.desc(0, desc);
                driver.offer(0);
            }
        };
        assert_eq!(transmit(0, next(0)).fault, expected);
        assert_eq!(receive(0, next(DESC_F_WRITE)).fault, expected);
    }
}

#[test]
fn avail_indices_that_jump() {
    for start in [0u16, 1, 0x7fff, 0xffff] {
        // A step of one too many, far ahead, and back by one.
        for jump in [SIZE + 1, 0x8000, u16::MAX] {
            let mem = world();
            let driver = driver(&mem, SIZE, 0).start_at(start);
            let idx = start.wrapping_add(jump);
            driver.set_avail_idx(idx);
            let expected = fault(Error::AvailIndex, idx.into());

            let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
            let mut backend = Backend::with_frames([frame(60, 0)]);
            let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
            assert_eq!(outcome.fault, expected);
            assert_eq!(backend.sent, []);

            let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
            let outcome = rx.run(
                &mem.device(),
                &mut backend,
                &everything(),
                Budget::default(),
            );
            assert_eq!(outcome.fault, expected);
        }
    }
}

#[test]
fn an_avail_index_that_falls_back_while_the_queue_runs() {
    let mem = world();
    let mut driver = driver(&mem, SIZE, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
    driver.chain(0, &[(BUFFERS, 72)], false);
    driver.offer(0);
    driver.offer(0);
    let mut backend = Backend::default();
    assert_eq!(
        tx.run(&mem.device(), &mut backend, Budget::default()).fault,
        None
    );
    driver.set_avail_idx(1);
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(outcome.fault, fault(Error::AvailIndex, 1));
}

#[test]
fn headers_that_lie() {
    let all = TX_CSUM | TX_TSO4 | TX_USO | TX_ECN;
    let csum = NetHdr {
        flags: hdr::F_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..NetHdr::default()
    };
    let tso = NetHdr {
        gso_type: hdr::GSO_TCPV4,
        gso_size: 1448,
        hdr_len: 54,
        ..csum
    };
    // A frame of 60 bytes.
    let lies = [
        (
            "unknown flag",
            all,
            NetHdr {
                flags: 0x80,
                ..csum
            },
        ),
        (
            "verified on transmit",
            all,
            NetHdr {
                flags: hdr::F_DATA_VALID,
                ..csum
            },
        ),
        ("checksum not negotiated", 0, csum),
        (
            "sum starts in the Ethernet header",
            all,
            NetHdr {
                csum_start: 13,
                ..csum
            },
        ),
        (
            "sum starts behind the frame",
            all,
            NetHdr {
                csum_start: 61,
                csum_offset: 0,
                ..csum
            },
        ),
        (
            "field ends behind the frame",
            all,
            NetHdr {
                csum_offset: 25,
                ..csum
            },
        ),
        (
            "offsets that wrap",
            all,
            NetHdr {
                csum_start: 0xffff,
                csum_offset: 0xffff,
                ..csum
            },
        ),
        ("unknown type", all, NetHdr { gso_type: 3, ..tso }),
        (
            "ECN alone",
            all,
            NetHdr {
                gso_type: hdr::GSO_ECN,
                ..tso
            },
        ),
        (
            "ECN with UDP",
            all,
            NetHdr {
                gso_type: hdr::GSO_UDP_L4 | hdr::GSO_ECN,
                ..tso
            },
        ),
        (
            "type not negotiated",
            all,
            NetHdr {
                gso_type: hdr::GSO_TCPV6,
                ..tso
            },
        ),
        (
            "ECN not negotiated",
            TX_CSUM | TX_TSO4,
            NetHdr {
                gso_type: 0x81,
                ..tso
            },
        ),
        ("segments without checksum", all, NetHdr { flags: 0, ..tso }),
        ("segments of nothing", all, NetHdr { gso_size: 0, ..tso }),
        (
            "headers longer than the frame",
            all,
            NetHdr { hdr_len: 61, ..tso },
        ),
        (
            "headers end in the TCP header",
            all,
            NetHdr { hdr_len: 53, ..tso },
        ),
    ];
    let run = |features: u64, header: NetHdr| {
        transmit(features, |mem, driver| {
            mem.write(BUFFERS, &packet(header, &frame(60, 0)));
            driver.chain(0, &[(BUFFERS, 72)], false);
            driver.offer(0);
        })
    };
    for (what, features, header) in lies {
        let outcome = run(features, header);
        assert_eq!(outcome.fault, fault(Error::Header, 0), "{what}");
    }
}

#[test]
fn rings_that_cannot_be() {
    let mem = world();
    let good = driver(&mem, SIZE, 0).config;
    let cases = [
        (RingConfig { size: 0, ..good }, Error::Size, 0),
        (RingConfig { size: 63, ..good }, Error::Size, 63),
        (RingConfig { size: 96, ..good }, Error::Size, 96),
        (RingConfig { size: 8192, ..good }, Error::Size, 8192),
        (
            RingConfig {
                size: 0x1_0040,
                ..good
            },
            Error::Size,
            0x1_0040,
        ),
        (
            RingConfig {
                desc: RING + 8,
                ..good
            },
            Error::Alignment,
            RING + 8,
        ),
        (
            RingConfig {
                avail: RING + 1,
                ..good
            },
            Error::Alignment,
            RING + 1,
        ),
        (
            RingConfig {
                used: RING + 2,
                ..good
            },
            Error::Alignment,
            RING + 2,
        ),
        (RingConfig { desc: 0, ..good }, Error::RingFault, 0),
        (RingConfig { avail: ROM, ..good }, Error::RingFault, ROM),
        (
            RingConfig {
                used: READ_ONLY,
                ..good
            },
            Error::RingFault,
            READ_ONLY,
        ),
        (
            RingConfig {
                desc: BUFFERS - 16,
                ..good
            },
            Error::RingFault,
            BUFFERS - 16,
        ),
        (
            RingConfig {
                desc: BUFFERS + BUFFER_BYTES - 1008,
                ..good
            },
            Error::RingFault,
            BUFFERS + BUFFER_BYTES - 1008,
        ),
        (
            RingConfig {
                used: u64::MAX - 3,
                ..good
            },
            Error::RingFault,
            u64::MAX - 3,
        ),
    ];
    for (config, error, info) in cases {
        let expected = Fault {
            error,
            info: info as u32,
        };
        assert_eq!(Tx::start(&config, &mem.device()).unwrap_err(), expected);
        assert_eq!(Rx::start(&config, &mem.device()).unwrap_err(), expected);
    }
    // A ring that ends where memory ends.
    let config = RingConfig {
        desc: BUFFERS + BUFFER_BYTES - 1024,
        avail: READ_ONLY,
        ..good
    };
    assert!(Tx::start(&config, &mem.device()).is_ok());
}

#[test]
fn ring_memory_that_goes_away_while_the_queue_runs() {
    // Each part of the ring in a page of its own.
    for gone in [0x10_0000, 0x20_0000, 0x30_0000] {
        let mem = Memory::new(&[
            (0x10_0000, 0x1000),
            (0x20_0000, 0x1000),
            (0x30_0000, 0x1000),
            (0x40_0000, 0x1000),
        ]);
        let mut driver = Driver::new(&mem, 0x10_0000, SIZE, MRG_RXBUF);
        driver.config.avail = 0x20_0000;
        driver.config.used = 0x30_0000;
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        mem.write(0x40_0000, &packet(NetHdr::default(), &frame(60, 0)));
        mem.space.unmap(gone, 0x1000);

        driver.chain(0, &[(0x40_0000, 72)], false);
        driver.offer(0);
        let mut backend = Backend::with_frames([frame(60, 0)]);
        let tx_fault = tx
            .run(&mem.device(), &mut backend, Budget::default())
            .fault
            .expect("fault");
        assert_eq!(tx_fault.error, Error::RingFault);
        assert_eq!(tx_fault.info & 0xfff0_0000, gone as u32);

        driver.chain(0, &[(0x40_0000, 72)], true);
        let rx_fault = rx
            .run(
                &mem.device(),
                &mut backend,
                &everything(),
                Budget::default(),
            )
            .fault
            .expect("fault");
        assert_eq!(rx_fault.error, Error::RingFault);
        assert_eq!(rx_fault.info & 0xfff0_0000, gone as u32);
    }
}

#[test]
fn rearming_on_a_ring_that_is_gone_is_a_fault() {
    for gone in [0x20_0000, 0x30_0000] {
        let mem = Memory::new(&[
            (0x10_0000, 0x1000),
            (0x20_0000, 0x1000),
            (0x30_0000, 0x1000),
        ]);
        let mut driver = Driver::new(&mem, 0x10_0000, SIZE, 0);
        driver.config.avail = 0x20_0000;
        driver.config.used = 0x30_0000;
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        mem.space.unmap(gone, 0x1000);
        let fault = tx.rearm(&mem.device()).unwrap_err();
        assert_eq!(fault.error, Error::RingFault);
    }
}

#[test]
fn a_fault_behind_frames_that_wait_is_reported_when_they_are_gone() {
    let mem = world();
    let mut driver = driver(&mem, SIZE, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
    for head in 0..3 {
        driver.chain(head, &[(BUFFERS, 72)], false);
        driver.offer(head);
    }
    driver.offer(u16::MAX);
    let mut backend = Backend {
        takes: Some(1),
        ..Backend::default()
    };
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (1, None));
    backend.takes = None;
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(outcome.frames, 2);
    assert_eq!(outcome.fault, fault(Error::DescIndex, 0xffff));
}
