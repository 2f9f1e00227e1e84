// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The server is killed, again and again, and its client does not notice.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{options, own, round_trip};
use rustix::net::{shutdown, Shutdown};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, PipeFlags};
use rustix::process::{
    getpgid, kill_process, pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags, Signal,
};
use vnet_contract::{pci, regs};
use vnet_testkit::{region, Card, Nic, Server, LIMIT};

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
    while killer.goes_on(end, 20) {
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
    // Nothing is lost any more: this one comes last.
    nic.drain(0).unwrap();
    let last = numbered(&nic, sent);
    nic.send(0, &last).unwrap();
    while got.last() != Some(&last) {
        got.push(nic.expect(0).unwrap().frame);
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
    while killer.goes_on(end, 20) || n < 1000 {
        // The client checks the id of each answer.
        let mtu = 1400 + n % 100;
        card.set_reg(regs::MTU, mtu).unwrap();
        card.doorbell(0, 0).unwrap();
        assert_eq!(card.reg(regs::MTU).unwrap(), mtu);
        n += 1;
    }
    assert!(killer.stop().unwrap() > 20);
}

/// The holder goes on while some of them serve.
#[test]
fn workers_may_be_killed_before_they_serve() {
    let server = server("null");
    let mut card = server.card().unwrap();
    let killer = server.kill_workers(19, Duration::from_micros(100));
    while killer.goes_on(Instant::now(), 40) {
        assert_eq!(card.reg(regs::ID).unwrap(), regs::ID_VALUE);
    }
    assert!(killer.stop().unwrap() > 40);
}

#[test]
fn so_is_every_long_one() {
    let server = server("null");
    let mut card = server.card().unwrap();
    let killer = server.kill_workers(13, Duration::from_millis(30));
    let end = Instant::now() + Duration::from_secs(if common::rounds(1) > 1 { 60 } else { 4 });
    // An access of that width does nothing but count as illegal. What it is about are its bytes,
    // which would be read as messages if only some were taken out of the socket.
    let mut bytes = vec![0; pci::BAR_REGS_SIZE as usize];
    let mut n = 0;
    while killer.goes_on(end, 20) || n < 1000 {
        card.write(region::BAR0, 0, &bytes).unwrap();
        card.post(region::BAR0, 0, &bytes).unwrap();
        card.read(region::BAR0, 0, &mut bytes).unwrap();
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
    let (mut fds, mut memory) = (0, 0);
    for n in 0..30 {
        round_trip(&mut nic, 0, n);
        nic.renew_vectors().unwrap();
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, n);
        // With nobody who is just being started.
        until(|| server.standby().unwrap().is_some());
        // The most of some: the holder may not have seen to the one that stands by.
        if (5..10).contains(&n) {
            fds = fds.max(descriptors(holder));
            memory = memory.max(pages(holder));
        }
    }
    until(|| descriptors(holder) <= fds);
    assert!(pages(holder) <= memory + 64, "{} {memory}", pages(holder));
    // The next client begins anew, whoever serves it.
    drop(nic);
    for _ in 0..3 {
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, 1);
        drop(nic);
        server.kill_worker().unwrap();
    }
    until(|| descriptors(holder) <= fds);
}

/// More often than crashes may follow one another: each of these workers has served.
#[test]
fn a_worker_may_crash() {
    let mut server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    for n in 0..30 {
        server.crash_worker().unwrap();
        round_trip(&mut nic, 0, n);
        thread::sleep(Duration::from_millis(25));
    }
    drop(nic);
    let said = server.end().unwrap();
    assert_eq!(said.matches("worker died (signal: 6").count(), 30, "{said}");
}

/// With one as large as the guest, its client would not wait for the next worker.
#[test]
fn a_crash_leaves_no_core() {
    let read = |pid: u32, what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap();
    // Anonymous memory of a process may be in one, what it shares with others may not: core(5).
    let of_guests = |pid| {
        let filter = read(pid, "coredump_filter");
        u32::from_str_radix(filter.trim_end(), 16).unwrap() & 0b1_0100_1010
    };
    let alone = Server::start("loopback").unwrap();
    assert_eq!(of_guests(alone.process.id()), 0);
    let surviving = server("loopback");
    until(|| surviving.standby().unwrap().is_some());
    for pid in [surviving.worker(), surviving.standby()] {
        let pid = pid.unwrap().unwrap();
        assert_eq!(of_guests(pid), 0);
        let limits = read(pid, "limits");
        let mut core = limits
            .lines()
            .filter_map(|line| line.strip_prefix("Max core file size"));
        let (soft, hard) = core.next().unwrap().trim_start().split_once(' ').unwrap();
        // One is what a program hears that takes cores. Where none is the most there can be, it is zero.
        assert!(
            soft == "1" || hard.trim_start().starts_with('0'),
            "{limits}"
        );
    }
}

/// A process that ends with its test.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // Fails if it has ended, which is just as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As with `vnetd 2>&1 | head`.
#[test]
fn a_card_whose_log_nobody_reads_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let holder = Server::command()
        .args(["--net", "loopback", "--survive", "--log", "info"])
        .args(["--sanitize", "strict", "--socket"])
        .arg(&socket)
        .stderr(Stdio::piped())
        .spawn();
    let mut holder = Own(holder.unwrap());
    drop(holder.0.stderr.take());
    until(|| socket.exists());
    let mut card = Card::connect(&socket).unwrap();
    for mtu in 1400..1405 {
        card.set_reg(regs::MTU, mtu).unwrap();
        let worker = child(holder.0.id(), "vnetd-worker\n");
        kill_process(worker.and_then(Pid::from_raw).unwrap(), Signal::KILL).unwrap();
        assert_eq!(card.reg(regs::MTU).unwrap(), mtu);
    }
    drop(card);
    kill_process(Pid::from_child(&holder.0), Signal::TERM).unwrap();
    assert!(holder.0.wait().unwrap().success());
}

/// A server whose log is full from the start: to write one line more is to wait. And what reads the log.
fn unread(args: &[&str], socket: &Path) -> (Own, fs::File) {
    // Not for the servers that other tests start meanwhile.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut writer = fs::File::from(writer);
    let room = fcntl_setpipe_size(&writer, 4096).unwrap();
    writer.write_all(&vec![b'.'; room]).unwrap();
    let child = Server::command()
        .args(["--net", "loopback", "--log", "debug", "--socket"])
        .arg(socket)
        .args(args)
        .stderr(writer)
        .spawn();
    let child = Own(child.unwrap());
    until(|| socket.exists());
    (child, reader.into())
}

/// As with `vnetd 2>&1 | less`.
#[test]
fn a_card_whose_log_is_not_read_goes_on() {
    for more in [&[][..], &["--survive"]] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let (mut child, mut reader) = unread(more, &socket);
        let mut card = Card::connect(&socket).unwrap();
        // Of each there is a line, and there is no room for that many.
        for _ in 0..1500 {
            card.reset().unwrap();
        }
        let (sender, chunks) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
                sender.send(text).unwrap();
            }
        });
        let mut text = String::new();
        while !text.contains("lines of this log are lost") {
            text += &chunks.recv_timeout(LIMIT).unwrap();
        }
        // It goes on with what comes after them.
        drop(card);
        while !text.contains("INFO client disconnected") {
            text += &chunks.recv_timeout(LIMIT).unwrap();
        }
        kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
        assert!(child.0.wait().unwrap().success());
        chunks.iter().for_each(drop);
    }
}

/// Who ends otherwise gives those who read the log half a second.
#[test]
fn a_log_that_is_not_read_holds_up_no_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let (holder, _reader) = unread(&["--survive"], &socket);
    let worker = || child(holder.0.id(), "vnetd-worker\n");
    let mut card = Card::connect(&socket).unwrap();
    let mut upgrade = || {
        let before = worker();
        kill_process(Pid::from_child(&holder.0), Signal::USR2).unwrap();
        let mut longest = Duration::ZERO;
        let end = Instant::now() + LIMIT;
        while worker().is_none_or(|now| Some(now) == before) {
            let start = Instant::now();
            assert!(start < end);
            card.reg(regs::MTU).unwrap();
            longest = longest.max(start.elapsed());
        }
        longest
    };
    // One of them that takes long may have had to wait for its turn.
    let shortest = (0..5).map(|_| upgrade()).min().unwrap();
    assert!(shortest < Duration::from_millis(400), "{shortest:?}");
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

/// Waits for something of the server.
fn until(mut there: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !there() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Puts a file in the place of another one.
fn replace(path: &Path, mode: u32, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_new_version_that_does_not_run_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vnetd");
    let good = fs::read(Server::command().get_program()).unwrap();
    replace(&path, 0o755, &good);
    let mut server = Server::run(Command::new(&path), "loopback", &["--survive"]).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let mut foreign = good.clone();
    // The machine in the ELF header.
    foreign[0x12] ^= 0xff;
    let cut = &good[..0x1_0000];
    let bad: [(&str, u32, &[u8]); 9] = [
        ("empty", 0o755, &[]),
        ("cut off", 0o755, cut),
        ("cut off within its header", 0o755, &good[..40]),
        ("for another machine", 0o755, &foreign),
        ("not executable", 0o644, &good),
        ("no program", 0o755, b"\x00\x01\x02"),
        ("a script without an interpreter", 0o755, b"#!/no/such\n"),
        ("another program", 0o755, b"#!/bin/sh\nexit 0\n"),
        ("missing", 0, &[]),
    ];
    let declined = |server: &Server| server.process.stderr().matches("does not run").count();
    for (n, (what, mode, bytes)) in bad.into_iter().enumerate() {
        match what {
            "missing" => fs::remove_file(&path).unwrap(),
            _ => replace(&path, mode, bytes),
        }
        let worker = server.worker().unwrap();
        server.process.signal(Signal::USR2).unwrap();
        until(|| declined(&server) == n + 1);
        round_trip(&mut nic, 0, n as u64);
        assert_eq!(server.worker().unwrap(), worker, "{what}");
        // Nor does it matter when the worker dies, which runs what did before.
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, n as u64);
    }
    replace(&path, 0o755, &good);
    let inode = fs::metadata(&path).unwrap().ino();
    server.process.signal(Signal::USR2).unwrap();
    until(|| {
        let worker = server.worker().unwrap();
        let program = worker.map(|pid| fs::metadata(format!("/proc/{pid}/exe")));
        program.is_some_and(|program| program.is_ok_and(|p| p.ino() == inode))
    });
    round_trip(&mut nic, 0, 1);
    server.kill_worker().unwrap();
    round_trip(&mut nic, 0, 2);
    drop(nic);
    server.end().unwrap();
}

/// Stops the worker where it is.
fn stop(server: &Server) -> u32 {
    let worker = server.worker().unwrap().unwrap();
    let pid = Pid::from_raw(worker as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let status = format!("/proc/{worker}/status");
    until(|| fs::read_to_string(&status).unwrap().contains("(stopped)"));
    worker
}

#[test]
fn a_worker_that_hangs_holds_nobody_up() {
    let mut server = Server::start_with("loopback", &["--survive", "--log", "info"]).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let hung = stop(&server);
    server.process.signal(Signal::USR2).unwrap();
    round_trip(&mut nic, 0, 1);
    assert_ne!(server.worker().unwrap(), Some(hung));
    // A worker may serve before it has said that it does.
    until(|| server.process.stderr().contains(" ms"));
    stop(&server);
    server.process.signal(Signal::TERM).unwrap();
    server.process.wait().unwrap();
    let log = server.process.stderr();
    assert!(log.contains("hangs"));
    // All of the second that it had.
    let (_, pause) = log.split_once("worker goes on after ").unwrap();
    let (pause, _) = pause.split_once(" ms").unwrap();
    assert!(pause.parse::<f64>().unwrap() >= 1000.0, "{pause} ms");
}

#[test]
fn nor_does_one_that_hangs_up_and_goes_on() {
    let mut server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let worker = stop(&server);
    // Its line to the holder.
    let pid = Pid::from_raw(worker as i32).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let line = match pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()) {
        Ok(line) => line,
        // As in many containers. Past the harness, which keeps what the macros write.
        Err(e) => {
            let line = "SKIPPED nor_does_one_that_hangs_up_and_goes_on";
            let _ = writeln!(std::io::stderr(), "{line}: {e}");
            return;
        }
    };
    shutdown(&line, Shutdown::Both).unwrap();
    round_trip(&mut nic, 0, 2);
    assert_ne!(server.worker().unwrap(), Some(worker));
    server.end().unwrap();
}

/// As a service that is stopped while it is upgraded, or the other way round.
#[test]
fn an_upgrade_does_not_keep_it_from_ending() {
    for signals in [[Signal::USR2, Signal::TERM], [Signal::TERM, Signal::USR2]] {
        let mut server = server("loopback");
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, 1);
        until(|| server.standby().unwrap().is_some());
        let standby = server.standby().unwrap();
        let worker = stop(&server);
        for signal in signals {
            server.process.signal(signal).unwrap();
            let end = Instant::now() + LIMIT / 20;
            // The end is passed on at once, and the new program has reported in when it stands by. It does
            // not where it is too late for that.
            let pending = format!("ShdPnd:\t{:016x}\n", 1 << (Signal::TERM.as_raw() - 1));
            let status = || fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
            let heard = || match signal {
                Signal::TERM => status().contains(&pending),
                _ => ![None, standby].contains(&server.standby().unwrap()),
            };
            while !heard() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        kill_process(Pid::from_raw(worker as i32).unwrap(), Signal::CONT).unwrap();
        let status = server.process.wait().unwrap();
        assert!(status.success(), "{}", server.process.stderr());
    }
}

#[test]
fn a_worker_that_is_not_ready_yet_ends_as_any_other() {
    let mut server = Server::start_with("null", &["--survive", "--sanitize=strict"]).unwrap();
    let mut card = server.card().unwrap();
    card.reg(0x3ffc).unwrap();
    until(|| server.standby().unwrap().is_some());
    let next = Pid::from_raw(server.standby().unwrap().unwrap() as i32).unwrap();
    kill_process(next, Signal::STOP).unwrap();
    let worker = server.worker().unwrap().unwrap();
    kill_process(Pid::from_raw(worker as i32).unwrap(), Signal::KILL).unwrap();
    until(|| name_of(worker as i32).is_none());
    server.process.signal(Signal::TERM).unwrap();
    // The holder has heard of it: it asks nothing else of who stands by.
    thread::sleep(Duration::from_millis(100));
    kill_process(next, Signal::CONT).unwrap();
    let status = server.process.wait().unwrap();
    let text = server.process.stderr();
    assert_eq!(status.code(), Some(3), "{text}");
    assert!(text.contains("register-unknown, 1 times"), "{text}");
}

/// The first child of a process that calls itself so.
fn child(of: u32, name: &str) -> Option<i32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
    let mut pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid| name_of(*pid).as_deref() == Some(name))
}

/// Name of a process, if there is one.
fn name_of(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

/// As a control group does that has no memory for it.
#[test]
fn a_card_whose_workers_are_all_killed_before_they_serve_is_given_up() {
    let mut server = server("null");
    let holder = server.process.id();
    let children = format!("/proc/{holder}/task/{holder}/children");
    // One that is quicker than this loop, which shares its CPU, has the holder count anew.
    let end = Instant::now() + 3 * LIMIT;
    while server.process.is_running() {
        assert!(Instant::now() < end, "it starts one worker after the other");
        let list = fs::read_to_string(&children).unwrap_or_default();
        for pid in list.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // AddressSanitizer has a child of its own, of the same name, that looks for leaks at the end.
            if name_of(pid) != name_of(holder as i32) {
                // One that is gone by now cannot be killed.
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
    assert!(!server.process.wait().unwrap().success());
}

#[test]
fn a_process_that_stands_by_may_die() {
    let server = server("loopback");
    let mut nic = server.nic_with(options()).unwrap();
    for n in 0..3 {
        until(|| server.standby().unwrap().is_some());
        server.kill_standby().unwrap();
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, n);
    }
}

#[test]
fn a_plan_of_faults_that_has_become_bad_does_not_end_the_card() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("faults");
    fs::write(&path, "frame-lost queue=tx at=1000000").unwrap();
    let args = ["--survive", "--faults", path.to_str().unwrap()];
    let server = Server::start_with("loopback", &args).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    for text in ["no-such-fault", ""] {
        round_trip(&mut nic, 0, 1);
        fs::write(&path, text).unwrap();
        server.kill_worker().unwrap();
        round_trip(&mut nic, 0, 2);
    }
    fs::remove_file(&path).unwrap();
    server.kill_worker().unwrap();
    round_trip(&mut nic, 0, 3);
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

/// As `pkill -USR2 vnetd` and a service manager do.
#[test]
fn a_signal_to_all_processes_is_as_good_as_one_to_the_holder() {
    let mut server = Server::start_with("loopback", &["--survive", "--sanitize=strict"]).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    until(|| server.standby().unwrap().is_some());
    let pid = |id: u32| Pid::from_raw(id as i32).unwrap();
    let holder = pid(server.process.id());
    let worker = pid(server.worker().unwrap().unwrap());
    let standby = pid(server.standby().unwrap().unwrap());
    for other in [worker, standby] {
        assert_ne!(
            getpgid(Some(other)).unwrap(),
            getpgid(Some(holder)).unwrap()
        );
        kill_process(other, Signal::USR2).unwrap();
    }
    round_trip(&mut nic, 0, 1);
    assert_eq!(server.worker().unwrap().map(pid), Some(worker));
    assert_eq!(server.standby().unwrap().map(pid), Some(standby));

    nic.card.reg(0x3ffc).unwrap();
    // The holder ends when the worker has, and its standby with it.
    for process in [standby, worker, holder] {
        kill_process(process, Signal::TERM).unwrap();
    }
    let status = server.process.wait().unwrap();
    let text = server.process.stderr();
    assert_eq!(status.code(), Some(3), "{text}");
    assert!(text.contains("register-unknown, 1 times"), "{text}");
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
        thread::sleep(Duration::from_millis(1));
    }
}
