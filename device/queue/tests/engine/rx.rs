// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive queue with a driver that keeps the rules.

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};
use vnet_backend::{Checksum, Frame, Gso, GsoKind, Meta, Queue, RxRing, MAX_FRAME};
use vnet_contract::features::{MRG_RXBUF, RX_CSUM, RX_TSO4};
use vnet_contract::hdr::{self, NetHdr};
use vnet_queue::mock::{Driver, Memory};
use vnet_queue::{Budget, Outcome, Rx, RxFilter, Waits};

struct Bench {
    mem: Memory,
    driver: Driver,
    rx: Rx,
}

impl Bench {
    fn new(size: u16, features: u64) -> Self {
        let mem = memory();
        let driver = driver(&mem, size, features);
        let rx = Rx::start(&driver.config, &mem.device()).unwrap();
        Self { mem, driver, rx }
    }

    fn at(head: u16) -> u64 {
        BUFFERS + u64::from(head) * 0x4000
    }

    /// Posts one buffer of `len` bytes with the descriptor `head`.
    fn post(&mut self, head: u16, len: u32) {
        self.driver.chain(head, &[(Self::at(head), len)], true);
        self.driver.offer(head);
    }

    fn run(&mut self, backend: &mut dyn Queue) -> Outcome {
        self.run_filtered(backend, &everything())
    }

    fn run_filtered(&mut self, backend: &mut dyn Queue, filter: &RxFilter) -> Outcome {
        let outcome = self
            .rx
            .run(&self.mem.device(), backend, filter, Budget::default());
        assert_eq!(outcome.fault, None);
        outcome
    }

    /// Takes a frame as a driver does: header from the first buffer, then as many as it says.
    fn take(&mut self) -> Option<(NetHdr, Vec<u8>)> {
        let (head, len) = self.driver.take_used()?;
        let mut bytes = self.mem.read(Self::at(head as u16), len as usize);
        let header = NetHdr::from_bytes(bytes[..hdr::SIZE].try_into().unwrap());
        for _ in 1..header.num_buffers {
            let (head, len) = self.driver.take_used().expect("num_buffers are visible");
            bytes.extend(self.mem.read(Self::at(head as u16), len as usize));
        }
        Some((header, bytes.split_off(hdr::SIZE)))
    }
}

#[test]
fn a_frame_in_one_buffer() {
    let mut b = Bench::new(64, 0);
    b.post(3, 1526);
    let mut backend = Backend::with_frames([frame(1514, 7)]);
    let outcome = b.run(&mut backend);
    assert_eq!(
        (outcome.frames, outcome.bytes, outcome.drops, outcome.waits),
        (1, 1514, 0, Waits::Backend)
    );
    let header = NetHdr {
        num_buffers: 1,
        ..NetHdr::default()
    };
    assert_eq!(b.take(), Some((header, frame(1514, 7))));
    assert_eq!(b.take(), None);
}

#[test]
fn the_header_may_be_cut_too() {
    let mut b = Bench::new(64, 0);
    for cut in [&[12, 100][..], &[5, 7, 100], &[4, 4, 4, 1, 99], &[13, 99]] {
        let at = |i: usize| BUFFERS + 0x1000 * i as u64;
        let buffers: Vec<(u64, u32)> = cut.iter().enumerate().map(|(i, &l)| (at(i), l)).collect();
        b.driver.chain(0, &buffers, true);
        b.driver.offer(0);
        b.run(&mut Backend::with_frames([frame(80, 9)]));
        assert_eq!(b.driver.take_used(), Some((0, 92)));
        let whole: Vec<u8> = buffers
            .iter()
            .flat_map(|&(at, len)| b.mem.read(at, len as usize))
            .collect();
        assert_eq!(whole[hdr::SIZE..92], frame(80, 9), "{cut:?}");
        assert_eq!(whole[10..12], [1, 0]);
    }
}

#[test]
fn a_frame_over_several_buffers() {
    let mut b = Bench::new(64, MRG_RXBUF);
    for head in 0..8 {
        b.post(head, 512);
    }
    let frames = [frame(1200, 1), frame(60, 2), frame(500, 3), frame(501, 4)];
    let outcome = b.run(&mut Backend::with_frames(frames.clone()));
    assert_eq!((outcome.frames, outcome.drops), (4, 0));
    let counts = frames.map(|sent| {
        let (header, bytes) = b.take().unwrap();
        assert_eq!(bytes, sent);
        header.num_buffers
    });
    assert_eq!(counts, [3, 1, 1, 2]);
    // Seven of eight buffers were used; the last is still the device's.
    assert_eq!(b.rx.indices(), (7, 7));
}

#[test]
fn who_asks_for_much_room_and_writes_little_uses_little() {
    let mut b = Bench::new(64, MRG_RXBUF);
    for head in 0..12 {
        b.post(head, 2048);
    }
    let mut backend = Backend {
        asks: Some(9018),
        ..Backend::with_frames((0..7).map(|i| frame(60 + usize::from(i), i)))
    };
    b.run(&mut backend);
    for i in 0..7 {
        assert_eq!(b.take().unwrap().1, frame(60 + usize::from(i), i));
    }
    assert_eq!(b.rx.indices(), (7, 7));
}

#[test]
fn a_frame_waits_for_buffers_and_the_doorbell_is_asked_for_behind_those_that_are_there() {
    let mut b = Bench::new(64, MRG_RXBUF);
    b.post(0, 512);
    let mut backend = Backend::with_frames([frame(1000, 1)]);
    let outcome = b.run(&mut backend);
    assert_eq!((outcome.frames, outcome.waits), (0, Waits::Driver));
    assert_eq!(backend.waiting.len(), 1);
    let device = b.mem.device();
    // The one that is there is no news.
    assert_eq!(b.rx.rearm(&device), Ok(false));
    assert_eq!(b.driver.avail_event(), 1);
    b.driver.chain(1, &[(Bench::at(1), 512)], true);
    assert!(b.driver.offer(1), "doorbell");
    assert_eq!(b.rx.rearm(&device), Ok(true));
    assert_eq!(b.run(&mut backend).frames, 1);
    assert_eq!(b.take().unwrap().1, frame(1000, 1));
}

#[test]
fn a_frame_that_will_never_fit_is_dropped_and_the_next_one_passes() {
    // One buffer per frame, and the buffer is too small.
    let mut b = Bench::new(64, 0);
    b.post(0, 256);
    let outcome = b.run(&mut Backend::with_frames([frame(1000, 1), frame(244, 2)]));
    assert_eq!((outcome.frames, outcome.drops), (1, 1));
    assert_eq!(b.take().unwrap().1, frame(244, 2));
    // Every buffer that the ring has is posted, and they are too small together.
    let mut b = Bench::new(64, MRG_RXBUF);
    for head in 0..64 {
        b.post(head, 64);
    }
    let outcome = b.run(&mut Backend::with_frames([frame(5000, 1), frame(4084, 2)]));
    assert_eq!((outcome.frames, outcome.drops), (1, 1));
    assert_eq!(b.take().unwrap().1, frame(4084, 2));
}

#[test]
fn the_filter_drops_and_reuses_the_buffer() {
    let mut b = Bench::new(64, 0);
    b.post(0, 2048);
    let filter = RxFilter {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        ..RxFilter::default()
    };
    let mut mine = frame(1514, 0);
    mine[..6].copy_from_slice(&filter.mac);
    let mut long = mine.clone();
    long.push(0);
    let frames = [frame(60, 0), long, mine[..13].to_vec(), mine.clone()];
    let outcome = b.run_filtered(&mut Backend::with_frames(frames), &filter);
    assert_eq!((outcome.frames, outcome.drops), (1, 3));
    assert_eq!(b.take().unwrap().1, mine);
}

#[test]
fn offloads_reach_a_driver_that_accepted_them_and_no_other() {
    let partial = Meta {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: None,
    };
    let valid = Meta {
        checksum: Checksum::Valid,
        gso: None,
    };
    let large = Meta {
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1448,
            hdr_len: 66,
        }),
        ..partial
    };
    let frames: std::collections::VecDeque<_> = [(100, partial), (101, valid), (12_000, large)]
        .map(|(len, meta)| (frame(len, 0), meta))
        .into();
    let run = |features, withheld| {
        let mut b = Bench::new(64, features);
        for head in 0..3 {
            b.post(head, 0x4000);
        }
        let mut backend = Backend {
            waiting: frames.clone(),
            ..Backend::default()
        };
        let filter = RxFilter {
            withheld,
            ..everything()
        };
        let outcome = b.run_filtered(&mut backend, &filter);
        let headers: Vec<NetHdr> = std::iter::from_fn(|| b.take()).map(|(h, _)| h).collect();
        (outcome.drops, headers)
    };
    let (drops, headers) = run(RX_CSUM | RX_TSO4, 0);
    assert_eq!((drops, headers.len()), (0, 3));
    assert_eq!(
        (
            headers[0].flags,
            headers[0].csum_start,
            headers[0].csum_offset
        ),
        (hdr::F_NEEDS_CSUM, 34, 16)
    );
    assert_eq!(headers[1].flags, hdr::F_DATA_VALID);
    assert_eq!(
        (headers[2].gso_type, headers[2].gso_size, headers[2].hdr_len),
        (hdr::GSO_TCPV4, 1448, 66)
    );
    for (features, withheld) in [(0, 0), (RX_CSUM | RX_TSO4, RX_CSUM | RX_TSO4)] {
        let (drops, headers) = run(features, withheld);
        assert_eq!((drops, headers.len()), (2, 1));
        assert_eq!(headers[0].flags, 0);
    }
    let (drops, headers) = run(RX_CSUM | RX_TSO4, RX_TSO4);
    assert_eq!((drops, headers.len()), (1, 2));
    assert_eq!(headers[1].flags, hdr::F_DATA_VALID);
}

/// A backend that breaks the rules of the seam.
struct Rude(fn(&mut dyn RxRing));

impl Queue for Rude {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len() + 100
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        self.0(ring);
    }
}

#[test]
fn a_backend_that_was_refused_may_ask_for_less() {
    type Receive = fn(&mut dyn RxRing);
    let refused: Receive = |ring| assert!(ring.room(10_000).is_none());
    let modest: Receive = |ring| {
        assert!(ring.room(10_000).is_none());
        assert!(ring.room(1500).is_some());
    };
    let took: Receive = |ring| {
        assert!(ring.room(10_000).is_none());
        assert!(ring.room(1500).is_some());
        ring.commit(1500, Meta::default());
        assert!(ring.room(1500).is_none());
    };
    for (receive, waits, frames) in [
        (refused, Waits::Driver, 0),
        // It has no frame, or it would have committed one: frames are what it waits for.
        (modest, Waits::Backend, 0),
        (took, Waits::Driver, 1),
    ] {
        let mut b = Bench::new(64, MRG_RXBUF);
        b.post(0, 2000);
        let outcome = b.run(&mut Rude(receive));
        assert_eq!((outcome.waits, outcome.frames), (waits, frames));
    }
}

#[test]
fn a_backend_that_breaks_the_rules_harms_nobody() {
    type Receive = fn(&mut dyn RxRing);
    let cases: [(Receive, u64); 5] = [
        (|ring| ring.commit(60, Meta::default()), 0),
        (
            |ring| {
                ring.room(60);
                ring.commit(60_000, Meta::default());
            },
            1,
        ),
        (
            |ring| {
                ring.room(60);
                assert!(ring.room(MAX_FRAME + 1).is_none());
                ring.commit(60, Meta::default());
            },
            0,
        ),
        (
            |ring| {
                ring.room(60);
                ring.commit(60_000, Meta::default());
                ring.commit(60, Meta::default());
            },
            1,
        ),
        (
            |ring| {
                ring.room(MAX_FRAME);
                ring.commit(usize::MAX, Meta::default());
            },
            1,
        ),
    ];
    for (receive, drops) in cases {
        let mut b = Bench::new(64, 0);
        b.post(0, 2048);
        let outcome = b.run(&mut Rude(receive));
        assert_eq!((outcome.frames, outcome.drops), (0, drops));
        assert_eq!(b.rx.indices(), (0, 0));
    }
}

#[test]
fn a_batch_ends_with_its_budget() {
    let mut b = Bench::new(256, 0);
    for i in 0..100 {
        b.post(i % 32, 2048);
    }
    let mut backend = Backend::with_frames((0..80).map(|i| frame(100, i)));
    let outcome = b.run(&mut backend);
    assert_eq!((outcome.frames, outcome.waits), (64, Waits::Nothing));
    let outcome = b.run(&mut backend);
    assert_eq!((outcome.frames, outcome.waits), (16, Waits::Backend));
}

#[test]
fn a_frame_over_very_many_descriptors_gets_one_budget_and_no_more() {
    let mut b = Bench::new(1024, MRG_RXBUF);
    let bytes: Vec<(u64, u32)> = (0..1000).map(|i| (BUFFERS + i, 1)).collect();
    b.driver.chain(0, &bytes, true);
    for _ in 0..30 {
        b.driver.offer(0);
    }
    // One chain, two of them, ten, one.
    let lens = [60, 1500, 9014, 61];
    let mut backend = Backend::with_frames(lens.map(|len| frame(len, 1)));
    let batches = [(); 4].map(|()| {
        let outcome = b.run(&mut backend);
        (outcome.bytes, outcome.drops, outcome.waits)
    });
    // What is left of the first batch is not enough for the second frame, a whole one is. The
    // third frame has one of its own, and is dropped.
    assert_eq!(
        batches,
        [
            (60, 0, Waits::Nothing),
            (1500, 0, Waits::Nothing),
            (0, 1, Waits::Nothing),
            (61, 0, Waits::Backend),
        ]
    );
    assert_eq!(b.rx.indices(), (4, 4));
}

#[test]
fn asking_again_when_the_budget_is_spent_gives_the_same_room() {
    let mut b = Bench::new(1024, MRG_RXBUF);
    let bytes: Vec<(u64, u32)> = (0..1000).map(|i| (BUFFERS + i, 1)).collect();
    b.driver.chain(0, &bytes, true);
    for _ in 0..3 {
        b.driver.offer(0);
    }
    let outcome = b.run(&mut Rude(|ring| {
        ring.room(9014);
        let room = ring.room(1500).map(|room| room.write(&frame(1500, 1)));
        assert_eq!(room, Some(1500));
        ring.commit(1500, Meta::default());
    }));
    assert_eq!((outcome.frames, outcome.drops), (1, 0));
}

/// Who looks at a frame before it is committed asks again, with the frame in the room.
#[test]
fn nor_does_it_go_away_behind_the_first_frame() {
    let mut b = Bench::new(1024, 0);
    let bytes: Vec<(u64, u32)> = (0..512).map(|i| (BUFFERS + i, 1)).collect();
    b.driver.chain(0, &bytes, true);
    for _ in 0..3 {
        b.driver.offer(0);
    }
    let outcome = b.run(&mut Rude(|ring| {
        // The second one takes the last of the descriptors that a batch may walk.
        for _ in 0..2 {
            assert!(ring.room(60).is_some());
            assert!(ring.room(60).is_some());
            ring.commit(60, Meta::default());
        }
        assert!(ring.room(60).is_none());
    }));
    assert_eq!((outcome.frames, outcome.drops), (2, 0));
    assert_eq!(outcome.waits, Waits::Nothing);
    assert_eq!(b.rx.indices(), (2, 2));
}
