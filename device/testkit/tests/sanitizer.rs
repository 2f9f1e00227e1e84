// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! For each rule a driver that breaks it, and no other; and one that breaks none.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{own, round_trip};
use rustix::process::Signal;
use vnet_contract::hdr::{NetHdr, F_DATA_VALID, F_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4};
use vnet_contract::queue::NO_VECTOR;
use vnet_contract::ring::{Desc, DESC_F_NEXT, DESC_F_WRITE};
use vnet_contract::{features, regs};
use vnet_ring::Memory;
use vnet_testkit::{irq, region, Card, GuestRam, Options, RawQueue, Server, Vector, LIMIT};

const SIZE: u16 = 64;
const RX: u16 = 0;
const TX: u16 = 1;
/// No interrupt for the next 2^16 entries.
const NEVER: u16 = 0xffff;

/// Runs a driver against a card under `--sanitize=strict`, and returns the rules that it broke. The
/// exit status must say whether there are any.
fn judge(net: &str, drive: impl FnOnce(&Server)) -> BTreeSet<String> {
    let args = ["--sanitize=strict", "--sanitize-patience=1"];
    let mut server = Server::start_with(net, &args).unwrap();
    drive(&server);
    let (status, text) = server.finish().unwrap();
    // "sanitizer: RULE, N times, first: ..."
    let rules: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("sanitizer: ")?.split_once(", "))
        .filter(|(_, rest)| rest.contains(" times, first: "))
        .map(|(rule, _)| rule.to_owned())
        .collect();
    let expected = if rules.is_empty() { 0 } else { 3 };
    assert_eq!(status, Some(expected), "{text}");
    for rule in &rules {
        assert!(text.contains(&format!("docs/rules.md#{rule}")), "{text}");
    }
    rules
}

/// The driver must break this rule and no other.
#[track_caller]
fn breaks(rule: &str, net: &str, drive: impl FnOnce(&Server)) {
    let broken = judge(net, drive);
    assert_eq!(broken, BTreeSet::from([rule.to_owned()]));
}

/// Long enough for what was never done to count as such, in a guest that is alive.
fn linger(card: &mut Card) {
    let end = Instant::now() + Duration::from_millis(2000);
    while Instant::now() < end {
        card.reg(regs::STATUS).unwrap();
        sleep(Duration::from_millis(50));
    }
}

/// Long enough for the rings to be looked at.
fn moment() {
    sleep(Duration::from_millis(500));
}

/// A card with features in force, memory and MSI-X, and rings that are not started.
struct Bench {
    card: Card,
    ram: Arc<GuestRam>,
    rx: RawQueue,
    tx: RawQueue,
    vectors: Vec<Vector>,
    buffers: u64,
}

impl Bench {
    fn new(server: &Server) -> Self {
        let mut bench = Self::without_msix(server);
        bench.vectors = bench.card.vectors(2).unwrap();
        bench
    }

    fn without_msix(server: &Server) -> Self {
        let ram = Arc::new(GuestRam::new(0x10_0000, 0x40_0000).unwrap());
        let mut card = server.card().unwrap();
        card.reset().unwrap();
        card.negotiate(features::TX_CSUM | features::TX_TSO4 | features::TX_USO)
            .unwrap();
        card.map(&ram).unwrap();
        card.set_reg(regs::RX_MODE, regs::RX_MODE_PROMISC).unwrap();
        let (rx, tx) = (RawQueue::new(&ram, SIZE), RawQueue::new(&ram, SIZE));
        let buffers = ram.alloc(2 * u64::from(SIZE) * 0x1000, 0x1000);
        Self {
            card,
            ram,
            rx,
            tx,
            vectors: Vec::new(),
            buffers,
        }
    }

    fn start(&mut self, queue: u16, vector: u32) {
        let ring = match queue {
            RX => &self.rx.ring,
            _ => &self.tx.ring,
        };
        let (addresses, size) = (ring.addresses(), SIZE.into());
        self.card.enable(queue, size, addresses, vector).unwrap();
        assert_eq!(self.card.queue_error(queue).unwrap(), None);
    }

    fn rx_buffer(&self, head: u16) -> u64 {
        self.buffers + u64::from(head) * 0x1000
    }

    fn tx_buffer(&self, head: u16) -> u64 {
        self.rx_buffer(SIZE + head)
    }

    /// Puts a receive buffer into the ring.
    fn post(&mut self, head: u16) {
        let at = self.rx_buffer(head);
        self.rx.desc(head, at, 2048, DESC_F_WRITE, 0);
        self.rx.offer(head);
    }

    fn ring(&mut self, queue: u16) {
        let index = match queue {
            RX => self.rx.avail_index(),
            _ => self.tx.avail_index(),
        };
        self.card.doorbell(queue, index).unwrap();
    }

    /// Writes header and frame, and a descriptor for them.
    fn packet(&mut self, head: u16, header: NetHdr, frame: &[u8]) {
        let at = self.tx_buffer(head);
        self.ram
            .write(at, &[&header.to_bytes()[..], frame].concat());
        let len = 12 + frame.len() as u32;
        self.tx.desc(head, at, len, 0, 0);
    }

    /// Sends a frame and waits until the card has returned it.
    fn send(&mut self, header: NetHdr, frame: &[u8]) {
        let head = self.tx.avail_index() % SIZE;
        self.packet(head, header, frame);
        self.tx.offer(head);
        self.ring(TX);
        let index = self.tx.avail_index();
        eventually(|| self.tx.used_index() == index);
    }

    /// Sends a frame that comes back, and waits for it.
    fn loop_back(&mut self) {
        let index = self.rx.used_index().wrapping_add(1);
        self.send(NetHdr::default(), &[0x5a; 60]);
        eventually(|| self.rx.used_index() == index);
    }

    /// Offers a chain on a transmit queue that runs; the card must stop it.
    fn offer_bad(&mut self, head: u16) {
        self.tx.offer(head);
        self.ring(TX);
        self.card.wait_queue_error(TX).unwrap();
    }
}

fn eventually(mut f: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !f() {
        assert!(Instant::now() < end);
        sleep(Duration::from_micros(200));
    }
}

/// A frame of UDP over IPv4, ready for its checksum to be completed.
fn datagram(payload: usize) -> (NetHdr, Vec<u8>) {
    let len = (8 + payload) as u16;
    let mut frame = vec![0x02; 12];
    frame.extend([0x08, 0, 0x45, 0]);
    frame.extend((20 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = 0x0a00u32 + 1 + 0x0a00 + 2 + 17 + u32::from(len);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame.extend([0x10, 0, 0x20, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend((sum as u16).to_be_bytes());
    frame.resize(42 + payload, 0x77);
    let header = NetHdr {
        flags: F_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..NetHdr::default()
    };
    (header, frame)
}

#[test]
fn no_rule_was_forgotten() {
    let rules = include_str!("../../../docs/rules.md").lines();
    let rules: Vec<_> = rules.filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(rules.len() > 30);
    for rule in rules {
        let here = include_str!("sanitizer.rs");
        assert!(here.contains(&format!("\"{rule}\"")), "{rule}");
    }
}

#[test]
fn a_driver_that_keeps_the_rules() {
    for net in ["loopback", "gateway"] {
        let broken = judge(net, |server| {
            let options = Options {
                features: u64::MAX,
                ..Options::default()
            };
            let mut nic = server.nic_with(options).unwrap();
            for seed in 0..2000 {
                match net {
                    "loopback" => round_trip(&mut nic, 0, seed),
                    _ => nic.send(0, &own(&nic, 60, seed)).unwrap(),
                }
            }
            nic.drain(0).unwrap();
            while !nic.arm(0).unwrap() {}
            linger(&mut nic.card);
            nic.restart().unwrap();
            nic.stop(0).unwrap();
            nic.resume(0).unwrap();
            nic.drain(0).unwrap();
            while !nic.arm(0).unwrap() {}
            linger(&mut nic.card);
        });
        assert!(broken.is_empty(), "{net}: {broken:?}");
    }
}

#[test]
fn offloads_that_fit() {
    let broken = judge("null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        let (header, frame) = datagram(100);
        bench.send(header, &frame);
        let (header, frame) = datagram(3000);
        let header = NetHdr {
            gso_type: GSO_UDP_L4,
            gso_size: 1000,
            hdr_len: 42,
            ..header
        };
        bench.send(header, &frame);
    });
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn report_is_not_strict() {
    let mut server = Server::start_with("null", &["--sanitize=report"]).unwrap();
    server.card().unwrap().reg(0x3ffc).unwrap();
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(0));
    assert!(text.contains("register-unknown, 1 times"), "{text}");
}

#[test]
fn what_is_found_outlives_the_process_that_found_it() {
    let args = ["--survive", "--sanitize=strict"];
    let mut server = Server::start_with("null", &args).unwrap();
    let mut card = server.card().unwrap();
    server.kill_worker().unwrap();
    card.reg(0x3ffc).unwrap();
    card.reg(0x3ff8).unwrap();
    server.kill_worker().unwrap();
    card.set_reg(regs::MTU, 1).unwrap();
    // In order.
    let before = server.worker().unwrap();
    server.process.signal(Signal::USR2).unwrap();
    eventually(|| {
        server
            .worker()
            .unwrap()
            .is_some_and(|now| Some(now) != before)
    });
    card.reg(0x3ffc).unwrap();
    server.kill_worker().unwrap();
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(3), "{text}");
    for due in [
        "sanitizer: 2 rules were broken, 4 times in all",
        "sanitizer: register-unknown, 3 times, first: register-unknown: There is no register",
        "sanitizer: register-value, 1 times, first: register-value: ",
    ] {
        assert!(text.contains(due), "{text}");
    }
}

#[test]
fn a_driver_that_keeps_the_rules_does_when_the_server_is_killed() {
    let args = ["--survive", "--sanitize=strict", "--sanitize-patience=1"];
    let mut server = Server::start_with("loopback", &args).unwrap();
    let mut nic = server.nic().unwrap();
    for n in 0..20 {
        round_trip(&mut nic, 0, n);
        server.kill_worker().unwrap();
    }
    round_trip(&mut nic, 0, 1);
    linger(&mut nic.card);
    drop(nic);
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("no rule was broken"), "{text}");
}

#[test]
fn registers() {
    breaks("register-width", "null", |server| {
        let mut card = server.card().unwrap();
        card.read(region::BAR0, 0, &mut [0; 2]).unwrap();
        card.write(region::BAR0, 2, &[0; 4]).unwrap();
    });
    breaks("register-unknown", "null", |server| {
        let mut card = server.card().unwrap();
        card.reg(regs::queue_reg(2, regs::Q_SIZE)).unwrap();
        card.set_reg(regs::CLOCK_LO, 0).unwrap();
    });
    breaks("register-read-only", "null", |server| {
        server.card().unwrap().set_reg(regs::ID, 1).unwrap();
    });
    breaks("register-value", "null", |server| {
        server.card().unwrap().set_reg(regs::MTU, 1).unwrap();
    });
    breaks("register-reserved", "null", |server| {
        let mut card = server.card().unwrap();
        card.set_reg(regs::RX_MODE, 1 << 31).unwrap();
        card.set_reg(regs::queue_reg(0, regs::Q_CTRL), 2).unwrap();
    });
    breaks("features-refused", "null", |server| {
        let mut card = server.card().unwrap();
        card.set_reg64(regs::DRIVER_FEATURES_LO, 1 << 63).unwrap();
        card.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES)
            .unwrap();
    });
}

#[test]
fn setting_queues_up() {
    breaks("queue-setup", "null", |server| {
        let mut bench = Bench::new(server);
        let rings = bench.tx.ring.addresses();
        bench.card.enable(TX, 63, rings, 0).unwrap();
    });
    breaks("queue-running", "null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, 0);
        let size = regs::queue_reg(TX, regs::Q_SIZE);
        bench.card.set_reg(size, 64).unwrap();
    });
    breaks("msix-disabled", "null", |server| {
        Bench::without_msix(server).start(TX, 0);
    });
    breaks("dma-unreachable", "null", |server| {
        let mut bench = Bench::new(server);
        let mut rings = bench.tx.ring.addresses();
        rings[2] = 0x1_0000_0000;
        bench.card.enable(TX, SIZE.into(), rings, 0).unwrap();
    });
}

#[test]
fn chains() {
    type Bad = fn(&mut Bench);
    let cases: [(&str, Bad); 8] = [
        ("avail-index", |b| {
            b.tx.move_index(SIZE + 1);
            b.ring(TX);
            b.card.wait_queue_error(TX).unwrap();
        }),
        ("chain-index", |b| b.offer_bad(SIZE)),
        ("chain-loop", |b| {
            let at = b.tx_buffer(0);
            b.tx.desc(0, at, 100, DESC_F_NEXT, 0);
            b.offer_bad(0);
        }),
        ("chain-direction", |b| {
            let at = b.tx_buffer(0);
            b.tx.desc(0, at, 100, DESC_F_WRITE, 0);
            b.offer_bad(0);
        }),
        ("chain-length", |b| {
            let at = b.tx_buffer(0);
            b.tx.desc(0, at, 12 + 13, 0, 0);
            b.offer_bad(0);
        }),
        ("chain-indirect", |b| {
            let (table, addr) = (b.tx_buffer(1), b.tx_buffer(0));
            let desc = Desc {
                addr,
                len: 100,
                flags: 0,
                next: 0,
            };
            b.tx.indirect(0, table, &[desc]);
            b.offer_bad(0);
        }),
        ("dma-unreachable", |b| {
            b.tx.desc(0, 0x1_0000_0000, 100, 0, 0);
            b.offer_bad(0);
        }),
        ("dma-unmapped", |b| {
            let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
            b.card.map(&other).unwrap();
            b.card.unmap(other.base(), other.size()).unwrap();
            b.tx.desc(0, other.base(), 100, 0, 0);
            b.offer_bad(0);
        }),
    ];
    for (rule, bad) in cases {
        breaks(rule, "null", |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, 0);
            bad(&mut bench);
        });
    }
}

#[test]
fn what_the_card_owns() {
    breaks("chain-reused", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.start(RX, 0);
        bench.post(0);
        bench.post(0);
        bench.ring(RX);
        moment();
    });
    breaks("chain-changed", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.start(RX, 0);
        bench.start(TX, NO_VECTOR);
        bench.post(0);
        bench.ring(RX);
        moment();
        let at = bench.rx_buffer(0);
        bench.rx.desc(0, at, 1024, DESC_F_WRITE, 0);
        bench.loop_back();
    });
    breaks("buffer-overlap", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.start(RX, 0);
        let at = bench.rx_buffer(0);
        bench.rx.desc(0, at, 2048, DESC_F_WRITE, 0);
        bench.rx.desc(1, at + 2047, 2048, DESC_F_WRITE, 0);
        bench.rx.offer(0);
        bench.rx.offer(1);
        bench.ring(RX);
        moment();
    });
    breaks("buffer-changed", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.start(RX, 0);
        bench.post(0);
        bench.ring(RX);
        moment();
        bench.ram.write(bench.rx_buffer(0), &[1]);
        moment();
    });
    breaks("dma-unmapped", "loopback", |server| {
        let mut bench = Bench::new(server);
        let other = GuestRam::new(0x1000_0000, 0x1000).unwrap();
        bench.card.map(&other).unwrap();
        bench.start(RX, 0);
        bench.rx.desc(0, other.base(), 2048, DESC_F_WRITE, 0);
        bench.rx.offer(0);
        bench.ring(RX);
        moment();
        bench.card.unmap(other.base(), other.size()).unwrap();
        linger(&mut bench.card);
    });
}

#[test]
fn headers() {
    let (good, frame) = datagram(3000);
    let segmented = NetHdr {
        gso_type: GSO_UDP_L4,
        gso_size: 1000,
        hdr_len: 42,
        ..good
    };
    // Those that stop the queue, and those that do not.
    let cases = [
        (
            "header-flags",
            true,
            NetHdr {
                flags: F_DATA_VALID,
                ..good
            },
        ),
        (
            "header-flags",
            true,
            NetHdr {
                gso_type: 9,
                ..segmented
            },
        ),
        (
            "header-checksum",
            true,
            NetHdr {
                csum_start: 13,
                ..good
            },
        ),
        (
            "header-checksum",
            true,
            NetHdr {
                csum_start: 3041,
                ..good
            },
        ),
        (
            "header-checksum",
            false,
            NetHdr {
                csum_offset: 16,
                ..good
            },
        ),
        (
            "header-segmentation",
            true,
            NetHdr {
                gso_size: 0,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            true,
            NetHdr {
                hdr_len: 41,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            false,
            NetHdr {
                gso_size: 4000,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            false,
            NetHdr {
                gso_type: GSO_TCPV4,
                hdr_len: 54,
                ..segmented
            },
        ),
    ];
    for (rule, stops, header) in cases {
        breaks(rule, "null", |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            if stops {
                bench.packet(0, header, &frame);
                bench.offer_bad(0);
            } else {
                bench.send(header, &frame);
            }
        });
    }
    breaks("header-checksum", "null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        let mut frame = frame.clone();
        frame[40] ^= 1;
        bench.send(good, &frame);
    });
}

#[test]
fn doorbells() {
    breaks("doorbell-early", "null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        bench.packet(0, NetHdr::default(), &[0; 60]);
        bench.card.doorbell(TX, 1).unwrap();
        bench.card.status(TX).unwrap();
        bench.tx.offer(0);
        bench.ring(TX);
        eventually(|| bench.tx.used_index() == 1);
    });
    breaks("doorbell-missing", "null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        moment();
        bench.packet(0, NetHdr::default(), &[0; 60]);
        bench.tx.offer(0);
        linger(&mut bench.card);
    });
    breaks("doorbell-reset", "null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        bench.card.reset().unwrap();
        bench.card.doorbell(TX, 1).unwrap();
    });
}

#[test]
fn interrupts() {
    breaks("used-ignored", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.start(RX, 0);
        bench.start(TX, NO_VECTOR);
        (0..SIZE).for_each(|head| bench.post(head));
        bench.ring(RX);
        (0..50).for_each(|_| bench.loop_back());
        assert!(bench.vectors[0].wait(LIMIT).unwrap());
        linger(&mut bench.card);
    });
    breaks("rearm-race", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.rx.ring.write_used_event(NEVER);
        bench.start(RX, 0);
        bench.start(TX, NO_VECTOR);
        (0..SIZE).for_each(|head| bench.post(head));
        bench.ring(RX);
        (0..50).for_each(|_| bench.loop_back());
        bench.rx.ring.write_used_event(0);
        linger(&mut bench.card);
    });
    breaks("rearm-missing", "loopback", |server| {
        let mut bench = Bench::new(server);
        bench.rx.ring.write_used_event(NEVER);
        bench.start(RX, 0);
        bench.start(TX, NO_VECTOR);
        (0..SIZE).for_each(|head| bench.post(head));
        bench.ring(RX);
        (0..50).for_each(|_| bench.loop_back());
        linger(&mut bench.card);
    });
    breaks("tx-unreclaimed", "null", |server| {
        let mut bench = Bench::new(server);
        bench.tx.ring.write_used_event(NEVER);
        bench.start(TX, 0);
        bench.send(NetHdr::default(), &[0; 60]);
        linger(&mut bench.card);
    });
    breaks("vector-masked", "null", |server| {
        let mut bench = Bench::new(server);
        let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
        let card = &mut bench.card;
        card.set_irqs(irq::MSIX, trigger, 0, 1, None).unwrap();
        bench.start(TX, 0);
        bench.send(NetHdr::default(), &[0; 60]);
        linger(&mut bench.card);
    });
    breaks("interrupt-storm", "loopback", |server| {
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
    });
}
