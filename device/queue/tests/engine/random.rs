// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that do anything, and drivers that do right in every order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vnet_backend::Meta;
use vnet_contract::features::{INDIRECT_DESC, MRG_RXBUF};
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::ring::{Desc, DESC_F_WRITE};
use vnet_queue::mock::{packet, Driver, Memory};
use vnet_queue::{Budget, Due, Rx, Tx, Waits};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS, BUFFER_BYTES, RING};

const SIZE: u16 = 64;
/// Where indirect tables lie: behind the ring.
const TABLES: u64 = RING + 0x2_0000;
const TABLE_BYTES: u64 = 16 * SIZE as u64;

/// Descriptors that are good, bad and in between in every field. No buffer lies in the ring, which
/// would change what the tests compare with.
fn desc() -> impl Strategy<Value = Desc> {
    let addr = prop_oneof![
        6 => BUFFERS..BUFFERS + 0x1_0000,
        1 => BUFFERS + BUFFER_BYTES - 0x100..BUFFERS + BUFFER_BYTES + 0x100,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![8 => 1..200u32, 2 => 1..70_000u32, 1 => Just(0), 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0..4u16, 1 => any::<u16>()];
    let next = prop_oneof![12 => 0..SIZE, 1 => any::<u16>()];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| Desc {
        addr,
        len,
        flags,
        next,
    })
}

/// Descriptors of a ring, and of tables that some of them point to.
#[derive(Clone, Debug)]
struct Tables {
    ring: Vec<Desc>,
    indirect: Vec<Vec<Desc>>,
}

/// A ring full of such descriptors. In half of them most descriptors have the right direction
/// and end their chain, so that many chains are good.
fn tables(write: u16) -> impl Strategy<Value = Tables> {
    let table = move |len| {
        (prop::collection::vec(desc(), len), any::<bool>()).prop_map(move |(mut table, tame)| {
            let len = table.len();
            for (i, desc) in table.iter_mut().enumerate() {
                if tame && i % 8 != 7 {
                    desc.flags = write | (desc.flags & 1);
                    desc.next = ((i + 1) % len) as u16;
                }
            }
            table
        })
    };
    let ring = table(SIZE.into()..=SIZE.into());
    let indirect = prop::collection::vec(table(1..=SIZE.into()), 0..16);
    (ring, indirect).prop_map(|(ring, indirect)| Tables { ring, indirect })
}

impl Tables {
    fn write(&self, driver: &Driver) {
        for (i, &desc) in (0..).zip(&self.ring) {
            driver.desc(i, desc);
        }
        for (i, table) in (0..).zip(&self.indirect) {
            let at = TABLES + u64::from(i) * TABLE_BYTES;
            driver.indirect(i * 4 + 1, at, table);
        }
    }
}

/// These features, mostly with indirect descriptors.
fn features(others: u64) -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(others), 3 => Just(others | INDIRECT_DESC)]
}

fn heads() -> impl Strategy<Value = Vec<u16>> {
    let head = prop_oneof![20 => 0..SIZE, 1 => any::<u16>()];
    prop::collection::vec(head, 0..SIZE as usize)
}

/// All of the memory that the buffers of the device lie in.
fn contents(mem: &Memory) -> Vec<u8> {
    mem.read(BUFFERS, BUFFER_BYTES as usize)
}

/// The chain as the `virtio-queue` crate walks it.
fn reference(driver: &Driver, mem: &Memory) -> Vec<(u16, Vec<(u64, u32)>)> {
    let mut queue = Queue::new(SIZE).unwrap();
    queue
        .try_set_desc_table_address(GuestAddress(driver.config.desc))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(driver.config.avail))
        .unwrap();
    queue
        .try_set_used_ring_address(GuestAddress(driver.config.used))
        .unwrap();
    queue.set_ready(true);
    let device = mem.device();
    let chains = queue.iter(&*device).unwrap();
    chains
        .map(|chain| {
            let head = chain.head_index();
            (head, chain.map(|d| (d.addr().0, d.len())).collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::rounds(400)))]

    /// Whatever stands in the ring, the transmit queue sends what the reference sees, in order,
    /// up to the first fault, and changes no byte of guest memory outside the used ring.
    #[test]
    fn any_transmit_ring(
        tables in tables(0),
        heads in heads(),
        features in features(0),
        jump in prop_oneof![9 => Just(0u16), 1 => any::<u16>()],
    ) {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, features);
        tables.write(&driver);
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        for &head in &heads {
            driver.offer(head);
        }
        let chains = reference(&driver, &mem);
        driver.set_avail_idx((heads.len() as u16).wrapping_add(jump));
        let before = contents(&mem);
        let mut backend = Backend::default();
        let mut rounds = 0;
        let outcome = loop {
            let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
            rounds += 1;
            prop_assert!(rounds <= 2 * SIZE, "does not come to an end");
            if outcome.fault.is_some() || outcome.waits != Waits::Nothing {
                break outcome;
            }
        };
        prop_assert!(contents(&mem) == before, "transmit wrote to a buffer");
        if jump == 0 {
            prop_assert_eq!(outcome.fault.is_none(), backend.sent.len() == heads.len());
            for ((head, buffers), (sent, _)) in chains.iter().zip(&backend.sent) {
                let mut bytes = Vec::new();
                for &(addr, len) in buffers {
                    bytes.extend(mem.read(addr, len as usize));
                }
                prop_assert_eq!(&bytes[hdr::SIZE..], &sent[..]);
                prop_assert_eq!(driver.take_used(), Some((u32::from(*head), 0)));
            }
        }
        prop_assert_eq!(usize::from(tx.indices().0), backend.sent.len());
        prop_assert_eq!(driver.used_idx(), tx.indices().1);
    }

    /// Whatever stands in the ring, the receive queue writes to nothing but the writable buffers
    /// of chains that it took, and the used ring.
    #[test]
    fn any_receive_ring(
        tables in tables(DESC_F_WRITE),
        heads in heads(),
        features in prop_oneof![features(0), features(MRG_RXBUF)],
        lengths in prop::collection::vec(prop_oneof![5 => 14..300usize, 1 => 0..20_000usize], 1..80),
        asks in prop::option::of(0..10_000usize),
    ) {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, features);
        tables.write(&driver);
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        for &head in &heads {
            driver.offer(head);
        }
        let chains = reference(&driver, &mem);
        let before = contents(&mem);
        let mut backend = Backend::with_frames(lengths.iter().map(|&l| frame(l, 0xa5)));
        backend.asks = asks;
        let mut rounds = 0;
        loop {
            let outcome = rx.run(&mem.device(), &mut backend, &everything(), Budget::default());
            rounds += 1;
            prop_assert!(rounds <= 200, "does not come to an end");
            if outcome.fault.is_some() || outcome.waits != Waits::Nothing {
                break;
            }
        }
        let mut may_change = vec![false; BUFFER_BYTES as usize];
        for (_, buffers) in &chains {
            for &(addr, len) in buffers {
                let start = addr.saturating_sub(BUFFERS).min(BUFFER_BYTES) as usize;
                let end = start.saturating_add(len as usize).min(may_change.len());
                may_change[start..end].fill(true);
            }
        }
        let after = contents(&mem);
        for (i, changed) in may_change.iter().enumerate() {
            prop_assert!(*changed || before[i] == after[i], "byte {:#x}", i);
        }
        prop_assert_eq!(rx.indices().0, rx.indices().1);
        prop_assert_eq!(driver.used_idx(), rx.indices().1);
        prop_assert!(usize::from(rx.indices().0) <= heads.len());
    }

    /// Frames of any length, cut in any way, offered and served in any order of steps, arrive
    /// whole and in order, and no doorbell is missed: when the device sleeps, the ring is empty.
    #[test]
    fn transmit_in_any_order_of_steps(
        start in any::<u16>(),
        steps in prop::collection::vec((any::<bool>(), 14..600usize, 1..4usize, 0..4usize), 1..120),
    ) {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, 0).start_at(start);
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let device = mem.device();
        let mut backend = Backend::default();
        let mut expected = Vec::new();
        let mut free: VecDeque<u16> = (0..16).map(|i| i * 4).collect();
        let mut asleep = false;
        for (i, (offers, len, pieces, takes)) in steps.into_iter().enumerate() {
            if offers {
                let Some(head) = free.pop_front() else { continue };
                let sent = frame(len, i as u8);
                let bytes = packet(NetHdr::default(), &sent);
                let at = BUFFERS + u64::from(head) * 0x400;
                mem.write(at, &bytes);
                let cut = bytes.len() / pieces;
                let buffers: Vec<(u64, u32)> = (0..pieces)
                    .map(|p| {
                        let end = if p + 1 == pieces { bytes.len() } else { (p + 1) * cut };
                        (at + (p * cut) as u64, (end - p * cut) as u32)
                    })
                    .collect();
                driver.chain(head, &buffers, false);
                expected.push(sent);
                let doorbell = driver.offer(head);
                prop_assert!(doorbell || !asleep, "a sleeping device was not rung");
                asleep &= !doorbell;
            } else if !asleep {
                backend.takes = Some(takes);
                let outcome = tx.run(&device, &mut backend, Budget::default());
                prop_assert_eq!(outcome.fault, None);
                while let Some((head, _)) = driver.take_used() {
                    free.push_back(head as u16);
                }
                if outcome.waits == Waits::Driver {
                    asleep = !tx.rearm(&device).unwrap();
                    prop_assert_eq!(backend.sent.len(), expected.len());
                }
            }
        }
        backend.takes = None;
        tx.run(&device, &mut backend, Budget::default());
        let sent: Vec<Vec<u8>> = backend.sent.into_iter().map(|(f, _)| f).collect();
        prop_assert!(sent == expected);
    }

    /// The same for receive: buffers of any size, frames of any length.
    #[test]
    fn receive_in_any_order_of_steps(
        start in any::<u16>(),
        size in 60..700u32,
        steps in prop::collection::vec((any::<bool>(), 14..2000usize), 1..120),
    ) {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, MRG_RXBUF).start_at(start);
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        let device = mem.device();
        let mut backend = Backend::default();
        let mut expected = VecDeque::new();
        let mut free: VecDeque<u16> = (0..SIZE).collect();
        let mut starved = false;
        let at = |head: u16| BUFFERS + u64::from(head) * 0x400;
        for (i, (posts, len)) in steps.into_iter().enumerate() {
            if posts {
                let Some(head) = free.pop_front() else { continue };
                driver.chain(head, &[(at(head), size)], true);
                let doorbell = driver.offer(head);
                prop_assert!(doorbell || !starved, "a starved device was not rung");
                starved &= !doorbell;
            } else {
                backend.waiting.push_back((frame(len, i as u8), Meta::default()));
                expected.push_back(frame(len, i as u8));
            }
            if starved {
                continue;
            }
            let outcome = rx.run(&device, &mut backend, &everything(), Budget::default());
            prop_assert_eq!(outcome.fault, None);
            prop_assert_eq!(outcome.drops, 0);
            while let Some((head, used)) = driver.take_used() {
                let mut bytes = mem.read(at(head as u16), used as usize);
                let header = NetHdr::from_bytes(bytes[..hdr::SIZE].try_into().unwrap());
                free.push_back(head as u16);
                for _ in 1..header.num_buffers {
                    let (head, used) = driver.take_used().expect("visible together");
                    bytes.extend(mem.read(at(head as u16), used as usize));
                    free.push_back(head as u16);
                }
                let frame = expected.pop_front().expect("no more frames than were sent");
                prop_assert!(bytes[hdr::SIZE..] == frame[..]);
            }
            if outcome.waits == Waits::Driver {
                starved = !rx.rearm(&device).unwrap();
            }
            prop_assert_eq!(backend.waiting.len(), expected.len());
        }
    }

    /// The engine's idea of who wants an interrupt is the standard's, raised at once or late.
    #[test]
    fn interrupts_follow_the_event_index(start in any::<u16>(), batches in prop::collection::vec((0..20u16, any::<Option<u16>>(), any::<bool>()), 1..20)) {
        let mem = memory();
        let device = mem.device();
        let mut driver = driver(&mem, SIZE, 0).start_at(start);
        let mut tx = Tx::start(&driver.config, &device).unwrap();
        mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 0)));
        driver.chain(0, &[(BUFFERS, 72)], false);
        let mut event = start;
        let (mut used, mut old) = (start, start);
        for (count, set, raise) in batches {
            // Near the index, where it matters, or anywhere.
            if let Some(at) = set {
                event = if at & 1 == 0 { used.wrapping_add(at % 24) } else { at };
                driver.set_used_event(event);
            }
            for _ in 0..count {
                driver.offer(0);
            }
            tx.run(&device, &mut Backend::default(), Budget::default());
            used = used.wrapping_add(count);
            let wanted = (0..used.wrapping_sub(old)).any(|i| old.wrapping_add(i) == event);
            let entries = used.wrapping_sub(event);
            let due = wanted.then_some(Due { event, entries });
            prop_assert_eq!(tx.interrupt_due(&device), Ok(due));
            if raise {
                tx.signalled();
            }
            // One that is not raised waits for as long as the driver asks for it.
            if raise || !wanted {
                old = used;
            }
        }
    }
}

/// A driver that looks at the ring while the device works never sees part of a frame.
#[test]
fn the_buffers_of_a_frame_become_visible_together() {
    const FRAMES: usize = 20_000;
    let mem = memory();
    let mut driver = driver(&mem, SIZE, MRG_RXBUF);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    let at = |head: u16| BUFFERS + u64::from(head) * 0x400;
    for head in 0..SIZE {
        driver.chain(head, &[(at(head), 0x100)], true);
        driver.offer(head);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            let device = mem.device();
            let mut backend = Backend::default();
            let mut frames = 0;
            while frames < FRAMES && !done.load(Ordering::Relaxed) {
                backend.waiting.push_back((frame(1000, 0), Meta::default()));
                let budget = Budget {
                    frames: 1,
                    ..Budget::default()
                };
                let outcome = rx.run(&device, &mut backend, &everything(), budget);
                assert_eq!(outcome.fault, None);
                frames += outcome.frames as usize;
                backend.waiting.truncate(1);
            }
        });
        let mut torn = 0;
        for _ in 0..FRAMES {
            let mut first = driver.take_used();
            while first.is_none() {
                std::thread::yield_now();
                let ended = thread.is_finished();
                first = driver.take_used();
                assert!(first.is_some() || !ended, "a frame is missing");
            }
            let head = first.map_or(0, |(head, _)| head as u16);
            let header = mem.read(at(head), hdr::SIZE);
            let header = NetHdr::from_bytes(header[..].try_into().unwrap());
            assert_eq!(header.num_buffers, 4);
            driver.offer(head);
            for _ in 1..header.num_buffers {
                match driver.take_used() {
                    Some((head, _)) => {
                        driver.offer(head as u16);
                    }
                    None => torn += 1,
                }
            }
            if torn > 0 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(torn, 0);
    });
}

/// A guest that scribbles over ring and buffers while the device works cannot make it panic,
/// hang, or write outside the buffers.
#[test]
fn a_guest_that_scribbles() {
    let mem = memory();
    let driver = driver(&mem, SIZE, MRG_RXBUF);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut x = 0x1234_5678_9abc_def1u64;
            while !stop.load(Ordering::Relaxed) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                // Descriptors mostly; now and then the avail ring or a buffer.
                let at = match x % 16 {
                    0 => driver.config.avail + (x >> 8) % 128,
                    1 => BUFFERS + (x >> 8) % 0x1000,
                    _ => driver.config.desc + (x >> 8) % 1024,
                };
                let byte = (x >> 32) as u8 & if x & 64 == 0 { 3 } else { 0xff };
                mem.guest.write_slice(&[byte], GuestAddress(at)).unwrap();
            }
        });
        let device = mem.device();
        let good = driver.clone();
        for _ in 0..20_000 {
            let mut tx = Tx::start(&driver.config, &device).unwrap();
            let mut rx = Rx::start(&driver.config, &device).unwrap();
            good.chain(0, &[(BUFFERS, 100), (BUFFERS + 0x800, 100)], false);
            good.set_avail_idx(SIZE);
            tx.run(&device, &mut Backend::default(), Budget::default());
            good.chain(0, &[(BUFFERS, 100), (BUFFERS + 0x800, 100)], true);
            good.set_avail_idx(SIZE);
            let mut backend = Backend::with_frames([frame(60, 0), frame(300, 1)]);
            rx.run(&device, &mut backend, &everything(), Budget::default());
        }
        stop.store(true, Ordering::Relaxed);
    });
    driver.set_avail_idx(0);
    let mut tx = Tx::start(&driver.start_at(0).config, &mem.device()).unwrap();
    let outcome = tx.run(&mem.device(), &mut Backend::default(), Budget::default());
    assert_eq!(outcome.fault, None, "the memory is as good as before");
}
