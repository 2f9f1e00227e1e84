// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Header-data split.

use std::collections::VecDeque;

use proptest::prelude::*;
use vnet_backend::{Checksum, Gso, GsoKind, Meta};
use vnet_contract::features::{HASH_REPORT, HDR_SPLIT, MRG_RXBUF, RSS, RX_CSUM, RX_TSO4};
use vnet_contract::hdr::{self, FlowHash, NetHdr, F_SPLIT};
use vnet_contract::queue::Error;
use vnet_queue::mock::{Driver, Memory};
use vnet_queue::{Budget, Fault, Handed, Outcome, Rx};

use crate::backend::{driver, everything, memory, Backend, BUFFERS, RING};

const FEATURES: u64 = MRG_RXBUF | HDR_SPLIT;
/// Descriptors of a chain: a header buffer, and up to three for payload.
const STEP: u16 = 4;
const CHAINS: u16 = 64;
/// What the buffers hold before.
const OLD: u8 = 0xee;

/// Buffers of a chain, in bytes.
#[derive(Clone, Debug)]
struct Shape {
    head: u32,
    data: Vec<u32>,
}

fn usual() -> Shape {
    Shape {
        head: 256,
        data: vec![4096],
    }
}

struct Bench {
    mem: Memory,
    driver: Driver,
    rx: Rx,
    features: u64,
    shape: Shape,
}

impl Bench {
    /// With all chains posted.
    fn new(features: u64, shape: Shape) -> Self {
        let mem = memory();
        let driver = driver(&mem, STEP * CHAINS, features);
        let rx = Rx::start(&driver.config, &mem.device()).unwrap();
        let mut bench = Self {
            mem,
            driver,
            rx,
            features,
            shape,
        };
        (0..CHAINS).for_each(|chain| bench.post(chain * STEP));
        bench
    }

    /// Address of a buffer of the chain at `head`.
    fn at(head: u16, buffer: u16) -> u64 {
        BUFFERS + u64::from(head + buffer) * 0x1000
    }

    fn post(&mut self, head: u16) {
        let lengths = std::iter::once(&self.shape.head).chain(&self.shape.data);
        let buffers: Vec<_> = (0..)
            .zip(lengths)
            .map(|(n, &len)| (Self::at(head, n), len))
            .collect();
        for &(at, len) in &buffers {
            self.mem.write(at, &vec![OLD; len as usize]);
        }
        self.driver.chain(head, &buffers, true);
        self.driver.offer(head);
    }

    fn run(&mut self, backend: &mut Backend) -> Outcome {
        let outcome = self.rx.run(
            &self.mem.device(),
            backend,
            &everything(),
            Budget::default(),
        );
        assert_eq!((outcome.fault, outcome.drops), (None, 0));
        outcome
    }

    /// Takes a frame as a driver does, and posts its chains again: header, what was in the header
    /// buffer, and what was behind it.
    fn take(&mut self) -> Option<(NetHdr, Vec<u8>, Vec<u8>)> {
        let size = hdr::size(self.features);
        let (head, len) = self.driver.take_used()?;
        let (head, mut left) = (head as u16, len as usize - size);
        let buffer = self.mem.read(Self::at(head, 0), self.shape.head as usize);
        let header = NetHdr::from_bytes(buffer.first_chunk().unwrap());
        let in_head = match header.flags & F_SPLIT {
            0 => left.min(buffer.len() - size),
            _ => header.hdr_len.into(),
        };
        let headers = buffer[size..][..in_head].to_vec();
        left -= in_head;
        let mut payload = self.payload(head, left);
        self.post(head);
        for _ in 1..header.num_buffers {
            let (head, len) = self.driver.take_used().expect("num_buffers are visible");
            let head = head as u16;
            payload.extend(self.payload(head, len as usize));
            let alone = self.mem.read(Self::at(head, 0), self.shape.head as usize);
            assert!(
                alone.iter().all(|&b| b == OLD),
                "a header buffer was touched"
            );
            self.post(head);
        }
        Some((header, headers, payload))
    }

    /// `left` bytes of the chain at `head`, from the second buffer on.
    fn payload(&self, head: u16, mut left: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, &len) in (1..).zip(&self.shape.data) {
            let n_bytes = left.min(len as usize);
            bytes.extend(self.mem.read(Self::at(head, n), n_bytes));
            left -= n_bytes;
        }
        assert_eq!(left, 0, "more bytes than the chain has");
        bytes
    }

    /// Delivers one frame; header, header buffer and payload.
    fn carry(&mut self, frame: &[u8], meta: Meta) -> (NetHdr, Vec<u8>, Vec<u8>) {
        let mut backend = Backend {
            waiting: VecDeque::from([(frame.to_vec(), meta)]),
            ..Backend::default()
        };
        assert_eq!(self.run(&mut backend).frames, 1);
        self.take().unwrap()
    }
}

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Kind {
    tags: usize,
    v6: bool,
    /// 32-bit words of IPv4 options, or IPv6 extension headers of 8 bytes.
    options: usize,
    fragment: bool,
    /// TCP header in 32-bit words; `None` is UDP.
    tcp: Option<u8>,
    payload: usize,
}

const PLAIN: Kind = Kind {
    tags: 0,
    v6: false,
    options: 0,
    fragment: false,
    tcp: Some(8),
    payload: 1448,
};

impl Kind {
    /// The frame, and the length of its headers.
    fn build(&self, seed: u8) -> (Vec<u8>, usize) {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..self.tags {
            f.extend([0x81, 0, 0, 5]);
        }
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        if self.v6 {
            let next = |n| match (n < self.options, self.fragment) {
                (true, _) => 60,
                (false, true) => 44,
                (false, false) => protocol,
            };
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next(0), 64]);
            f.extend([seed; 32]);
            for n in 1..=self.options {
                f.extend([next(n), 0, 0, 0, 0, 0, 0, 0]);
            }
            if self.fragment {
                f.extend([protocol, 0, 0, 1, 0, 0, 0, 0]);
            }
        } else {
            f.extend([8, 0, 0x45 + self.options as u8, 0, 0, 0, 0, 1]);
            f.extend([if self.fragment { 0x20 } else { 0x40 }, 0]);
            f.extend([64, protocol, 0, 0]);
            f.extend([seed; 8]);
            f.extend(vec![1; self.options * 4]);
        }
        match self.tcp {
            Some(words) => {
                f.extend([0; 12]);
                f.extend([words << 4, 0x10]);
                f.extend(vec![seed; usize::from(words) * 4 - 14]);
            }
            None => f.extend([0; 8]),
        }
        let headers = f.len();
        f.extend((0..self.payload).map(|n| (n as u8).wrapping_mul(31) ^ seed));
        (f, headers)
    }

    /// Bytes of headers if the card is to split the frame.
    fn headers(&self, room: usize) -> Option<usize> {
        let (_, headers) = self.build(0);
        (!self.fragment && headers <= room.min(128)).then_some(headers)
    }
}

#[test]
fn headers_and_payload_go_apart() {
    let mut b = Bench::new(FEATURES, usual());
    let (frame, headers) = PLAIN.build(1);
    let expected = NetHdr {
        flags: F_SPLIT,
        hdr_len: 66,
        num_buffers: 1,
        ..NetHdr::default()
    };
    assert_eq!(headers, 66);
    for _ in 0..3 {
        let (header, head, payload) = b.carry(&frame, Meta::default());
        assert_eq!(header, expected);
        assert_eq!((&head[..], &payload[..]), frame.split_at(headers));
    }
}

#[test]
fn headers_of_another_length_than_before() {
    let mut b = Bench::new(FEATURES, usual());
    let v6 = Kind { v6: true, ..PLAIN };
    let udp = Kind { tcp: None, ..PLAIN };
    let empty = Kind {
        payload: 0,
        ..PLAIN
    };
    let tiny = Kind {
        payload: 1,
        tcp: None,
        ..PLAIN
    };
    for kind in [PLAIN, v6.clone(), udp, PLAIN, empty, v6, tiny, PLAIN] {
        let (frame, headers) = kind.build(2);
        let (header, head, payload) = b.carry(&frame, Meta::default());
        assert_eq!(
            (header.flags, usize::from(header.hdr_len)),
            (F_SPLIT, headers),
            "{kind:?}"
        );
        assert_eq!(
            (&head[..], &payload[..]),
            frame.split_at(headers),
            "{kind:?}"
        );
    }
}

#[test]
fn what_cannot_be_split_fills_the_chain_from_its_start() {
    let mut b = Bench::new(FEATURES, usual());
    let fragment = Kind {
        fragment: true,
        ..PLAIN
    };
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    for frame in [arp, fragment.build(3).0, vec![7; 14]] {
        let (header, head, payload) = b.carry(&frame, Meta::default());
        assert_eq!((header.flags, header.hdr_len), (0, 0));
        assert_eq!(
            (&head[..], &payload[..]),
            frame.split_at(frame.len().min(256 - hdr::SIZE))
        );
    }
}

#[test]
fn a_large_frame_keeps_its_metadata() {
    let features = FEATURES | RX_CSUM | RX_TSO4 | RSS | HASH_REPORT;
    let mut b = Bench::new(features, usual());
    let (frame, headers) = Kind {
        payload: 60_000,
        ..PLAIN
    }
    .build(4);
    let meta = Meta {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1448,
            hdr_len: headers as u16,
        }),
    };
    let (header, head, payload) = b.carry(&frame, meta);
    assert_eq!(header.flags, F_SPLIT | hdr::F_NEEDS_CSUM);
    assert_eq!((header.gso_type, header.gso_size), (hdr::GSO_TCPV4, 1448));
    assert_eq!((header.hdr_len, header.num_buffers), (66, 15));
    assert_eq!((&head[..], &payload[..]), frame.split_at(headers));
}

/// Frames that come from another queue.
struct Others(VecDeque<Vec<u8>>);

impl Handed for Others {
    fn front(&mut self) -> Option<(&[u8], Meta, FlowHash)> {
        let frame = self.0.front()?;
        Some((frame, Meta::default(), FlowHash::default()))
    }

    fn pop(&mut self) {
        self.0.pop_front();
    }
}

#[test]
fn frames_of_another_queue_are_split_too() {
    let mut b = Bench::new(FEATURES, usual());
    let kinds = [
        PLAIN,
        Kind { v6: true, ..PLAIN },
        Kind {
            fragment: true,
            ..PLAIN
        },
    ];
    let mut others = Others(kinds.iter().map(|kind| kind.build(5).0).collect());
    let outcome = b.rx.take_over(
        &b.mem.device(),
        &mut others,
        &everything(),
        Budget::default(),
    );
    assert_eq!((outcome.frames, outcome.drops), (3, 0));
    for kind in kinds {
        let (header, head, payload) = b.take().unwrap();
        let (frame, headers) = kind.build(5);
        assert_eq!(header.flags & F_SPLIT == 0, kind.fragment);
        let at = if kind.fragment {
            256 - hdr::SIZE
        } else {
            headers
        };
        assert_eq!((&head[..], &payload[..]), frame.split_at(at));
    }
}

#[test]
fn the_register_decides_and_not_the_driver() {
    // Without the feature, chains are filled from their start.
    let mut b = Bench::new(MRG_RXBUF, usual());
    let (frame, _) = PLAIN.build(6);
    let (header, head, payload) = b.carry(&frame, Meta::default());
    assert_eq!((header.flags, header.hdr_len), (0, 0));
    assert_eq!((&head[..], &payload[..]), frame.split_at(256 - hdr::SIZE));
}

fn fault(mem: &Memory, buffers: &[(u64, u32)]) -> Option<Fault> {
    let mut driver = Driver::new(mem, RING, 64, FEATURES);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    driver.chain(3, buffers, true);
    driver.offer(3);
    let mut backend = Backend::with_frames([PLAIN.build(7).0]);
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!((outcome.frames, rx.indices()), (0, (0, 0)));
    outcome.fault
}

#[test]
fn a_chain_needs_a_header_buffer_and_more() {
    let length = Some(Fault::new(Error::BufferLength, 3u16));
    let mem = memory();
    assert_eq!(fault(&mem, &[(BUFFERS, 4096)]), length);
    assert_eq!(fault(&mem, &[(BUFFERS, 11), (BUFFERS, 4096)]), length);
    // There is too little room, but nothing wrong.
    assert_eq!(fault(&mem, &[(BUFFERS, 12), (BUFFERS, 512)]), None);
}

#[test]
fn a_header_buffer_lies_in_one_range() {
    let split = 0x20_0000;
    let mem = Memory::new(&[(RING, split - RING), (split, 0x10_0000)]);
    let across = Some(Fault::new(Error::BufferFault, 3u16));
    assert_eq!(
        fault(&mem, &[(split - 100, 256), (split + 4096, 512)]),
        across
    );
    // Payload may cross into the next one.
    assert_eq!(
        fault(&mem, &[(split + 4096, 256), (split - 100, 512)]),
        None
    );
}

fn kind() -> impl Strategy<Value = Kind> {
    let tcp = prop::option::weighted(0.7, 5u8..=15);
    let options = prop_oneof![3 => Just(0usize), 1 => 0usize..8];
    let payload = prop_oneof![0usize..300, 0usize..3000];
    (
        0usize..=2,
        any::<bool>(),
        options,
        prop::bool::weighted(0.1),
        tcp,
        payload,
    )
        .prop_map(|(tags, v6, options, fragment, tcp, payload)| Kind {
            tags,
            v6,
            options,
            fragment,
            tcp,
            payload,
        })
}

proptest! {
    /// Any frames into any buffers, through a backend that knows the length of a frame and one
    /// that does not.
    #[test]
    fn any_frame_is_cut_where_its_headers_end(
        kinds in prop::collection::vec(kind(), 1..20),
        room in 0u32..200,
        data in prop::collection::vec(200u32..=4096, 1..=3),
        asks in prop::option::of(60usize..9018),
        hashed: bool,
    ) {
        let features = if hashed { FEATURES | RSS | HASH_REPORT } else { FEATURES };
        let shape = Shape { head: hdr::size(features) as u32 + room, data };
        let mut b = Bench::new(features, shape);
        let frames = (0..).zip(&kinds).map(|(seed, kind)| kind.build(seed).0);
        let mut backend = Backend { asks, ..Backend::with_frames(frames) };
        let mut got = Vec::new();
        while !backend.waiting.is_empty() {
            prop_assert!(b.run(&mut backend).frames > 0);
            got.extend(std::iter::from_fn(|| b.take()));
        }
        prop_assert_eq!(got.len(), kinds.len());
        for ((seed, kind), (header, head, payload)) in (0..).zip(kinds).zip(got) {
            let (frame, _) = kind.build(seed);
            let at = match kind.headers(room as usize) {
                Some(headers) => {
                    prop_assert_eq!((header.flags, usize::from(header.hdr_len)), (F_SPLIT, headers));
                    headers
                }
                None => {
                    prop_assert_eq!((header.flags, header.hdr_len), (0, 0));
                    frame.len().min(room as usize)
                }
            };
            prop_assert_eq!((&head[..], &payload[..]), frame.split_at(at));
        }
    }
}
