// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames with a hash, and frames that go to another queue.

use std::collections::VecDeque;

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};
use vnet_backend::{Frame, Meta, MAX_FRAME};
use vnet_contract::features::{HASH_REPORT, MRG_RXBUF, RSS};
use vnet_contract::hdr::{self, FlowHash, NetHdr};
use vnet_contract::queue::Error;
use vnet_queue::mock::{Driver, Memory};
use vnet_queue::{Budget, Drain, Fault, Handed, Rx, Steer, Tx, Waits, FRAME_START};

const FEATURES: u64 = MRG_RXBUF | RSS | HASH_REPORT;
const LONG: usize = hdr::size(FEATURES);

/// Keeps frames whose last byte of the destination address is even.
#[derive(Default)]
struct Odd {
    handed: Vec<Vec<u8>>,
    starts: Vec<usize>,
}

fn hash_of(frame: &[u8]) -> FlowHash {
    FlowHash {
        value: 0x0102_0300 + u32::from(frame[5]),
        report: hdr::HASH_TCPV4,
    }
}

impl Steer for Odd {
    fn steer(&mut self, start: &[u8], frame: &Frame<'_>) -> Option<FlowHash> {
        self.starts.push(start.len());
        if start.get(5).is_some_and(|b| b % 2 == 0) {
            return Some(hash_of(start));
        }
        let mut bytes = vec![0; frame.len];
        assert_eq!(frame.read(&mut bytes), frame.len);
        self.handed.push(bytes);
        None
    }
}

fn to(last: u8, len: usize) -> Vec<u8> {
    let mut f = frame(len, last);
    f[5] = last;
    f
}

fn started(size: u16, features: u64) -> (Memory, Driver, Rx) {
    let mem = memory();
    let driver = driver(&mem, size, features);
    let rx = Rx::start(&driver.config, &mem.device()).unwrap();
    (mem, driver, rx)
}

fn post(driver: &mut Driver, heads: std::ops::Range<u16>, len: u32) {
    for head in heads {
        let at = BUFFERS + u64::from(head) * 0x1000;
        driver.chain(head, &[(at, len)], true);
        driver.offer(head);
    }
}

fn take(mem: &Memory, driver: &mut Driver) -> Option<(FlowHash, Vec<u8>)> {
    let mut next = || {
        let (head, len) = driver.take_used()?;
        Some(mem.read(BUFFERS + u64::from(head) * 0x1000, len as usize))
    };
    let mut bytes = next()?;
    let count = NetHdr::from_bytes(bytes.first_chunk().unwrap()).num_buffers;
    for _ in 1..count {
        bytes.extend(next().expect("num_buffers are visible"));
    }
    let hash = FlowHash::from_bytes(bytes[hdr::SIZE..].first_chunk().unwrap());
    Some((hash, bytes.split_off(LONG)))
}

#[test]
fn the_long_header_is_skipped_on_transmit_however_it_is_cut() {
    let mem = memory();
    let sent = frame(200, 0x5a);
    let mut bytes = vec![0; LONG];
    // Nothing in the hash has a meaning here.
    bytes[hdr::SIZE..].fill(0xee);
    bytes.extend(&sent);
    for cut in [
        &[220][..],
        &[20, 200],
        &[12, 8, 200],
        &[7, 9, 204],
        &[1, 218, 1],
    ] {
        let mut driver = driver(&mem, 64, FEATURES);
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let mut at = 0;
        let mut buffers = Vec::new();
        for &len in cut {
            let address = BUFFERS + 0x1000 * buffers.len() as u64;
            mem.write(address, &bytes[at..at + len as usize]);
            buffers.push((address, len));
            at += len as usize;
        }
        driver.chain(0, &buffers, false);
        driver.offer(0);
        let mut backend = Backend::default();
        let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
        assert_eq!((outcome.frames, outcome.bytes), (1, 200), "{cut:?}");
        assert_eq!(backend.sent, [(sent.clone(), Meta::default())], "{cut:?}");
        mem.write(driver.config.desc, &vec![0; Driver::bytes(64) as usize]);
    }
}

#[test]
fn lengths_count_from_the_end_of_the_long_header() {
    for (len, good) in [
        (LONG + 13, false),
        (LONG + 14, true),
        (LONG + MAX_FRAME, true),
        (LONG + MAX_FRAME + 1, false),
    ] {
        let mem = memory();
        let mut driver = driver(&mem, 64, FEATURES);
        driver.chain(3, &[(BUFFERS, len as u32)], false);
        driver.offer(3);
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let outcome = tx.run(&mem.device(), &mut Backend::default(), Budget::default());
        let fault = (!good).then(|| Fault::new(Error::BufferLength, 3u16));
        assert_eq!(outcome.fault, fault, "{len}");
    }
    let (mem, mut driver, mut rx) = started(64, FEATURES);
    post(&mut driver, 0..1, LONG as u32);
    let mut backend = Backend::with_frames([to(0, 60)]);
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!(outcome.fault, Some(Fault::new(Error::BufferLength, 0u16)));
}

#[test]
fn the_hash_is_in_the_header_however_it_is_cut() {
    for cut in [&[2000][..], &[20, 1980], &[12, 1988], &[13, 3, 1984]] {
        let (mem, mut driver, mut rx) = started(64, FEATURES);
        let mut buffers = Vec::new();
        for &len in cut {
            buffers.push((BUFFERS + 0x1000 * buffers.len() as u64, len));
        }
        driver.chain(0, &buffers, true);
        driver.offer(0);
        let mut backend = Backend::with_frames([to(2, 90)]);
        let mut odd = Odd::default();
        let budget = Budget::default();
        rx.run_steered(&mem.device(), &mut backend, &everything(), &mut odd, budget);
        assert_eq!(driver.take_used(), Some((0, 110)), "{cut:?}");
        let whole: Vec<u8> = buffers
            .iter()
            .flat_map(|&(at, len)| mem.read(at, len as usize))
            .collect();
        assert_eq!(whole[10..12], [1, 0]);
        assert_eq!(whole[12..20], hash_of(&to(2, 90)).to_bytes(), "{cut:?}");
        assert_eq!(whole[20..110], to(2, 90), "{cut:?}");
    }
}

#[test]
fn without_the_feature_there_is_no_hash() {
    let (mem, mut driver, mut rx) = started(64, MRG_RXBUF | RSS);
    post(&mut driver, 0..1, 2000);
    let mut backend = Backend::with_frames([to(2, 90)]);
    let mut odd = Odd::default();
    let budget = Budget::default();
    rx.run_steered(&mem.device(), &mut backend, &everything(), &mut odd, budget);
    assert_eq!(driver.take_used(), Some((0, 102)));
    assert_eq!(mem.read(BUFFERS + 12, 90), to(2, 90));
}

#[test]
fn frames_of_others_leave_the_buffers_to_the_next_one() {
    let (mem, mut driver, mut rx) = started(64, FEATURES);
    post(&mut driver, 0..8, 512);
    let frames = [to(1, 1500), to(2, 1400), to(3, 60), to(5, 100), to(4, 70)];
    let mut backend = Backend::with_frames(frames.clone());
    let mut odd = Odd::default();
    let budget = Budget::default();
    let outcome = rx.run_steered(&mem.device(), &mut backend, &everything(), &mut odd, budget);
    assert_eq!(
        (outcome.frames, outcome.bytes, outcome.drops, outcome.handed),
        (2, 1470, 0, 3)
    );
    assert_eq!(odd.handed, [to(1, 1500), to(3, 60), to(5, 100)]);
    assert_eq!(odd.starts, [FRAME_START, FRAME_START, 60, 100, 70]);
    for f in [to(2, 1400), to(4, 70)] {
        assert_eq!(take(&mem, &mut driver), Some((hash_of(&f), f)));
    }
    assert_eq!(take(&mem, &mut driver), None);
    assert_eq!(rx.indices(), (4, 4));
}

#[test]
fn a_batch_of_frames_for_others_ends_with_its_budget() {
    let frames = || Backend::with_frames((0..10).map(|_| to(1, 100)));
    let all = Budget::default();
    for budget in [Budget { frames: 4, ..all }, Budget { bytes: 350, ..all }] {
        let (mem, mut driver, mut rx) = started(64, FEATURES);
        post(&mut driver, 0..8, 512);
        let (mut odd, mut backend) = (Odd::default(), frames());
        let outcome = rx.run_steered(&mem.device(), &mut backend, &everything(), &mut odd, budget);
        assert_eq!((outcome.handed, outcome.waits), (4, Waits::Nothing));

        let (mut odd, mut backend) = (Odd::default(), frames());
        let outcome = Drain::default().run(&mut backend, &mut odd, budget);
        assert_eq!((outcome.handed, outcome.waits), (4, Waits::Nothing));
        assert_eq!((odd.handed.len(), backend.waiting.len()), (4, 6));
    }
}

#[test]
fn a_drain_passes_on_what_belongs_elsewhere_and_drops_the_rest() {
    let frames = [to(1, 1500), to(2, 1400), to(3, MAX_FRAME), to(4, 70)];
    let mut backend = Backend::with_frames(frames);
    let mut odd = Odd::default();
    let outcome = Drain::default().run(&mut backend, &mut odd, Budget::default());
    assert_eq!((outcome.frames, outcome.drops, outcome.handed), (0, 2, 2));
    assert_eq!(odd.handed, [to(1, 1500), to(3, MAX_FRAME)]);
    assert_eq!(outcome.waits, Waits::Backend);
}

struct Inbox(VecDeque<(Vec<u8>, Meta, FlowHash)>);

impl Handed for Inbox {
    fn front(&mut self) -> Option<(&[u8], Meta, FlowHash)> {
        let (bytes, meta, hash) = self.0.front()?;
        Some((bytes, *meta, *hash))
    }

    fn pop(&mut self) {
        self.0.pop_front();
    }
}

#[test]
fn a_batch_ends_with_its_budget_however_its_frames_come() {
    let all = Budget::default();
    let filter = everything();
    for budget in [
        Budget { frames: 3, ..all },
        Budget { bytes: 2500, ..all },
        Budget {
            descriptors: 3,
            ..all
        },
    ] {
        for way in 0..3 {
            let (mem, mut driver, mut rx) = started(64, FEATURES);
            post(&mut driver, 0..8, 2000);
            let frame = to(2, 1000);
            let handed = (frame.clone(), Meta::default(), hash_of(&frame));
            let mut inbox = Inbox(vec![handed; 8].into());
            let mut backend = Backend::with_frames(vec![frame; 8]);
            let mem = mem.device();
            let outcome = match way {
                0 => rx.run(&mem, &mut backend, &filter, budget),
                1 => rx.run_steered(&mem, &mut backend, &filter, &mut Odd::default(), budget),
                _ => rx.take_over(&mem, &mut inbox, &filter, budget),
            };
            let result = (outcome.frames, outcome.waits);
            assert_eq!(result, (3, Waits::Nothing), "{way}: {budget:?}");
        }
    }
}

#[test]
fn what_was_handed_over_arrives_with_its_hash_and_waits_for_buffers() {
    let (mem, mut driver, mut rx) = started(64, FEATURES);
    post(&mut driver, 0..3, 512);
    let frames = [to(1, 600), to(3, 70), to(5, 80)];
    let mut inbox = Inbox(
        frames
            .iter()
            .map(|f| (f.clone(), Meta::default(), hash_of(f)))
            .collect(),
    );
    let budget = Budget::default();
    let outcome = rx.take_over(&mem.device(), &mut inbox, &everything(), budget);
    assert_eq!((outcome.frames, outcome.waits), (2, Waits::Driver));
    post(&mut driver, 3..4, 512);
    let outcome = rx.take_over(&mem.device(), &mut inbox, &everything(), budget);
    assert_eq!((outcome.frames, outcome.waits), (1, Waits::Backend));
    for f in frames {
        assert_eq!(take(&mem, &mut driver), Some((hash_of(&f), f)));
    }
    assert!(inbox.0.is_empty());
}
