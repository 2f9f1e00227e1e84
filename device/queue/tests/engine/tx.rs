// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The transmit queue with a driver that keeps the rules.

use crate::backend::{driver, frame, memory, Backend, BUFFERS, RING};
use vnet_backend::{Checksum, Gso, GsoKind, Meta, MAX_FRAME};
use vnet_contract::features::{TX_CSUM, TX_ECN, TX_TSO4};
use vnet_contract::hdr::{self, NetHdr};
use vnet_dma::Mapping;
use vnet_queue::mock::{memfd, packet};
use vnet_queue::{Budget, Tx, Waits};

#[test]
fn a_frame_arrives_whole_however_it_is_cut() {
    let mem = memory();
    let sent = frame(1514, 0x5a);
    let bytes = packet(NetHdr::default(), &sent);
    let cuts: [&[u32]; 5] = [
        &[1526],
        &[12, 1514],
        &[12, 14, 1500],
        &[5, 3, 4, 1, 1513],
        &[20, 1000, 506],
    ];
    for cut in cuts {
        let mut driver = driver(&mem, 64, 0);
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        let mut buffers = Vec::new();
        let mut done = 0;
        for (i, &len) in (0..).zip(cut) {
            let at = BUFFERS + i * 0x1000;
            mem.write(at, &bytes[done..done + len as usize]);
            buffers.push((at, len));
            done += len as usize;
        }
        driver.chain(7, &buffers, false);
        driver.offer(7);
        let mut backend = Backend::default();
        let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
        assert_eq!(outcome.fault, None);
        assert_eq!((outcome.frames, outcome.bytes), (1, 1514));
        assert_eq!(outcome.waits, Waits::Driver);
        assert_eq!(backend.sent, [(sent.clone(), Meta::default())], "{cut:?}");
        assert_eq!(driver.take_used(), Some((7, 0)));
        assert_eq!(driver.take_used(), None);
        mem.write(RING, &[0; 0x1000]);
    }
}

#[test]
fn a_buffer_may_cross_into_an_adjoining_range() {
    let mem = memory();
    let seam = 0x100_0000;
    for address in [seam - 0x1000, seam] {
        mem.space
            .map(Mapping {
                address,
                size: 0x1000,
                file: Some(memfd(0x1000)),
                offset: 0,
                read: true,
                write: true,
            })
            .unwrap();
    }
    let device = mem.device();
    let sent = frame(100, 1);
    vm_memory::Bytes::write_slice(
        &*device,
        &packet(NetHdr::default(), &sent),
        vm_memory::GuestAddress(seam - 50),
    )
    .unwrap();
    let mut driver = driver(&mem, 64, 0);
    let mut tx = Tx::start(&driver.config, &device).unwrap();
    driver.chain(0, &[(seam - 50, 112)], false);
    driver.offer(0);
    let mut backend = Backend::default();
    assert_eq!(tx.run(&device, &mut backend, Budget::default()).fault, None);
    assert_eq!(backend.sent[0].0, sent);
}

#[test]
fn the_longest_and_the_shortest_frame() {
    let mem = memory();
    let mut driver = driver(&mem, 64, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let mut backend = Backend::default();
    for (head, len) in [(0, MAX_FRAME), (1, 14)] {
        let at = BUFFERS + u64::from(head) * 0x2_0000;
        mem.write(at, &packet(NetHdr::default(), &frame(len, 3)));
        driver.chain(head, &[(at, (len + hdr::SIZE) as u32)], false);
        driver.offer(head);
    }
    assert_eq!(
        tx.run(&mem.device(), &mut backend, Budget::default()).fault,
        None
    );
    let lengths: Vec<usize> = backend.sent.iter().map(|(f, _)| f.len()).collect();
    assert_eq!(lengths, [MAX_FRAME, 14]);
}

#[test]
fn metadata_is_what_the_header_says() {
    let mem = memory();
    let mut driver = driver(&mem, 64, TX_CSUM | TX_TSO4 | TX_ECN);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    let header = NetHdr {
        flags: hdr::F_NEEDS_CSUM,
        gso_type: hdr::GSO_TCPV4 | hdr::GSO_ECN,
        hdr_len: 54,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    mem.write(BUFFERS, &packet(header, &frame(5000, 0)));
    driver.chain(0, &[(BUFFERS, 5012)], false);
    driver.offer(0);
    let mut backend = Backend::default();
    tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!(
        backend.sent[0].1,
        Meta {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16
            },
            gso: Some(Gso {
                kind: GsoKind::TcpV4,
                ecn: true,
                size: 1460,
                hdr_len: 54
            }),
        }
    );
}

#[test]
fn a_batch_ends_with_its_budget_and_the_next_one_goes_on() {
    let mem = memory();
    let mut driver = driver(&mem, 256, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(1000, 0)));
    for head in 0..100 {
        driver.chain(head, &[(BUFFERS, 1012)], false);
        driver.offer(head);
    }
    let mut backend = Backend::default();
    let waits: Vec<Waits> = (0..3)
        .map(|_| tx.run(&mem.device(), &mut backend, Budget::default()).waits)
        .collect();
    assert_eq!(waits, [Waits::Nothing, Waits::Driver, Waits::Driver]);
    assert_eq!(backend.batches, [64, 36]);
    // By bytes, and by descriptors.
    let mut backend = Backend::default();
    for (budget, frames) in [
        (
            Budget {
                bytes: 2500,
                ..Budget::default()
            },
            3,
        ),
        (
            Budget {
                descriptors: 5,
                ..Budget::default()
            },
            5,
        ),
    ] {
        for head in 0..10 {
            driver.offer(head);
        }
        let outcome = tx.run(&mem.device(), &mut backend, budget);
        assert_eq!((outcome.frames, outcome.waits), (frames, Waits::Nothing));
        tx.run(&mem.device(), &mut backend, Budget::default());
    }
}

#[test]
fn frames_of_many_segments_take_several_batches_and_wait_for_nobody() {
    const FRAMES: u16 = 8;
    let mem = memory();
    let mut driver = driver(&mem, 64, TX_CSUM | TX_TSO4);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    // IPv4 and TCP, as far as segmentation looks, and a byte a segment.
    let mut large = frame(54 + 1500, 0);
    large[14..54].fill(0);
    (large[14], large[23], large[46]) = (0x45, 6, 0x50);
    let header = NetHdr {
        flags: hdr::F_NEEDS_CSUM,
        gso_type: hdr::GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    mem.write(BUFFERS, &packet(header, &large));
    for head in 0..FRAMES {
        driver.chain(head, &[(BUFFERS, 12 + large.len() as u32)], false);
        driver.offer(head);
    }
    let mut backend = Backend {
        plain: true,
        ..Backend::default()
    };
    let mut batches = 0;
    loop {
        let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
        assert_eq!((outcome.fault, outcome.drops), (None, 0));
        batches += 1;
        match outcome.waits {
            Waits::Nothing => assert!(batches < 100),
            waits => break assert_eq!(waits, Waits::Driver),
        }
    }
    assert!(batches > 1, "all at once");
    assert_eq!(backend.sent.len(), usize::from(FRAMES) * 1500);
    assert_eq!(driver.used_idx(), FRAMES);
}

#[test]
fn frames_that_the_backend_does_not_take_are_offered_again_in_order() {
    let mem = memory();
    let mut driver = driver(&mem, 64, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    for head in 0..5u16 {
        let at = BUFFERS + u64::from(head) * 0x1000;
        mem.write(at, &packet(NetHdr::default(), &frame(60, head as u8)));
        driver.chain(head, &[(at, 72)], false);
        driver.offer(head);
    }
    let mut backend = Backend {
        takes: Some(2),
        ..Backend::default()
    };
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.waits), (2, Waits::Backend));
    assert_eq!(tx.indices(), (2, 2));
    assert_eq!(driver.used_idx(), 2);
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.waits), (0, Waits::Backend));
    backend.takes = None;
    let outcome = tx.run(&mem.device(), &mut backend, Budget::default());
    assert_eq!((outcome.frames, outcome.waits), (3, Waits::Driver));
    for head in 0..5u8 {
        assert_eq!(backend.sent[usize::from(head)].0, frame(60, head));
        assert_eq!(driver.take_used(), Some((head.into(), 0)));
    }
}

#[test]
fn an_interrupt_comes_when_the_used_index_passes_the_event() {
    let mem = memory();
    let device = mem.device();
    let mut driver = driver(&mem, 64, 0).start_at(0xfffe);
    let mut tx = Tx::start(&driver.config, &device).unwrap();
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 0)));
    let mut backend = Backend::default();
    let mut send = |driver: &mut vnet_queue::mock::Driver, frames: u16| {
        for head in 0..frames {
            driver.chain(head, &[(BUFFERS, 72)], false);
            driver.offer(head);
        }
        tx.run(&device, &mut backend, Budget::default());
        let due = tx.interrupt_due(&device).unwrap();
        tx.signalled();
        due.map(|due| (due.event, due.entries))
    };
    assert_eq!(send(&mut driver, 1), Some((0xfffe, 1)));
    assert_eq!(send(&mut driver, 5), None, "not asked again");
    driver.set_used_event(6);
    assert_eq!(send(&mut driver, 2), None, "entries 4 and 5");
    assert_eq!(send(&mut driver, 3), Some((6, 3)), "entries 6 to 8");
    assert_eq!(send(&mut driver, 0), None, "nothing new");
}

#[test]
fn the_ring_may_start_at_any_index_and_reports_where_it_stands() {
    let mem = memory();
    let mut driver = driver(&mem, 64, 0).start_at(0xffff);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    assert_eq!(tx.indices(), (0xffff, 0xffff));
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 0)));
    driver.chain(9, &[(BUFFERS, 72)], false);
    driver.offer(9);
    driver.offer(9);
    tx.run(&mem.device(), &mut Backend::default(), Budget::default());
    assert_eq!(tx.indices(), (1, 1));
    assert_eq!(driver.take_used(), Some((9, 0)));
}
