// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Used entries that are wrong on purpose.

use std::sync::Arc;

use vnet_backend::{Gso, GsoKind};
use vnet_contract::hdr::NetHdr;
use vnet_faults::{Faults, Site};
use vnet_queue::mock::packet;
use vnet_queue::{Budget, Rx, Tx};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};

const SIZE: u16 = 64;
/// Bytes of header and frame.
const LEN: u32 = 12 + 60;

fn planned(plan: &str) -> Arc<Faults> {
    let faults = Faults::default();
    faults.load(&plan.parse().unwrap());
    Arc::new(faults)
}

fn site(plan: &str) -> Site {
    Site::queue(planned(plan), 0)
}

/// Head and length of the used entries of four received frames in one batch, and the used index.
fn received(plan: &str) -> (Vec<(u32, u32)>, u16) {
    received_at(site(plan))
}

fn received_at(site: Site) -> (Vec<(u32, u32)>, u16) {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, 0);
    let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
    rx.set_faults(site);
    for head in 0..4 {
        driver.chain(head, &[(BUFFERS + u64::from(head) * 0x1000, 2048)], true);
        driver.offer(head);
    }
    let mut backend = Backend::with_frames((0..4).map(|n| frame(60, n)));
    let outcome = rx.run(
        &mem.device(),
        &mut backend,
        &everything(),
        Budget::default(),
    );
    assert_eq!((outcome.frames, outcome.fault), (4, None));
    let used = driver.used_idx();
    let entries = (0..4).filter_map(|_| driver.take_used()).collect();
    (entries, used)
}

const GOOD: [(u32, u32); 4] = [(0, LEN), (1, LEN), (2, LEN), (3, LEN)];

#[test]
fn without_a_hit_entries_are_right() {
    assert_eq!(received("used-id-range at=9"), (GOOD.to_vec(), 4));
}

#[test]
fn an_id_is_no_descriptor() {
    let (entries, used) = received("used-id-range every=2");
    assert_eq!((entries[0], entries[2], used), (GOOD[0], GOOD[2], 4));
    for (id, len) in [entries[1], entries[3]] {
        assert!(id >= SIZE.into() && len == LEN, "{id}");
    }
}

#[test]
fn an_id_comes_twice() {
    let (entries, _) = received("used-id-repeated at=3");
    assert_eq!(entries, [GOOD[0], GOOD[1], (1, LEN), GOOD[3]]);
}

#[test]
fn entries_change_places() {
    let (entries, _) = received("used-order at=2");
    assert_eq!(entries, [GOOD[0], GOOD[2], GOOD[1], GOOD[3]]);
    // The last one of a batch has nobody to change with, and is no event: the fourth is the next one's first.
    let faults = planned("used-order at=4");
    for entries in [GOOD, [GOOD[1], GOOD[0], GOOD[2], GOOD[3]]] {
        assert_eq!(received_at(Site::queue(Arc::clone(&faults), 0)).0, entries);
    }
    assert_eq!(
        faults.report(),
        ["fault in line 1, used-order: 1 of 6 events"]
    );
}

#[test]
fn lengths_are_long_short_and_zero() {
    let lengths = |plan| received(plan).0.into_iter().map(|(_, len)| len);
    assert!(lengths("used-len-long").all(|len| len > 1 << 20));
    assert!(lengths("used-len-short").all(|len| len < LEN));
    assert!(lengths("used-len-zero").all(|len| len == 0));
}

#[test]
fn metadata_that_was_not_accepted_is_passed_on() {
    for (plan, passed) in [("bad-segments at=99", 1), ("used-order", 0)] {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, 0);
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        rx.set_faults(site(plan));
        driver.chain(0, &[(BUFFERS, 2048)], true);
        driver.offer(0);
        let mut backend = Backend::with_frames([frame(60, 0)]);
        backend.waiting[0].1.gso = Some(Gso {
            kind: GsoKind::Udp,
            ecn: false,
            size: 1,
            hdr_len: 7,
        });
        let outcome = rx.run(
            &mem.device(),
            &mut backend,
            &everything(),
            Budget::default(),
        );
        assert_eq!((outcome.frames, outcome.drops), (passed, 1 - passed));
    }
}

#[test]
fn the_used_index_jumps_and_comes_back() {
    let (_, used) = received("used-index");
    assert!(used > 4 + SIZE, "{used}");

    let mem = memory();
    let mut driver = driver(&mem, SIZE, 0);
    let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
    tx.set_faults(site("used-index at=1\nused-len-long at=2"));
    let mut send = |head: u16| {
        mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
        driver.chain(head, &[(BUFFERS, LEN)], false);
        driver.offer(head);
        tx.run(&mem.device(), &mut Backend::default(), Budget::default());
        driver.used_idx()
    };
    assert!(send(0) > 1 + SIZE);
    assert_eq!(send(1), 2);
    assert_eq!(driver.take_used(), Some((0, 0)));
    // A length where there is nothing to write.
    assert!(driver
        .take_used()
        .is_some_and(|(id, len)| id == 1 && len > 0));
}
