// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Memory by message, with the test as the message thread and as the client.
#![allow(missing_docs)]

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Barrier};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vnet_dma::{AddressSpace, Ask, DmaMap, Failure, Mapping, Relay, Stretch, Way};

const BASE: u64 = 0x10_0000;
const SIZE: u64 = 0x10_0000;
/// Memory that is shared follows at once.
const SHARED: u64 = BASE + SIZE;
/// Memory that must not be written.
const ROM: u64 = 0x80_0000;

fn map(space: &AddressSpace, address: u64, size: u64, shared: bool, write: bool) {
    let file = shared.then(|| {
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, size).unwrap();
        file.into()
    });
    let mapping = Mapping {
        address,
        size,
        file,
        offset: 0,
        read: true,
        write,
    };
    space.map(mapping).unwrap();
}

fn space() -> (AddressSpace, Arc<Relay>, Arc<DmaMap>) {
    let space = AddressSpace::new();
    space.set_bus_master(true);
    assert!(space.set_relayed(true));
    map(&space, BASE, SIZE, false, true);
    map(&space, SHARED, 0x1000, true, true);
    map(&space, ROM, 0x1000, false, false);
    let relay = Arc::clone(space.relay().unwrap());
    let mirrored = space.mirrored().unwrap();
    (space, relay, mirrored)
}

fn stretch(address: u64, len: usize) -> Stretch {
    Stretch { address, len }
}

/// The next message, which must come.
fn next(relay: &Relay, space: &AddressSpace) -> Ask {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(ask) = relay.next(space, usize::MAX) {
            return ask;
        }
        assert!(Instant::now() < end, "nothing to ask for");
        sleep(Duration::from_millis(1));
    }
}

/// What a byte of the client's memory is.
fn byte(address: u64) -> u8 {
    (address ^ address >> 8 ^ address >> 16) as u8
}

fn contents(ask: &Ask) -> Vec<u8> {
    (0..ask.len as u64).map(|n| byte(ask.address + n)).collect()
}

#[test]
fn everything_is_pulled_in_pieces_of_which_few_are_on_their_way() {
    let (space, relay, map) = space();
    let len = 300_000;
    scope(|s| {
        let worker = s.spawn(|| {
            relay
                .turn()
                .exchange(&map, Way::Pull, [stretch(BASE + 5, len)])
        });
        let (mut at, mut open, mut under_way) = (BASE + 5, Vec::new(), 0);
        while at < BASE + 5 + len as u64 {
            match relay.next(&space, 10_000) {
                Some(ask) => {
                    assert!(ask.len <= 10_000 && ask.way == Way::Pull);
                    assert_eq!(ask.address, at);
                    at += ask.len as u64;
                    under_way += ask.len;
                    assert!(under_way <= 64 << 10);
                    open.push(ask);
                }
                // In no particular order.
                None if !open.is_empty() => {
                    let ask = open.swap_remove(open.len() / 2);
                    under_way -= ask.len;
                    relay.answered(&ask, Ok(&contents(&ask)));
                }
                None => sleep(Duration::from_millis(1)),
            }
        }
        for ask in open {
            relay.answered(&ask, Ok(&contents(&ask)));
        }
        worker.join().unwrap().unwrap();
    });
    let mut got = vec![0; len + 10];
    map.read_slice(&mut got, GuestAddress(BASE)).unwrap();
    for (n, got) in (0..).zip(got) {
        let pulled = (5..5 + len as u64).contains(&n);
        assert_eq!(got, if pulled { byte(BASE + n) } else { 0 }, "{n}");
    }
}

#[test]
fn what_is_pushed_is_what_the_mirror_holds_and_what_is_shared_is_left_out() {
    let (space, relay, map) = space();
    // Across the end of the memory that is not shared, and from nowhere.
    map.write_slice(&[7; 200], GuestAddress(SHARED - 100))
        .unwrap();
    let shared = space.memory().unwrap();
    let mut direct = [0; 100];
    shared
        .read_slice(&mut direct, GuestAddress(SHARED))
        .unwrap();
    assert_eq!(direct, [7; 100]);
    shared
        .read_slice(&mut direct, GuestAddress(BASE))
        .unwrap_err();
    scope(|s| {
        let worker = s.spawn(|| {
            let list = [
                stretch(SHARED - 100, 150),
                stretch(SHARED - 200, 0),
                stretch(0x4000_0000, 8),
                stretch(u64::MAX - 3, 100),
            ];
            relay.turn().exchange(&map, Way::Push, list)
        });
        let ask = next(&relay, &space);
        assert_eq!((ask.address, ask.len), (SHARED - 100, 100));
        let mut data = vec![0; 100];
        ask.copy_to(&mut data);
        assert_eq!(data, [7; 100]);
        assert!(relay.is_writing());
        assert!(relay.next(&space, 100).is_none());
        relay.answered(&ask, Ok(&[]));
        assert!(!relay.is_writing());
        worker.join().unwrap().unwrap();
    });
    // Nothing to do is done without a word.
    relay
        .turn()
        .exchange(&map, Way::Push, [stretch(SHARED, 8)])
        .unwrap();
}

#[test]
fn a_refusal_ends_the_exchange() {
    let (space, relay, map) = space();
    let exchange = |way, list: Vec<Stretch>| relay.turn().exchange(&map, way, list);
    scope(|s| {
        // By the client; answers to the rest come too late.
        let worker = s.spawn(|| exchange(Way::Pull, vec![stretch(BASE, 8), stretch(BASE + 64, 8)]));
        let (first, second) = (next(&relay, &space), next(&relay, &space));
        relay.answered(&second, Err(()));
        let refused = Err(Failure::Refused(BASE + 64));
        assert_eq!(worker.join().unwrap(), refused);
        relay.answered(&first, Ok(&contents(&first)));
        // With less than was asked for.
        let worker = s.spawn(|| exchange(Way::Pull, vec![stretch(BASE, 8)]));
        let ask = next(&relay, &space);
        relay.answered(&ask, Ok(&[1; 7]));
        assert_eq!(worker.join().unwrap(), Err(Failure::Refused(BASE)));
        // By what it takes in a message: nothing.
        let worker = s.spawn(|| exchange(Way::Pull, vec![stretch(BASE, 8)]));
        while !worker.is_finished() {
            assert!(relay.next(&space, 0).is_none());
        }
        assert_eq!(worker.join().unwrap(), Err(Failure::Refused(BASE)));
        // By the map: what must not be written, and what is gone by now.
        let worker = s.spawn(|| exchange(Way::Push, vec![stretch(ROM + 8, 8)]));
        while !worker.is_finished() {
            assert!(relay.next(&space, 100).is_none());
        }
        assert_eq!(worker.join().unwrap(), Err(Failure::Refused(ROM + 8)));
        let worker = s.spawn(|| exchange(Way::Pull, vec![stretch(BASE, 8), stretch(ROM, 8)]));
        let ask = next(&relay, &space);
        assert_eq!(space.unmap(ROM, 1), 1);
        while !worker.is_finished() {
            assert!(relay.next(&space, 100).is_none());
        }
        assert_eq!(worker.join().unwrap(), Err(Failure::Refused(ROM)));
        relay.answered(&ask, Ok(&contents(&ask)));
    });
    let mut byte = [0];
    map.read_slice(&mut byte, GuestAddress(BASE + 7)).unwrap();
    assert_eq!(byte, [0], "an exchange that failed leaves no late data");
}

#[test]
fn without_bus_mastering_it_waits_and_a_reset_or_the_client_s_end_ends_it() {
    let (space, relay, map) = space();
    let push = || relay.turn().exchange(&map, Way::Push, [stretch(BASE, 100)]);
    scope(|s| {
        space.set_bus_master(false);
        let worker = s.spawn(push);
        sleep(Duration::from_millis(50));
        assert!(relay.next(&space, 100).is_none() && !worker.is_finished());
        space.set_bus_master(true);
        let half = next_of(&relay, &space, 50);
        relay.cancel();
        assert_eq!(worker.join().unwrap(), Err(Failure::Cancelled));
        assert!(relay.next(&space, 100).is_none());
        assert!(relay.is_writing(), "what was asked for is on its way");
        relay.answered(&half, Ok(&[]));
        assert!(!relay.is_writing());

        let worker = s.spawn(push);
        next(&relay, &space);
        space.set_relayed(false);
        assert_eq!(worker.join().unwrap(), Err(Failure::Closed));
        assert!(!relay.is_writing());
        assert_eq!(push(), Err(Failure::Closed));
        assert!(space.mirrored().is_none());
    });
}

/// A push of which one half is refused, by what is done with it, and the other is on its way when
/// the client leaves.
fn leaves_after_a_refusal(refuse: impl Fn(&AddressSpace, &Relay)) {
    let (space, relay, map) = space();
    let (sender, done) = channel();
    // Not scoped: it may never come back, and then the test is to fail.
    spawn({
        let relay = Arc::clone(&relay);
        move || {
            let list = [stretch(BASE, 8), stretch(BASE + 64, 8)];
            let result = relay.turn().exchange(&map, Way::Push, list);
            sender.send(result).unwrap();
        }
    });
    next(&relay, &space);
    refuse(&space, &relay);
    let early = done.recv_timeout(Duration::from_millis(50));
    assert_eq!(early, Err(RecvTimeoutError::Timeout), "it is on its way");
    space.set_relayed(false);
    let end = done.recv_timeout(Duration::from_secs(20));
    assert_eq!(end, Ok(Err(Failure::Closed)));
}

#[test]
fn a_refusal_does_not_hold_up_the_client_s_end() {
    // By the client.
    leaves_after_a_refusal(|space, relay| relay.answered(&next(relay, space), Err(())));
    // By the map.
    leaves_after_a_refusal(|space, relay| {
        assert_eq!(space.unmap(BASE, 1), 1);
        assert!(relay.next(space, 8).is_none());
    });
}

#[test]
fn a_turn_ends_with_a_reset_or_the_client_and_does_nothing_to_the_next() {
    let ends: [fn(&AddressSpace, &Relay); 2] = [
        |_, relay| relay.cancel(),
        |space, _| {
            space.set_relayed(false);
            assert!(space.set_relayed(true));
        },
    ];
    for end in ends {
        let (space, relay, map) = space();
        let (sender, done) = channel();
        let ended = Arc::new(Barrier::new(2));
        // Not scoped, as above.
        spawn({
            let (relay, ended) = (Arc::clone(&relay), Arc::clone(&ended));
            move || {
                let turn = relay.turn();
                ended.wait();
                ended.wait();
                let result = turn.exchange(&map, Way::Push, [stretch(BASE, 8)]);
                sender.send(result).unwrap();
            }
        });
        ended.wait();
        end(&space, &relay);
        ended.wait();
        let result = done.recv_timeout(Duration::from_secs(20));
        assert_eq!(result, Ok(Err(Failure::Cancelled)));
    }
}

fn next_of(relay: &Relay, space: &AddressSpace, most: usize) -> Ask {
    loop {
        if let Some(ask) = relay.next(space, most) {
            return ask;
        }
    }
}

#[test]
fn a_client_that_says_nothing_is_given_five_seconds() {
    let (space, relay, map) = space();
    let start = Instant::now();
    scope(|s| {
        let worker = s.spawn(|| relay.turn().exchange(&map, Way::Pull, [stretch(BASE, 8)]));
        let ask = next(&relay, &space);
        assert_eq!(worker.join().unwrap(), Err(Failure::Silent));
        assert!(start.elapsed() >= vnet_dma::PATIENCE);
        // The answer comes after all, into nothing.
        relay.answered(&ask, Ok(&contents(&ask)));
    });
}
