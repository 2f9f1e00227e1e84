// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Chains in tables of their own, good and bad.

use vnet_backend::MAX_FRAME;
use vnet_capture::{Bell, Watch};
use vnet_contract::features::{INDIRECT_DESC, MRG_RXBUF};
use vnet_contract::hdr::NetHdr;
use vnet_contract::queue::Error;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_dma::Mapping;
use vnet_queue::mock::{chain, memfd, packet, Driver, Memory};
use vnet_queue::{Budget, Fault, Outcome, Rx, Tx, Waits};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS, RING};

const SIZE: u16 = 64;
/// Where tables lie: behind the ring.
const TABLE: u64 = RING + 0x2_0000;
/// The ring's descriptor that points to the table.
const HEAD: u16 = 5;

#[test]
fn a_frame_in_a_table_arrives_whole_and_takes_one_descriptor_of_the_ring() {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let sent = frame(1514, 7);
    let bytes = packet(NetHdr::default(), &sent);
    // As many pieces as the ring has descriptors, the most that there may be.
    let buffers: Vec<(u64, u32)> = bytes
        .chunks(bytes.len().div_ceil(SIZE.into()))
        .enumerate()
        .map(|(i, piece)| {
            let at = BUFFERS + i as u64 * 0x1000;
            mem.write(at, piece);
            (at, piece.len() as u32)
        })
        .collect();
    driver.indirect(HEAD, TABLE, &chain(0, &buffers, false));
    driver.offer(HEAD);
    // Direct chains go on as before.
    driver.chain(20, &buffers[..40], false);
    driver.offer(20);
    let mut backend = Backend::default();
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (2, None));
    assert_eq!(backend.sent[0].0, sent);
    assert!(sent.starts_with(&backend.sent[1].0));
    assert_eq!(driver.take_used(), Some((HEAD.into(), 0)));
    assert_eq!(driver.take_used(), Some((20, 0)));
}

/// What is told of chains is outside of the budget of a round.
#[test]
fn of_a_long_chain_no_more_is_read_for_a_capture_than_is_told() {
    const SIZE: u16 = 256;
    let mem = memory();
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let watch = Watch::new();
    tx.set_recorder(Some(Box::new(watch.recorder(1, &Bell::default()))));
    let bytes = packet(NetHdr::default(), &frame(1000, 7));
    mem.write(BUFFERS, &bytes);
    let pieces = |count: u32| -> Vec<(u64, u32)> {
        let last = bytes.len() as u32 - (count - 1);
        let at = |n: u32| BUFFERS + u64::from(n);
        (0..count)
            .map(|n| (at(n), if n + 1 < count { 1 } else { last }))
            .collect()
    };
    for (head, count, told) in [(0, 64, 64), (64, 100, 65)] {
        driver.chain(head, &pieces(count), false);
        driver.offer(head);
        driver.indirect(200, TABLE, &chain(0, &pieces(count), false));
        driver.offer(200);
        let mut backend = Backend::default();
        let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
        assert_eq!((outcome.frames, outcome.fault), (2, None));
        assert!(tx.interrupt_due(&mem.device()).is_ok());
        for (seen, table) in watch.take().iter().zip([false, true]) {
            let [chain] = &seen.chains[..] else {
                panic!("{seen:?}");
            };
            assert_eq!((chain.indirect, chain.count), (table, told));
            assert_eq!(chain.is_counted(), told == count as usize);
        }
    }
}

#[test]
fn the_order_of_a_table_is_that_of_its_links() {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let sent = frame(100, 1);
    mem.write(BUFFERS, &packet(NetHdr::default(), &sent));
    let link = |at: u64, len, next| Desc {
        addr: BUFFERS + at,
        len,
        flags: DESC_F_NEXT,
        next,
    };
    let last = Desc {
        flags: 0,
        ..link(72, 40, 0)
    };
    let unused = Desc {
        addr: u64::MAX,
        len: 0,
        flags: u16::MAX,
        next: u16::MAX,
    };
    driver.indirect(
        HEAD,
        TABLE,
        &[link(0, 50, 3), last, unused, link(50, 22, 1)],
    );
    driver.offer(HEAD);
    let mut backend = Backend::default();
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (1, None));
    assert_eq!(backend.sent[0].0, sent);
}

#[test]
fn a_received_frame_goes_on_from_table_to_table() {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC | MRG_RXBUF);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    for head in 0..3u16 {
        let at = BUFFERS + u64::from(head) * 0x1_0000;
        let buffers = [(at, 100), (at + 0x2000, 300)];
        let table = TABLE + u64::from(head) * 64;
        driver.indirect(head, table, &chain(0, &buffers, true));
        driver.offer(head);
    }
    let sent = frame(900, 3);
    let mut backend = Backend::with_frames([sent.clone()]);
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!((outcome.frames, outcome.fault), (1, None));
    let mut bytes = Vec::new();
    for (head, len) in [(0u64, 400), (1, 400), (2, 112)] {
        assert_eq!(driver.take_used(), Some((head as u32, len)));
        let at = BUFFERS + head * 0x1_0000;
        bytes.extend(mem.read(at, 100));
        bytes.extend(mem.read(at + 0x2000, len as usize - 100));
    }
    assert_eq!(bytes[12..], sent);
}

#[test]
fn a_table_may_cross_into_an_adjoining_range() {
    let mem = memory();
    let seam = 0x100_0000;
    for address in [seam - 0x1000, seam] {
        let mapping = Mapping {
            address,
            size: 0x1000,
            file: Some(memfd(0x1000)),
            offset: 0,
            read: true,
            write: true,
        };
        mem.space.map(mapping).unwrap();
    }
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let sent = frame(100, 1);
    mem.write(BUFFERS, &packet(NetHdr::default(), &sent));
    let table = chain(0, &[(BUFFERS, 12), (BUFFERS + 12, 100)], false);
    driver.indirect(HEAD, TABLE, &table);
    // A descriptor that lies half here and half there.
    let bytes = mem.read(TABLE, 32);
    let at = vm_memory::GuestAddress(seam - 24);
    vm_memory::Bytes::write_slice(&*mem.device(), &bytes, at).unwrap();
    driver.desc(
        HEAD,
        Desc {
            addr: seam - 24,
            len: 32,
            flags: DESC_F_INDIRECT,
            next: 0,
        },
    );
    driver.offer(HEAD);
    let mut backend = Backend::default();
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(outcome.fault, None);
    assert_eq!(backend.sent[0].0, sent);
}

#[test]
fn what_is_read_of_a_table_counts_against_the_budget() {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
    // One descriptor that is used, and many that are only read.
    let mut table = chain(0, &[(BUFFERS, 72)], false);
    table.resize(SIZE.into(), Desc::default());
    driver.indirect(HEAD, TABLE, &table);
    for _ in 0..SIZE {
        driver.offer(HEAD);
    }
    let mut backend = Backend::default();
    let budget = Budget::default();
    let outcome = tx.run(&mem.device(), &mut backend, budget);
    assert_eq!((outcome.waits, outcome.fault), (Waits::Nothing, None));
    let frames = budget.descriptors / usize::from(SIZE);
    assert_eq!(backend.sent.len(), frames);
}

/// What each of the queues makes of a table and the descriptor that points to it.
fn faults(features: u64, head: Desc, table: impl Fn(u16) -> Vec<Desc>) -> [Option<Fault>; 2] {
    let offered = |write| {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, features);
        mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
        driver.indirect(0, TABLE, &table(write));
        driver.desc(HEAD, head);
        driver.offer(HEAD);
        (mem, driver)
    };
    let check = |driver: &mut Driver, backend: &Backend, outcome: Outcome| {
        assert_eq!((outcome.frames, outcome.drops), (0, 0));
        assert_eq!(driver.take_used(), None, "the bad chain is not returned");
        assert_eq!((backend.sent.len(), backend.waiting.len()), (0, 1));
        outcome.fault
    };
    let backend = || Backend::with_frames([frame(60, 0)]);
    let sent = |(mem, mut driver): (Memory, Driver)| {
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let mut backend = backend();
        let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
        check(&mut driver, &backend, outcome)
    };
    let received = |(mem, mut driver): (Memory, Driver)| {
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        let mut backend = backend();
        let budget = Budget::default();
        let outcome = rx.run(&mem.device(), &mut backend, &everything(), budget);
        check(&mut driver, &backend, outcome)
    };
    [sent(offered(0)), received(offered(DESC_F_WRITE))]
}

fn both(error: Error, info: u16) -> [Option<Fault>; 2] {
    [Some(Fault::new(error, info)); 2]
}

/// A descriptor that points to `entries` descriptors at [`TABLE`].
fn pointer(entries: u32) -> Desc {
    Desc {
        addr: TABLE,
        len: entries * 16,
        flags: DESC_F_INDIRECT,
        next: 0,
    }
}

fn good(write: u16) -> Vec<Desc> {
    chain(0, &[(BUFFERS, 72)], write != 0)
}

#[test]
fn pointers_to_tables() {
    let bad = both(Error::Indirect, HEAD);
    // Not accepted.
    assert_eq!(faults(0, pointer(1), good), bad);
    let faults = |head, table: fn(u16) -> Vec<Desc>| faults(INDIRECT_DESC, head, table);
    // Other flags.
    for flags in [DESC_F_NEXT, DESC_F_WRITE, 8, 0x8000] {
        let head = Desc {
            flags: DESC_F_INDIRECT | flags,
            ..pointer(1)
        };
        assert_eq!(faults(head, good), bad, "{flags:#x}");
    }
    // Lengths: none, more than the ring, not a number of descriptors.
    for len in [0, 1, 15, 17, 16 * (u32::from(SIZE) + 1), 1 << 31, u32::MAX] {
        let head = Desc { len, ..pointer(1) };
        assert_eq!(faults(head, good), bad, "{len}");
    }
    // Where there is no memory, and where it ends.
    for addr in [0, RING + 0x4_0000 - 8, u64::MAX, u64::MAX - 15] {
        let head = Desc { addr, ..pointer(1) };
        assert_eq!(
            faults(head, good),
            both(Error::BufferFault, HEAD),
            "{addr:#x}"
        );
    }
    // Not the only descriptor of its chain.
    let behind = |write: u16| {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, INDIRECT_DESC);
        driver.indirect(9, TABLE, &good(write));
        driver.desc(
            HEAD,
            Desc {
                addr: BUFFERS,
                len: 72,
                flags: write | DESC_F_NEXT,
                next: 9,
            },
        );
        driver.offer(HEAD);
        (mem, driver)
    };
    let (mem, driver) = behind(0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let outcome = tx.run(&mem.device(), &mut Backend::default(), Budget::default());
    assert_eq!(outcome.fault, Some(Fault::new(Error::Indirect, 9u16)));
    let (mem, driver) = behind(DESC_F_WRITE);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    let mut backend = Backend::with_frames([frame(60, 0)]);
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!(outcome.fault, Some(Fault::new(Error::Indirect, 9u16)));
}

#[test]
fn what_stands_in_tables() {
    fn link(write: u16, next: u16) -> Desc {
        Desc {
            addr: BUFFERS,
            len: 2,
            flags: write | DESC_F_NEXT,
            next,
        }
    }
    let check = |entries, table: fn(u16) -> Vec<Desc>, expected| {
        assert_eq!(faults(INDIRECT_DESC, pointer(entries), table), expected);
    };
    // A table in a table.
    check(1, |_| vec![pointer(1)], both(Error::Indirect, HEAD));
    // Links out of the table, though not out of the ring, and round in it.
    check(2, |w| vec![link(w, 2); 2], both(Error::DescIndex, 2));
    check(
        2,
        |w| vec![link(w, u16::MAX); 2],
        both(Error::DescIndex, u16::MAX),
    );
    check(1, |w| vec![link(w, 0)], both(Error::ChainLength, HEAD));
    check(
        2,
        |w| vec![link(w, 1), link(w, 0)],
        both(Error::ChainLength, HEAD),
    );
    // The wrong direction, and lengths.
    check(
        1,
        |w| chain(0, &[(BUFFERS, 72)], w == 0),
        both(Error::Direction, HEAD),
    );
    let lengths: [fn(u16) -> Vec<Desc>; 3] = [
        |w| chain(0, &[(BUFFERS, 0)], w != 0),
        |w| chain(0, &[(BUFFERS, 12)], w != 0),
        |w| chain(0, &[(BUFFERS, u32::MAX)], w != 0),
    ];
    for table in lengths {
        check(1, table, both(Error::BufferLength, HEAD));
    }
    let too_long = |_| chain(0, &[(BUFFERS, 12), (BUFFERS, MAX_FRAME as u32 + 1)], false);
    assert_eq!(
        faults(INDIRECT_DESC, pointer(2), too_long)[0],
        Some(Fault::new(Error::BufferLength, HEAD))
    );
    check(
        2,
        |w| chain(0, &[(BUFFERS, 12), (0, 72)], w != 0),
        both(Error::BufferFault, HEAD),
    );
}
