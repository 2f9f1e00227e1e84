// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a doorbell costs in memory, all the way from the socket to the queue: nothing.
#![allow(missing_docs)]

use std::alloc::System;
use std::sync::{Arc, Mutex};
use std::thread;

use stats_alloc::{Region, StatsAlloc, INSTRUMENTED_SYSTEM};
use vnet_card::{Card, Config};
use vnet_contract::{queue, regs};
use vnet_loopback::Null;
use vnet_session::{Session, Socket};
use vnet_testkit::{command, region, Nic, Wire, NO_REPLY};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A message that rings the doorbell of a queue, as QEMU posts it.
fn doorbell(queue: u16) -> Vec<u8> {
    let payload = [
        &u64::from(regs::doorbell_reg(queue)).to_le_bytes()[..],
        &region::BAR0.to_le_bytes(),
        &4u32.to_le_bytes(),
        &[0; 4],
    ]
    .concat();
    let size = (16 + payload.len()) as u32;
    let header = Wire::header(0, command::REGION_WRITE, size, NO_REPLY);
    [&header[..], &payload].concat()
}

// The only test of this program: the allocator counts for all threads. That of the harness may allocate yet, so the
// least of some series counts.
#[test]
fn a_doorbell_does_not_allocate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = Socket::bind(&path).unwrap();
    let config = Config::new([2, 0, 0, 0, 0, 1]);
    let card = Card::new(config, Box::new(Null::new())).unwrap();
    let card = Arc::new(Mutex::new(card));
    let mut session = Session::new(&socket, card, |_, e| panic!("{e}")).unwrap();
    let control = session.control();
    let thread = thread::spawn(move || session.run());
    // With queues that run.
    let mut nic = Nic::connect(&path).unwrap();

    let bells = [queue::rx_index(0), queue::tx_index(0)].map(doorbell);
    let mut series = |rings: usize| {
        let region = Region::new(ALLOCATOR);
        for _ in 0..rings {
            for bell in &bells {
                nic.card.wire.send_raw(bell, &[]).unwrap();
            }
        }
        // Answered once all before it is done. It is the client that allocates for it.
        nic.card.reg(regs::ID).unwrap();
        let stats = region.change();
        stats.allocations + stats.reallocations
    };
    series(1000);
    let mut count = |rings| (0..5).map(|_| series(rings)).min();
    let without = count(0);
    assert!(without > Some(0), "the counting counts");
    assert_eq!(count(1000), without);

    drop(nic);
    control.stop();
    thread.join().unwrap().unwrap();
}
