// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The server is killed, again and again, and its client does not notice.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{options, own, round_trip};
use rustix::process::Signal;
use vnet_contract::regs;
use vnet_testkit::{Card, Nic, Server, LIMIT};

fn server(net: &str) -> Server {
    Server::start_with(net, &["--survive"]).unwrap()
}

/// A frame that the loopback gives back, with its number in it.
fn numbered(nic: &Nic, n: u32) -> Vec<u8> {
    let mut frame = own(nic, 80, 0);
    frame[14..18].copy_from_slice(&n.to_le_bytes());
    frame
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident pages of a process.
fn pages(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn no_frame_comes_twice_or_out_of_order_and_none_is_stuck() {
    let server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let killer = server.kill_workers(7, Duration::from_millis(80));
    let (mut sent, mut got) = (0, Vec::new());
    let end = Instant::now() + Duration::from_secs(if common::rounds(1) > 1 { 60 } else { 5 });
    while Instant::now() < end {
        for _ in 0..16 {
            let frame = numbered(&nic, sent);
            nic.send(0, &frame).unwrap();
            sent += 1;
        }
        while let Some(back) = nic.try_receive(0).unwrap() {
            got.push(back.frame);
        }
    }
    let kills = killer.stop().unwrap();
    nic.drain(0).unwrap();
    while let Some(back) = nic.receive(0, Duration::from_millis(50)).unwrap() {
        got.push(back.frame);
    }
    let numbers: Vec<_> = got
        .iter()
        .map(|frame| u32::from_le_bytes(frame[14..18].try_into().unwrap()))
        .collect();
    assert!(numbers.windows(2).all(|w| w[0] < w[1]));
    for (bytes, n) in got.iter().zip(&numbers) {
        assert_eq!(*bytes, numbered(&nic, *n));
    }
    // What waits in the loopback is lost with it; never a whole second's worth of frames.
    assert!(kills > 20, "{kills}");
    assert!(got.len() > sent as usize / 4, "{} of {sent}", got.len());
    round_trip(&mut nic, 0, 2);
    assert_eq!(nic.card.queue_error(0).unwrap(), None);
    assert_eq!(nic.card.queue_error(1).unwrap(), None);
}

#[test]
fn every_request_is_answered_once() {
    let server = server("null");
    let mut card = server.card().unwrap();
    let killer = server.kill_workers(11, Duration::from_millis(30));
    let end = Instant::now() + Duration::from_secs(if common::rounds(1) > 1 { 60 } else { 4 });
    let mut n = 0;
    while Instant::now() < end || n < 1000 {
        // The client checks the id of each answer.
        let mtu = 1400 + n % 100;
        card.set_reg(regs::MTU, mtu).unwrap();
        card.doorbell(0, 0).unwrap();
        assert_eq!(card.reg(regs::MTU).unwrap(), mtu);
        n += 1;
    }
    assert!(killer.stop().unwrap() > 20);
}

#[test]
fn interrupts_and_memory_stay_with_the_card() {
    let server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    for n in 0..10 {
        server.kill_worker().unwrap();
        // With interrupts: this waits for them.
        round_trip(&mut nic, 0, n);
        nic.renew_vectors().unwrap();
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, n);
    }
}

#[test]
fn the_holder_does_not_grow() {
    let server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    let holder = server.process.id();
    let mut before = None;
    for n in 0..30 {
        round_trip(&mut nic, 0, n);
        nic.renew_vectors().unwrap();
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, n);
        let now = (descriptors(holder), pages(holder));
        if n == 5 {
            before = Some(now);
        }
    }
    let (fds, memory) = before.unwrap();
    assert_eq!(descriptors(holder), fds);
    assert!(pages(holder) <= memory + 64, "{} {memory}", pages(holder));
    // The next client begins anew, whoever serves it.
    drop(nic);
    for _ in 0..3 {
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, 1);
        drop(nic);
        server.kill_worker().unwrap();
    }
    assert!(descriptors(holder) <= fds);
}

#[test]
fn a_card_that_nobody_uses_survives_as_well() {
    let server = server("null");
    for _ in 0..3 {
        server.kill_worker().unwrap();
    }
    let mut card = Card::connect(server.socket()).unwrap();
    assert_eq!(card.reg(regs::ID).unwrap(), regs::ID_VALUE);
}

#[test]
fn a_new_version_takes_over_in_order() {
    let mut server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    for n in 0..10 {
        let before = server.worker().unwrap();
        server.process.signal(Signal::USR2).unwrap();
        let end = Instant::now() + LIMIT;
        while server
            .worker()
            .unwrap()
            .is_none_or(|now| Some(now) == before)
        {
            assert!(Instant::now() < end);
            // Frames go on moving meanwhile.
            let frame = numbered(&nic, n);
            nic.send(0, &frame).unwrap();
            nic.try_receive(0).unwrap();
        }
        nic.drain(0).unwrap();
        while nic.receive(0, Duration::ZERO).unwrap().is_some() {}
    }
    drop(nic);
    let said = server.end().unwrap();
    assert!(!said.contains("died"), "{said}");
}

#[test]
fn it_ends_as_any_server_does() {
    let mut server = server("loopback");
    let nic = server.nic_with(options()).unwrap();
    let worker = server.worker().unwrap().unwrap();
    server.end().unwrap();
    assert!(!server.socket().exists());
    assert!(!PathBuf::from(format!("/proc/{worker}")).exists());
    drop(nic);
}

#[test]
fn a_worker_ends_with_its_holder() {
    let mut server = server("null");
    let worker = server.worker().unwrap().unwrap();
    server.process.signal(Signal::KILL).unwrap();
    server.process.wait().unwrap();
    let end = Instant::now() + LIMIT;
    // A zombie that nobody waits for has no program any more.
    while fs::read_link(format!("/proc/{worker}/exe")).is_ok() {
        assert!(Instant::now() < end, "the worker goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}
