// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that break the rules of the ring, one rule at a time, end to end: the queue stops and
//! says why, everything else goes on, and a restart or a reset repairs it.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use common::{counter, options, own, round_trip};
use vnet_contract::features::INDIRECT_DESC;
use vnet_contract::hdr::{self, NetHdr, F_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4};
use vnet_contract::queue::{rx_index, tx_index, Error, Kind};
use vnet_contract::regs;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_ring::Memory as _;
use vnet_testkit::{GuestRam, Nic, Options, RawQueue, Server, LIMIT, QUIET};

const SIZE: u16 = 64;
const HDR: u32 = hdr::SIZE as u32;
/// Memory that the card may only read.
const READ_ONLY: u64 = 0x8000_0000;
/// Bus addresses that nobody ever maps.
const NOWHERE: u64 = 0xdead_0000_0000;

/// A card with two pairs: a hostile driver has one queue of the first.
struct Rig {
    nic: Nic,
    raw: RawQueue,
    kind: Kind,
    /// A page of ordinary memory.
    page: u64,
    // Keeps the memory that is mapped read-only alive.
    _read_only: GuestRam,
}

impl Rig {
    fn new(server: &Server, kind: Kind) -> Self {
        Self::with(server, kind, 0)
    }

    /// A rig that accepts more features than the usual ones.
    fn with(server: &Server, kind: Kind, features: u64) -> Self {
        let usual = options();
        let two = Options {
            pairs: 2,
            features: usual.features | features,
            ..usual
        };
        let mut nic = server.nic_with(two).unwrap();
        let read_only = GuestRam::new(READ_ONLY, 0x4000).unwrap();
        nic.card
            .map_range(&read_only, 0, READ_ONLY, 0x4000, false)
            .unwrap();
        let raw = RawQueue::new(&nic.ram, SIZE);
        let page = nic.ram.alloc(4096, 4096);
        let mut rig = Self {
            nic,
            raw,
            kind,
            page,
            _read_only: read_only,
        };
        rig.take_over();
        rig
    }

    fn queue(&self) -> u16 {
        match self.kind {
            Kind::Rx => rx_index(0),
            Kind::Tx => tx_index(0),
        }
    }

    fn reg(&mut self, reg: u32) -> u32 {
        let reg = regs::queue_reg(self.queue(), reg);
        self.nic.card.reg(reg).unwrap()
    }

    /// Replaces the honest driver of the queue. The ring is empty and good.
    fn take_over(&mut self) {
        let queue = self.queue();
        self.nic.stop(queue).unwrap();
        self.raw.restart();
        self.enable();
        assert_eq!(self.nic.card.queue_error(queue).unwrap(), None);
        self.nic.events.take();
    }

    fn enable(&mut self) {
        let rings = self.raw.ring.addresses();
        let queue = self.queue();
        self.nic.card.enable(queue, SIZE.into(), rings, 0).unwrap();
    }

    /// Lets the card look at the ring.
    fn kick(&mut self) {
        let (queue, index) = (self.queue(), self.raw.avail_index());
        self.nic.card.doorbell(queue, index).unwrap();
        if self.kind == Kind::Rx {
            // Buffers are looked at when a frame needs them.
            let frame = own(&self.nic, 60, 1);
            self.nic.send(0, &frame).unwrap();
        }
    }

    /// What the card must show after the queue has failed, and what must still work.
    fn assert_failed(&mut self, what: &str, error: Error, info: Option<u32>) {
        let queue = self.queue();
        let seen = self.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(seen, error, "{what}");
        if let Some(info) = info {
            assert_eq!(self.reg(regs::Q_ERROR_INFO), info, "{what}");
        }
        assert_eq!(self.reg(regs::Q_CTRL), 0, "{what}: still enabled");
        let running = self.reg(regs::Q_STATUS) & regs::Q_STATUS_RUNNING;
        assert_eq!(running, 0, "{what}: still running");
        let card = &mut self.nic.card;
        assert_eq!(card.reg(regs::QUEUE_ERRORS).unwrap(), 1 << queue, "{what}");
        assert!(self.nic.events.wait(LIMIT).unwrap(), "{what}: no event");
        let cause = card.reg(regs::EVENT_CAUSE).unwrap();
        assert_eq!(cause, regs::EVENT_QUEUE_ERROR, "{what}");
        card.set_reg(regs::EVENT_CAUSE, cause).unwrap();
        assert_eq!(card.reg(regs::EVENT_CAUSE).unwrap(), 0, "{what}");
        assert_eq!(counter(&mut self.nic, queue, regs::S_ERRORS), 1, "{what}");
        assert_eq!(self.raw.used_index(), 0, "{what}: a bad chain came back");
        // Neither the doorbell nor a new index wakes it.
        self.raw.move_index(1);
        let index = self.raw.avail_index();
        self.nic.card.doorbell(queue, index).unwrap();
        assert_eq!(self.nic.card.queue_error(queue).unwrap(), Some(error));
        // The other pair goes on.
        round_trip(&mut self.nic, 1, 7);
    }

    /// Starts the queue alone with an honest ring, then the whole card anew.
    fn assert_repairable(&mut self, what: &str) {
        self.take_over();
        let card = &mut self.nic.card;
        assert_eq!(card.reg(regs::QUEUE_ERRORS).unwrap(), 0, "{what}");
        self.offer_good();
        self.kick();
        let end = std::time::Instant::now() + LIMIT;
        while self.raw.used_index() != 1 {
            assert!(std::time::Instant::now() < end, "{what}: nothing came back");
            std::thread::yield_now();
        }
        self.nic.restart().unwrap();
        assert_eq!(self.nic.card.reg(regs::QUEUE_ERRORS).unwrap(), 0, "{what}");
        for seed in 0..5 {
            round_trip(&mut self.nic, 0, seed);
            round_trip(&mut self.nic, 1, seed);
        }
        self.take_over();
    }

    /// A chain that breaks no rule, in a ring that is empty.
    fn offer_good(&mut self) {
        match self.kind {
            Kind::Tx => {
                self.nic.ram.write(self.page, &[0; 72]);
                self.raw.desc(0, self.page, HDR, DESC_F_NEXT, 1);
                self.raw.desc(1, self.page + 12, 60, 0, 0);
            }
            Kind::Rx => self.raw.desc(0, self.page, 2048, DESC_F_WRITE, 0),
        }
        self.raw.offer(0);
    }
}

/// A way to break a rule: its name, the error and detail that the card must give, and the deed.
type Case = (&'static str, Error, Option<u32>, fn(&mut Rig));

fn check(kind: Kind, cases: &[Case]) {
    check_with(kind, 0, cases);
}

fn check_with(kind: Kind, features: u64, cases: &[Case]) {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::with(&server, kind, features);
    for &(what, error, info, deed) in cases {
        deed(&mut rig);
        rig.kick();
        rig.assert_failed(what, error, info);
        rig.assert_repairable(what);
    }
}

/// A frame in one buffer whose header is wrong.
fn with_header(rig: &mut Rig, header: NetHdr) {
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(72, 0);
    rig.nic.ram.write(rig.page, &bytes);
    rig.raw.desc(0, rig.page, 72, 0, 0);
    rig.raw.offer(0);
}

#[test]
fn transmit_indices_and_chains() {
    check(
        Kind::Tx,
        &[
            ("avail index jumps", Error::AvailIndex, Some(65), |r| {
                r.raw.move_index(65);
            }),
            (
                "avail index runs back",
                Error::AvailIndex,
                Some(0xffff),
                |r| {
                    r.raw.move_index(0xffff);
                },
            ),
            ("head outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.offer(64);
            }),
            ("head far outside", Error::DescIndex, Some(0xffff), |r| {
                r.raw.offer(0xffff);
            }),
            ("next outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 64);
                r.raw.offer(0);
            }),
            (
                "descriptor follows itself",
                Error::ChainLength,
                Some(5),
                |r| {
                    r.raw.desc(5, r.page, HDR, DESC_F_NEXT, 5);
                    r.raw.offer(5);
                },
            ),
            ("chain loops", Error::ChainLength, Some(0), |r| {
                for n in 0..3 {
                    r.raw.desc(n, r.page, HDR, DESC_F_NEXT, (n + 1) % 3);
                }
                r.raw.offer(0);
            }),
            (
                "loop through the whole ring",
                Error::ChainLength,
                Some(9),
                |r| {
                    for n in 0..SIZE {
                        r.raw.desc(n, r.page, HDR, DESC_F_NEXT, (n + 1) % SIZE);
                    }
                    r.raw.offer(9);
                },
            ),
            ("indirect", Error::Indirect, Some(2), |r| {
                r.raw.desc(2, r.page, 16, DESC_F_INDIRECT, 0);
                r.raw.offer(2);
            }),
            ("writable descriptor", Error::Direction, Some(1), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                r.raw.desc(1, r.page, 60, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
        ],
    );
}

#[test]
fn transmit_buffers() {
    check(
        Kind::Tx,
        &[
            ("length zero", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, 0, 0, 0);
                r.raw.offer(0);
            }),
            (
                "length zero in the middle",
                Error::BufferLength,
                Some(1),
                |r| {
                    r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                    r.raw.desc(1, r.page, 0, DESC_F_NEXT, 2);
                    r.raw.desc(2, r.page, 60, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("header only", Error::BufferLength, Some(3), |r| {
                r.raw.desc(3, r.page, HDR, 0, 0);
                r.raw.offer(3);
            }),
            ("half a header", Error::BufferLength, Some(3), |r| {
                r.raw.desc(3, r.page, 5, 0, 0);
                r.raw.offer(3);
            }),
            (
                "less than an Ethernet header",
                Error::BufferLength,
                Some(0),
                |r| {
                    r.raw.desc(0, r.page, HDR + 13, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("length of 4 GiB", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, u32::MAX, 0, 0);
                r.raw.offer(0);
            }),
            (
                "chain longer than any frame",
                Error::BufferLength,
                None,
                |r| {
                    let base = r.nic.ram.base();
                    for n in 0..SIZE {
                        let flags = if n + 1 < SIZE { DESC_F_NEXT } else { 0 };
                        r.raw.desc(n, base, 4096, flags, n + 1);
                    }
                    r.raw.offer(0);
                },
            ),
            ("address outside memory", Error::BufferFault, Some(1), |r| {
                r.raw.desc(0, r.page, HDR, DESC_F_NEXT, 1);
                r.raw.desc(1, NOWHERE, 60, 0, 0);
                r.raw.offer(0);
            }),
            (
                "buffer runs out of memory",
                Error::BufferFault,
                Some(0),
                |r| {
                    let end = r.nic.ram.end();
                    r.raw.desc(0, end - 50, 72, 0, 0);
                    r.raw.offer(0);
                },
            ),
            (
                "buffer begins before memory",
                Error::BufferFault,
                Some(0),
                |r| {
                    let base = r.nic.ram.base();
                    r.raw.desc(0, base - 1, 72, 0, 0);
                    r.raw.offer(0);
                },
            ),
            ("buffer wraps at 2^64", Error::BufferFault, Some(0), |r| {
                r.raw.desc(0, u64::MAX - 10, 72, 0, 0);
                r.raw.offer(0);
            }),
        ],
    );
}

#[test]
fn transmit_headers() {
    check(
        Kind::Tx,
        &[
            ("checksum outside the frame", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    csum_start: 59,
                    csum_offset: 0,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("checksum offset overflows", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    csum_start: 0xffff,
                    csum_offset: 0xffff,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            (
                "checksum in the Ethernet header",
                Error::Header,
                Some(0),
                |r| {
                    let header = NetHdr {
                        flags: F_NEEDS_CSUM,
                        csum_start: 2,
                        csum_offset: 2,
                        ..NetHdr::default()
                    };
                    with_header(r, header);
                },
            ),
            ("segmentation not negotiated", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    gso_type: GSO_TCPV4,
                    hdr_len: 54,
                    gso_size: 1,
                    csum_start: 34,
                    csum_offset: 16,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("segments of no bytes", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: F_NEEDS_CSUM,
                    gso_type: GSO_UDP_L4,
                    hdr_len: 42,
                    csum_start: 34,
                    csum_offset: 6,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("undefined type", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    gso_type: 0x7f,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
            ("undefined flags", Error::Header, Some(0), |r| {
                let header = NetHdr {
                    flags: 0xfe,
                    ..NetHdr::default()
                };
                with_header(r, header);
            }),
        ],
    );
}

#[test]
fn receive_rings() {
    check(
        Kind::Rx,
        &[
            ("avail index jumps", Error::AvailIndex, Some(65), |r| {
                r.raw.move_index(65);
            }),
            ("head outside the ring", Error::DescIndex, Some(64), |r| {
                r.raw.offer(64);
            }),
            ("readable descriptor", Error::Direction, Some(0), |r| {
                r.raw.desc(0, r.page, 2048, 0, 0);
                r.raw.offer(0);
            }),
            ("chain loops", Error::ChainLength, Some(0), |r| {
                r.raw.desc(0, r.page, 16, DESC_F_WRITE | DESC_F_NEXT, 1);
                r.raw.desc(1, r.page, 16, DESC_F_WRITE | DESC_F_NEXT, 0);
                r.raw.offer(0);
            }),
            ("length zero", Error::BufferLength, Some(4), |r| {
                r.raw.desc(4, r.page, 0, DESC_F_WRITE, 0);
                r.raw.offer(4);
            }),
            (
                "no room for the header",
                Error::BufferLength,
                Some(0),
                |r| {
                    r.raw.desc(0, r.page, HDR - 1, DESC_F_WRITE, 0);
                    r.raw.offer(0);
                },
            ),
            ("length of 4 GiB", Error::BufferLength, Some(0), |r| {
                r.raw.desc(0, r.page, u32::MAX, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
            (
                "memory that is read-only",
                Error::BufferFault,
                Some(0),
                |r| {
                    r.raw.desc(0, READ_ONLY, 2048, DESC_F_WRITE, 0);
                    r.raw.offer(0);
                },
            ),
            ("address outside memory", Error::BufferFault, Some(0), |r| {
                r.raw.desc(0, NOWHERE, 2048, DESC_F_WRITE, 0);
                r.raw.offer(0);
            }),
            ("indirect", Error::Indirect, Some(0), |r| {
                r.raw.desc(0, r.page, 16, DESC_F_INDIRECT, 0);
                r.raw.offer(0);
            }),
        ],
    );
}

/// Where a rig's page has room for a table.
const TABLE: u64 = 2048;

#[test]
fn indirect_tables() {
    let cases: [Case; 5] = [
        ("no table", Error::Indirect, Some(3), |r| {
            r.raw.desc(3, r.page, 0, DESC_F_INDIRECT, 0);
            r.raw.offer(3);
        }),
        (
            "table longer than the ring",
            Error::Indirect,
            Some(3),
            |r| {
                let len = 16 * (u32::from(SIZE) + 1);
                r.raw.desc(3, r.page, len, DESC_F_INDIRECT, 0);
                r.raw.offer(3);
            },
        ),
        ("table outside memory", Error::BufferFault, Some(3), |r| {
            r.raw.desc(3, NOWHERE, 32, DESC_F_INDIRECT, 0);
            r.raw.offer(3);
        }),
        ("table in a table", Error::Indirect, Some(3), |r| {
            let inner = Desc {
                addr: r.page,
                len: 16,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            r.raw.indirect(3, r.page + TABLE, &[inner]);
            r.raw.offer(3);
        }),
        ("link out of the table", Error::DescIndex, Some(2), |r| {
            let write = match r.kind {
                Kind::Tx => 0,
                Kind::Rx => DESC_F_WRITE,
            };
            let link = Desc {
                addr: r.page,
                len: HDR,
                flags: DESC_F_NEXT | write,
                next: 2,
            };
            r.raw.indirect(3, r.page + TABLE, &[link; 2]);
            r.raw.offer(3);
        }),
    ];
    check_with(Kind::Tx, INDIRECT_DESC, &cases);
    check_with(Kind::Rx, INDIRECT_DESC, &cases);
}

#[test]
fn frames_go_out_and_come_in_through_tables() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    for kind in [Kind::Tx, Kind::Rx] {
        let mut rig = Rig::with(&server, kind, INDIRECT_DESC);
        let frame = own(&rig.nic, 1000, 9);
        let flag = match kind {
            Kind::Tx => {
                let packet = [&[0; HDR as usize], &frame[..]].concat();
                rig.nic.ram.write(rig.page, &packet);
                0
            }
            Kind::Rx => DESC_F_WRITE,
        };
        let last = HDR as u64 + 100;
        let part = |at: u64, len, flags, next| Desc {
            addr: rig.page + at,
            len,
            flags: flag | flags,
            next,
        };
        let table = [
            part(0, HDR, DESC_F_NEXT, 1),
            part(HDR.into(), 100, DESC_F_NEXT, 2),
            part(last, 900, 0, 0),
        ];
        rig.raw.indirect(7, rig.page + TABLE, &table);
        rig.raw.offer(7);
        match kind {
            Kind::Tx => {
                rig.kick();
                assert_eq!(rig.nic.expect(0).unwrap().frame, frame);
            }
            Kind::Rx => {
                let index = rig.raw.avail_index();
                let queue = rig.queue();
                rig.nic.card.doorbell(queue, index).unwrap();
                rig.nic.send(0, &frame).unwrap();
                rig.nic.drain(0).unwrap();
                let end = std::time::Instant::now() + LIMIT;
                while rig.raw.used_index() != 1 {
                    assert!(std::time::Instant::now() < end, "nothing came");
                    std::thread::yield_now();
                }
                let at = rig.page + u64::from(HDR);
                assert_eq!(rig.nic.ram.read_vec(at, frame.len()), frame);
            }
        }
        assert_eq!(rig.raw.used_index(), 1);
        assert_eq!(rig.raw.ring.used(0).id, 7);
    }
}

#[test]
fn a_read_only_buffer_can_be_sent() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    rig.raw.desc(0, READ_ONLY, 72, 0, 0);
    rig.raw.offer(0);
    rig.kick();
    let end = std::time::Instant::now() + LIMIT;
    while rig.raw.used_index() != 1 {
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
    assert_eq!(rig.nic.card.queue_error(tx_index(0)).unwrap(), None);
}

#[test]
fn a_buffer_may_cross_two_mappings() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    // More memory right behind the read-only one: one buffer over the seam.
    let more = GuestRam::new(READ_ONLY + 0x4000, 0x4000).unwrap();
    rig.nic.card.map(&more).unwrap();
    rig.raw.desc(0, READ_ONLY + 0x4000 - 40, 72, 0, 0);
    rig.raw.offer(0);
    rig.kick();
    let end = std::time::Instant::now() + LIMIT;
    while rig.raw.used_index() != 1 {
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
}

/// Ring memory taken away under a running queue.
#[test]
fn ring_memory_that_vanishes() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    for part in 0..3 {
        let mut rig = Rig::new(&server, Kind::Tx);
        let ram = Arc::new(GuestRam::new(0x1_0000_0000, 0x1000).unwrap());
        rig.nic.card.map(&ram).unwrap();
        let queue = rig.queue();
        rig.nic.card.disable(queue).unwrap();
        let mut rings = rig.raw.ring.addresses();
        // One part of the ring moves to memory of its own, which is zero as the part was.
        rings[part] = ram.base();
        rig.nic.card.enable(queue, SIZE.into(), rings, 0).unwrap();
        assert_eq!(rig.nic.card.queue_error(queue).unwrap(), None);
        rig.nic.card.unmap(ram.base(), ram.size()).unwrap();
        rig.offer_good();
        rig.kick();
        let what = ["descriptor table", "avail ring", "used ring"][part];
        let seen = rig.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(seen, Error::RingFault, "{what}");
        round_trip(&mut rig.nic, 1, 3);
        rig.assert_repairable(what);
    }
}

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

#[test]
fn the_log_does_not_grow_with_the_errors() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    let queue = rig.queue();
    for n in 1..=300 {
        rig.raw.offer(0xffff);
        rig.kick();
        rig.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(counter(&mut rig.nic, queue, regs::S_ERRORS), n);
        rig.nic.card.disable(queue).unwrap();
        rig.raw.restart();
        rig.enable();
    }
    std::thread::sleep(QUIET);
    let log = server.process.stderr();
    let lines = log.lines().count();
    assert!((1..=50).contains(&lines), "{lines} lines:\n{log}");
    assert!(
        log.contains("65535"),
        "the log does not say what is wrong: {log}"
    );
}

/// What changes while the card works on it: never a crash, and never a frame from nowhere.
#[test]
fn a_ring_that_changes_all_the_time() {
    let server = Server::start_with("null", &["--queues", "2"]).unwrap();
    let mut rig = Rig::with(&server, Kind::Tx, INDIRECT_DESC);
    let queue = rig.queue();
    let mut state = 1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (page, base) = (rig.page, rig.nic.ram.base());
    let addresses = [page, base, NOWHERE, READ_ONLY, u64::MAX - 100, 0];
    // Some of them are good lengths of a table.
    let lengths = [12, 60, 72, 1500, 0, u32::MAX, 65_565, 16, 96];
    let mut failures = 0;
    for _ in 0..common::rounds(20_000) {
        for _ in 0..4 {
            let addr = addresses[next() as usize % addresses.len()];
            let len = lengths[next() as usize % lengths.len()];
            let index = next() as u16 % SIZE;
            let flags = (next() % 16) as u16;
            rig.raw.desc(index, addr, len, flags, next() as u16 % 80);
        }
        rig.raw.offer(next() as u16 % SIZE);
        if next() % 8 == 0 {
            let index = rig.raw.avail_index();
            rig.nic.card.doorbell(queue, index).unwrap();
        }
        if next() % 64 == 0 {
            if rig.nic.card.queue_error(queue).unwrap().is_some() {
                failures += 1;
            }
            rig.nic.card.disable(queue).unwrap();
            rig.raw.restart();
            rig.enable();
        }
    }
    assert!(
        failures > 100,
        "only {failures} failures: the test is too tame"
    );
    let frame = own(&rig.nic, 60, 1);
    rig.nic.send(1, &frame).unwrap();
    rig.nic.drain(1).unwrap();
}
