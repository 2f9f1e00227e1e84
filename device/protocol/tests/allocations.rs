// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a doorbell costs in memory: nothing.
#![allow(missing_docs)]

mod common;

use std::alloc::System;

use common::{access, Peer, NO_REPLY};
use stats_alloc::{Region, StatsAlloc, INSTRUMENTED_SYSTEM};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;

fn message(command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    let head = [&[1, 0][..], &command.to_ne_bytes()].concat();
    let words = [size, flags, 0].map(u32::to_ne_bytes).concat();
    [&head[..], &words, payload].concat()
}

// The only test of this program: the allocator counts for all threads. That of the harness may allocate yet, so the
// least of some series counts.
#[test]
fn neither_a_doorbell_nor_a_register_allocates() {
    let mut peer = Peer::negotiated();
    let doorbell = message(REGION_WRITE, NO_REPLY, &access(0x20, 0, 4, &[1, 0, 0, 0]));
    let write = message(REGION_WRITE, 0, &access(0x20, 0, 4, &[1, 0, 0, 0]));
    let read = message(REGION_READ, 0, &access(0x20, 0, 4, &[]));
    // The buffers of a connection grow to what they need with its first messages.
    let run = |peer: &mut Peer| {
        for bytes in [&doorbell, &write, &read] {
            peer.receive_quietly(bytes);
        }
    };
    run(&mut peer);
    let mut series = || {
        let region = Region::new(ALLOCATOR);
        (0..1000).for_each(|_| run(&mut peer));
        let stats = region.change();
        stats.allocations + stats.reallocations
    };
    let least = (0..10).map(|_| series()).min();
    assert_eq!(least, Some(0));
    // And that the counting counts.
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(region.change().allocations > 0);
}
