// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Errors by the hundred, and a ring that changes all the time.

use vnet_contract::features::INDIRECT_DESC;
use vnet_contract::queue::Kind;
use vnet_contract::regs;
use vnet_testkit::{Server, QUIET};

use crate::common::{self, counter, own};
use crate::rig::{Rig, NOWHERE, READ_ONLY, SIZE};

#[test]
fn the_log_does_not_grow_with_the_errors() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server, Kind::Tx);
    let queue = rig.queue();
    for n in 1..=300 {
        rig.raw.offer(0xffff);
        rig.kick();
        rig.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(counter(&mut rig.nic, queue, regs::S_ERRORS), n);
        rig.nic.card.disable(queue).unwrap();
        rig.raw.restart();
        rig.enable();
    }
    std::thread::sleep(QUIET);
    let log = server.process.stderr();
    let lines = log.lines().count();
    assert!((1..=50).contains(&lines), "{lines} lines:\n{log}");
    assert!(
        log.contains("65535"),
        "the log does not say what is wrong: {log}"
    );
}

/// What changes while the card works on it: never a crash, and never a frame from nowhere.
#[test]
fn a_ring_that_changes_all_the_time() {
    let server = Server::start_with("null", &["--queues", "2"]).unwrap();
    let mut rig = Rig::with(&server, Kind::Tx, INDIRECT_DESC);
    let queue = rig.queue();
    let mut state = 1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (page, base) = (rig.page, rig.nic.ram.base());
    let addresses = [page, base, NOWHERE, READ_ONLY, u64::MAX - 100, 0];
    // Some of them are good lengths of a table.
    let lengths = [12, 60, 72, 1500, 0, u32::MAX, 65_565, 16, 96];
    let mut failures = 0;
    for _ in 0..common::rounds(20_000) {
        for _ in 0..4 {
            let addr = addresses[next() as usize % addresses.len()];
            let len = lengths[next() as usize % lengths.len()];
            let index = next() as u16 % SIZE;
            let flags = (next() % 16) as u16;
            rig.raw.desc(index, addr, len, flags, next() as u16 % 80);
        }
        rig.raw.offer(next() as u16 % SIZE);
        if next() % 8 == 0 {
            let index = rig.raw.avail_index();
            rig.nic.card.doorbell(queue, index).unwrap();
        }
        if next() % 64 == 0 {
            if rig.nic.card.queue_error(queue).unwrap().is_some() {
                failures += 1;
            }
            rig.nic.card.disable(queue).unwrap();
            rig.raw.restart();
            rig.enable();
        }
    }
    assert!(
        failures > 100,
        "only {failures} failures: the test is too tame"
    );
    let frame = own(&rig.nic, 60, 1);
    rig.nic.send(1, &frame).unwrap();
    rig.nic.drain(1).unwrap();
}
