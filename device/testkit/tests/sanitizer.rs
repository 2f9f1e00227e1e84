// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! For each rule a driver that breaks it, and no other; and one that breaks none.
#![allow(missing_docs)]

#[path = "sanitizer/chains.rs"]
mod chains;
mod common;
#[path = "sanitizer/headers.rs"]
mod headers;
#[path = "sanitizer/registers.rs"]
mod registers;
#[path = "sanitizer/sessions.rs"]
mod sessions;
#[path = "sanitizer/waits.rs"]
mod waits;

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
/// each with how often, and what is told of the first time. The exit status must say whether there are
/// any.
fn judge(net: &str, drive: impl FnOnce(&Server)) -> BTreeMap<String, (u64, Told)> {
    let args = ["--sanitize=strict", "--sanitize-patience=1", "--queues=2"];
    let mut server = Server::start_with(net, &args).unwrap();
    drive(&server);
    let (status, text) = server.finish().unwrap();
    // "sanitizer: RULE, N times, first: FINDING"
    let listed = text.lines().filter_map(|line| {
        let (rule, rest) = line.strip_prefix("sanitizer: ")?.split_once(", ")?;
        let (count, finding) = rest.split_once(" times, first: ")?;
        Some((rule, count.parse().ok()?, finding))
    });
    let rules: BTreeMap<_, _> = listed
        .map(|(rule, count, finding)| {
            let logged = format!(" sanitizer: {finding}");
            assert!(text.lines().any(|l| l.ends_with(&logged)), "{text}");
            (
                rule.to_owned(),
                (count, told(rule, finding).expect(finding)),
            )
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

/// The driver must break this rule and no other, and be told of it once, like this: the place, and
/// what was seen and due.
#[track_caller]
fn breaks(rule: &str, place: &str, seen: [&str; 2], net: &str, drive: impl FnOnce(&Server)) {
    let told = [place, seen[0], seen[1]].map(str::to_owned);
    let once = (rule.to_owned(), (1, told));
    assert_eq!(judge(net, drive), BTreeMap::from([once]));
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
