// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A vnetd with a file of faults.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{options, own, round_trip, silence};
use rustix::process::Signal;
use vnet_contract::hdr::NetHdr;
use vnet_contract::{queue, regs};
use vnet_testkit::{Error, Nic, Options, Server, LIMIT, QUIET};

fn server(file: &Path) -> Server {
    let file = file.to_str().unwrap();
    // Without an address of its own each card has another one, and so other frames.
    let mac = "02:00:5e:00:53:01";
    let args = ["--faults", file, "--log", "info", "--mac", mac];
    Server::start_with("loopback", &args).unwrap()
}

#[test]
fn the_file_is_read_at_the_start_and_at_every_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    fs::write(&file, "register-ones").unwrap();
    let mut server = server(&file);
    let mut card = server.card().unwrap();
    let mut reads = |value: u32| {
        let end = Instant::now() + LIMIT;
        while card.reg(regs::ID).unwrap() != value {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    reads(u32::MAX);
    fs::write(&file, "# nothing").unwrap();
    server.process.signal(Signal::HUP).unwrap();
    reads(regs::ID_VALUE);
    // A file that cannot be read changes nothing.
    fs::write(&file, "register-ones every=0").unwrap();
    server.process.signal(Signal::HUP).unwrap();
    let end = Instant::now() + LIMIT;
    let said = "line 1, every: a number above 0 is needed";
    while !server.process.stderr().contains(said) {
        assert!(Instant::now() < end, "{}", server.process.stderr());
        std::thread::sleep(Duration::from_millis(2));
    }
    reads(regs::ID_VALUE);
    fs::write(&file, "register-ones").unwrap();
    server.process.signal(Signal::HUP).unwrap();
    reads(u32::MAX);
    let log = server.end().unwrap();
    assert!(log.contains("fault in line 1, register-ones: "), "{log}");
}

#[test]
fn a_file_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    for (text, part) in [
        (None, "faults"),
        (Some("stall\nflood"), "line 2, flood: no such fault"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let socket = dir.path().join("s");
        let output = Server::command()
            .args(["--socket", socket.to_str().unwrap()])
            .args(["--faults", file.to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(part) && text.lines().count() == 1, "{text}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    }
}

/// Has the file read again, and waits for it.
fn reload(server: &mut Server, file: &Path, plan: &str) {
    let said = |server: &Server| server.process.stderr().matches("read again").count();
    let before = said(server);
    fs::write(file, plan).unwrap();
    server.process.signal(Signal::HUP).unwrap();
    let end = Instant::now() + LIMIT;
    while said(server) == before {
        assert!(Instant::now() < end, "{}", server.process.stderr());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(nic: &mut Nic, count: u64) {
    for seed in 0..count {
        let frame = own(nic, 100, seed);
        nic.send(0, &frame).unwrap();
    }
}

/// What the card writes to memory by message goes wrong as well, what it takes from there, and when.
#[test]
fn memory_that_is_not_shared_makes_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    fs::write(&file, "").unwrap();
    let mut server = server(&file);
    let unshared = Options {
        shared: false,
        ..options()
    };
    let mut nic = server.nic_with(unshared).unwrap();
    round_trip(&mut nic, 0, 1);

    reload(&mut server, &file, "frame-lost queue=rx0 every=2");
    send(&mut nic, 10);
    for seed in [0, 2, 4, 6, 8] {
        assert_eq!(nic.expect(0).unwrap().frame, own(&nic, 100, seed));
    }
    silence(&mut nic, 0);

    for (plan, frames) in [
        ("used-id-range queue=tx0 at=2", 4),
        ("used-id-range queue=rx0 at=2", 4),
        ("used-len-long queue=rx0 at=2", 4),
        // It jumps until the next batch.
        ("used-index queue=tx0 at=1", 1),
        ("used-index queue=rx0 at=1", 1),
    ] {
        reload(&mut server, &file, plan);
        send(&mut nic, frames);
        let end = Instant::now() + LIMIT;
        loop {
            match nic.poll(0) {
                Err(Error::Card(_)) => break,
                other => other.unwrap(),
            }
            assert!(Instant::now() < end, "{plan}: the driver saw nothing");
        }
        nic.restart().unwrap();
        round_trip(&mut nic, 0, 2);
    }

    reload(&mut server, &file, "dma-error queue=rx0 at=1");
    send(&mut nic, 1);
    let error = nic.card.wait_queue_error(queue::rx_index(0)).unwrap();
    assert_eq!(error, queue::Error::BufferFault);
    nic.restart().unwrap();

    reload(&mut server, &file, "stall queue=tx0 at=1 delay=50ms");
    round_trip(&mut nic, 0, 3);
    reload(&mut server, &file, "stop-fetching queue=tx0");
    send(&mut nic, 1);
    silence(&mut nic, 0);
    reload(&mut server, &file, "");
    assert_eq!(nic.expect(0).unwrap().frame, own(&nic, 100, 0));
    reload(&mut server, &file, "lost-interrupt");
    assert!(nic.arm(0).unwrap());
    for vector in &nic.vectors {
        vector.take();
    }
    send(&mut nic, 1);
    let end = Instant::now() + LIMIT;
    while nic.try_receive(0).unwrap().is_none() {
        assert!(Instant::now() < end);
    }
    assert!(!nic.vectors[0].wait(QUIET).unwrap());

    reload(&mut server, &file, "");
    round_trip(&mut nic, 0, 4);
    let log = server.end().unwrap();
    assert!(!log.contains(": 0 of "), "{log}");
}

/// What a driver that always does the same comes to see: registers, frames, and how often the server
/// says that it did what.
#[derive(Debug, PartialEq)]
struct Course {
    registers: Vec<u32>,
    frames: Vec<Vec<u8>>,
    report: Vec<String>,
}

/// `window`: how many frames the driver sends before it looks what came back.
fn course(plan: &str, window: u64) -> Course {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    fs::write(&file, "").unwrap();
    let mut server = server(&file);
    let mut nic = server.nic_with(options()).unwrap();
    // From here on all events are the driver's.
    reload(&mut server, &file, plan);
    let read = |_| nic.card.reg(regs::MTU).unwrap();
    let registers = (0..100).map(read).collect();
    let mut frames = Vec::new();
    for first in (0..300).step_by(window as usize) {
        for seed in first..300.min(first + window) {
            let frame = own(&nic, 60 + seed as usize, seed);
            nic.queue(0, NetHdr::default(), &frame).unwrap();
        }
        nic.flush(0).unwrap();
        // Of one, none, one or two come; how soon makes no difference.
        while let Some(back) = nic.receive(0, Duration::from_millis(1)).unwrap() {
            frames.push(back.frame);
        }
    }
    // A worker may have to wait for its turn, and what comes last is not known.
    nic.drain(0).unwrap();
    while let Some(back) = nic.receive(0, 5 * QUIET).unwrap() {
        frames.push(back.frame);
    }
    let log = server.end().unwrap();
    let report = log.lines().filter_map(|line| line.split_once("fault in "));
    Course {
        registers,
        frames,
        report: report.map(|(_, what)| what.to_owned()).collect(),
    }
}

#[test]
fn a_plan_with_a_seed_takes_the_same_course_again() {
    let plan = "seed=7
        register-flip   rate=1/3
        frame-lost      rate=1/9  queue=tx0
        frame-truncated rate=1/8  queue=tx
        frame-corrupt   rate=1/4  queue=rx0
        frame-corrupt   rate=1/5  queue=rx
        frame-duplicated rate=1/7 queue=rx count=20
        frame-reordered rate=2/11 queue=rx
        frame-lost      every=40  queue=rx";
    let first = course(plan, 1);
    assert_eq!(first.report.len(), 8);
    for fault in &first.report {
        assert!(!fault.contains(": 0 of "), "{fault}");
    }
    assert_eq!(first, course(plan, 1));
    // Nor does it matter how many go at once: more than a batch has room for.
    assert_eq!(first, course(plan, 150));
    let other = course(&plan.replace("seed=7", "seed=8"), 1);
    assert_ne!(first.registers, other.registers);
    assert_ne!(first.frames, other.frames);
    assert_ne!(first.report, other.report);
}

/// As docs/faults.md says.
#[test]
fn the_next_process_begins_the_plan_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    fs::write(&file, "register-ones at=5 count=1").unwrap();
    let args = ["--survive", "--faults", file.to_str().unwrap()];
    let server = Server::start_with("null", &args).unwrap();
    let mut card = server.card().unwrap();
    for _ in 0..3 {
        let read = [(); 7].map(|()| card.reg(regs::ID).unwrap());
        let mut due = [regs::ID_VALUE; 7];
        due[4] = u32::MAX;
        assert_eq!(read, due);
        server.kill_worker().unwrap();
    }
}
