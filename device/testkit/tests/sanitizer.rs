// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! For each rule a driver that breaks it, and no other; and one that breaks none.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
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

const RULES: &str = include_str!("../../../docs/rules.md");

const SIZE: u16 = 64;
/// The queues of a pair.
const RX: u16 = 0;
const TX: u16 = 1;
/// The descriptor of the first frame that is sent.
const FIRST: u16 = 9;
/// What is due of memory, and of chains.
const MAPPED: &str = "memory that is mapped for as long as the card may use it";
const CHAIN: &str = "a chain as section 7 of the data sheet has it";
/// No interrupt for the next 2^16 entries.
const NEVER: u16 = 0xffff;

/// What is told of a rule that was broken: the place, if it was in one, what was seen, and what was
/// due.
type Told = [String; 3];

/// Runs a driver against a card under `--sanitize=strict`, and returns the rules that it broke,
/// each with what is told of the first time. The exit status must say whether there are any.
fn judge(net: &str, drive: impl FnOnce(&Server)) -> BTreeMap<String, Told> {
    let args = ["--sanitize=strict", "--sanitize-patience=1", "--queues=2"];
    let mut server = Server::start_with(net, &args).unwrap();
    drive(&server);
    let (status, text) = server.finish().unwrap();
    // "sanitizer: RULE, N times, first: FINDING"
    let listed = text.lines().filter_map(|line| {
        let (rule, rest) = line.strip_prefix("sanitizer: ")?.split_once(", ")?;
        Some((rule, rest.split_once(" times, first: ")?.1))
    });
    let rules: BTreeMap<_, _> = listed
        .map(|(rule, finding)| {
            let logged = format!(" sanitizer: {finding}");
            assert!(text.lines().any(|l| l.ends_with(&logged)), "{text}");
            (rule.to_owned(), told(rule, finding).expect(finding))
        })
        .collect();
    let expected = if rules.is_empty() { 0 } else { 3 };
    assert_eq!(status, Some(expected), "{text}");
    rules
}

/// The parts of a finding: "RULE: SENTENCE Queue N (KIND queue of pair M), descriptor D. Seen:
/// SEEN; due: DUE. See docs/rules.md#RULE".
fn told(rule: &str, finding: &str) -> Option<Told> {
    let text = finding.strip_prefix(&format!("{rule}: {} ", sentence(rule)))?;
    let text = text.strip_suffix(&format!(". See docs/rules.md#{rule}"))?;
    let (place, text) = text.split_once("Seen: ")?;
    let (seen, due) = text.rsplit_once("; due: ")?;
    let place = match place.strip_suffix(". ") {
        Some(place) => {
            let queue = place.strip_prefix("Queue ")?.split(' ').next()?;
            let queue = queue.parse::<u16>().ok()?;
            let kind = ["receive", "transmit"][usize::from(queue % 2)];
            let (start, end) =
                place.split_once(&format!(" ({kind} queue of pair {})", queue / 2))?;
            [start, end].concat()
        }
        None => place.to_owned(),
    };
    Some([place, seen.to_owned(), due.to_owned()])
}

/// The sentence of a rule, as the document has it.
fn sentence(rule: &str) -> &'static str {
    let chapter = RULES.split_once(&format!("\n### {rule}\n\n")).unwrap().1;
    let line = chapter.lines().next().unwrap();
    line.split_once("* ").unwrap().1
}

/// The driver must break this rule and no other, and be told of it like this: the place, and what
/// was seen and due.
#[track_caller]
fn breaks(rule: &str, place: &str, seen: [&str; 2], net: &str, drive: impl FnOnce(&Server)) {
    let told = [place, seen[0], seen[1]].map(str::to_owned);
    assert_eq!(judge(net, drive), BTreeMap::from([(rule.to_owned(), told)]));
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
    pair: u16,
    ram: Arc<GuestRam>,
    rx: RawQueue,
    tx: RawQueue,
    vectors: Vec<Vector>,
    buffers: u64,
}

impl Bench {
    /// With the queues of pair 1, so that whatever is named is not the first of its kind.
    fn new(server: &Server) -> Self {
        Self::of_pair(server, 1)
    }

    fn of_pair(server: &Server, pair: u16) -> Self {
        let mut bench = Self::without_msix(server, pair);
        bench.vectors = bench.card.vectors(2).unwrap();
        bench
    }

    fn without_msix(server: &Server, pair: u16) -> Self {
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
            pair,
            ram,
            rx,
            tx,
            vectors: Vec::new(),
            buffers,
        }
    }

    /// The number of a queue of the pair.
    fn queue(&self, kind: u16) -> u16 {
        2 * self.pair + kind
    }

    fn start(&mut self, kind: u16, vector: u32) {
        let ring = match kind {
            RX => &self.rx.ring,
            _ => &self.tx.ring,
        };
        let (addresses, size) = (ring.addresses(), SIZE.into());
        let queue = self.queue(kind);
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

    fn ring(&mut self, kind: u16) {
        let index = match kind {
            RX => self.rx.avail_index(),
            _ => self.tx.avail_index(),
        };
        let queue = self.queue(kind);
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
        let head = self.tx.avail_index().wrapping_add(FIRST) % SIZE;
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

    /// Offers a chain on a queue that runs; the card must stop it.
    fn offer_bad(&mut self, kind: u16, head: u16) {
        match kind {
            RX => self.rx.offer(head),
            _ => self.tx.offer(head),
        }
        self.ring(kind);
        let queue = self.queue(kind);
        self.card.wait_queue_error(queue).unwrap();
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
    let rules: Vec<_> = RULES
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
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
    // The first message may be one that was handled, so a write in it is not judged.
    card.reg(regs::STATUS).unwrap();
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
fn each_session_is_told_of_its_own() {
    let args = ["--survive", "--sanitize=report"];
    let mut server = Server::start_with("null", &args).unwrap();
    let said = |server: &Server, text: &str| server.process.stderr().contains(text);
    let mut card = server.card().unwrap();
    for n in 0..6 {
        card.reg(0x3fc0 + 4 * n).unwrap();
    }
    drop(card);
    let summary = "the driver of this session broke rules";
    eventually(|| said(&server, &format!("{summary} 6 times")));
    assert!(!said(&server, "an access at 0x3fd0"), "the fifth");
    // As often again by the next driver, with a hand-over in the middle of its session and one
    // between this and another.
    let mut card = server.card().unwrap();
    card.reg(0x3fe0).unwrap();
    eventually(|| said(&server, "an access at 0x3fe0"));
    server.kill_worker().unwrap();
    card.reg(0x3fe4).unwrap();
    drop(card);
    eventually(|| said(&server, &format!("{summary} 2 times")));
    server.kill_worker().unwrap();
    let mut card = server.card().unwrap();
    card.set_reg(regs::MTU, 1).unwrap();
    drop(card);
    eventually(|| said(&server, &format!("{summary} 1 times")));
    let text = server.end().unwrap();
    assert!(text.contains("broken, 9 times in all"), "{text}");
}

#[test]
fn registers() {
    breaks(
        "register-width",
        "",
        ["2 bytes at 0x4", "4 or 8 bytes, and aligned to that"],
        "null",
        |server| {
            let mut card = server.card().unwrap();
            card.read(region::BAR0, 4, &mut [0; 2]).unwrap();
            card.write(region::BAR0, 2, &[0; 4]).unwrap();
        },
    );
    breaks(
        "register-unknown",
        "",
        ["an access at 0x1100", "a register that this card has"],
        "null",
        |server| {
            let mut card = server.card().unwrap();
            card.reg(regs::queue_reg(4, regs::Q_SIZE)).unwrap();
            card.set_reg(regs::CLOCK_LO, 0).unwrap();
        },
    );
    breaks(
        "register-read-only",
        "",
        ["0x1 written at 0x0", "that it is only read"],
        "null",
        |server| {
            server.card().unwrap().set_reg(regs::ID, 1).unwrap();
        },
    );
    breaks(
        "register-value",
        "",
        ["0x1 written at 0x40", "a value that it takes now"],
        "null",
        |server| {
            server.card().unwrap().set_reg(regs::MTU, 1).unwrap();
        },
    );
    breaks(
        "register-reserved",
        "",
        [
            "bits 0x80000000 at 0x44",
            "zeros, but for bits that are defined",
        ],
        "null",
        |server| {
            let mut card = server.card().unwrap();
            card.set_reg(regs::RX_MODE, 1 << 31).unwrap();
            card.set_reg(regs::queue_reg(0, regs::Q_CTRL), 2).unwrap();
        },
    );
    breaks(
        "features-refused",
        "",
        [
            "features 0x8000000000000000",
            "of 0x24ffff, with all that they need",
        ],
        "null",
        |server| {
            let mut card = server.card().unwrap();
            card.set_reg64(regs::DRIVER_FEATURES_LO, 1 << 63).unwrap();
            card.set_reg(regs::CTRL, regs::CTRL_COMMIT_FEATURES)
                .unwrap();
        },
    );
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
            ["flags 0x2", "none that is not defined for transmit"],
            true,
            NetHdr {
                flags: F_DATA_VALID,
                ..good
            },
        ),
        (
            "header-flags",
            ["gso_type 0x9", "a type that is defined"],
            true,
            NetHdr {
                gso_type: 9,
                ..segmented
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 13, csum_offset 6",
                "within a frame of 3042 bytes",
            ],
            true,
            NetHdr {
                csum_start: 13,
                ..good
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 3041, csum_offset 6",
                "within a frame of 3042 bytes",
            ],
            true,
            NetHdr {
                csum_start: 3041,
                ..good
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 34, csum_offset 16, on UDP over IPv4 at 34",
                "csum_start 34, csum_offset 6",
            ],
            false,
            NetHdr {
                csum_offset: 16,
                ..good
            },
        ),
        (
            "header-segmentation",
            [
                "flags 0x1, gso_size 0",
                "F_NEEDS_CSUM and a size within a frame of 3042 bytes",
            ],
            true,
            NetHdr {
                gso_size: 0,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            ["hdr_len 41", "42 at least"],
            true,
            NetHdr {
                hdr_len: 41,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            [
                "flags 0x1, gso_size 4000",
                "F_NEEDS_CSUM and a size within a frame of 3042 bytes",
            ],
            false,
            NetHdr {
                gso_size: 4000,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            [
                "gso_type 1, csum_start 34, on UDP over IPv4 at 34",
                "what the frame is",
            ],
            false,
            NetHdr {
                gso_type: GSO_TCPV4,
                hdr_len: 54,
                ..segmented
            },
        ),
    ];
    for (rule, told, stops, header) in cases {
        breaks(rule, "Queue 3, descriptor 9", told, "null", |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            if stops {
                bench.packet(FIRST, header, &frame);
                bench.offer_bad(TX, FIRST);
            } else {
                bench.send(header, &frame);
            }
        });
    }
    breaks(
        "header-checksum",
        "Queue 3, descriptor 9",
        [
            "0x1ed4 where the checksum goes, on UDP over IPv4 at 34",
            "0x1fd4, the sum of the pseudo header",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            let mut frame = frame.clone();
            frame[40] ^= 1;
            bench.send(good, &frame);
        },
    );
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
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            (0..SIZE).for_each(|head| bench.post(head));
            bench.ring(RX);
            (0..50).for_each(|_| bench.loop_back());
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
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            (0..SIZE).for_each(|head| bench.post(head));
            bench.ring(RX);
            (0..50).for_each(|_| bench.loop_back());
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
            bench.start(RX, 0);
            bench.start(TX, NO_VECTOR);
            (0..SIZE).for_each(|head| bench.post(head));
            bench.ring(RX);
            (0..50).for_each(|_| bench.loop_back());
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
            "none until the buffers are taken",
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
