// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The program: its arguments, its socket, its end.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::process::Output;

use common::{options, round_trip};
use rustix::process::Signal;
use vnet_contract::{features, regs};
use vnet_testkit::{command, Card, Process, Server};

fn run(args: &[&str]) -> Output {
    Server::command().args(args).output().unwrap()
}

/// Insists on one line on standard error that holds `part`, and on the exit status.
fn refused(output: &Output, status: i32, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(part), "{text}");
    assert!(output.stdout.is_empty());
    if status == 1 {
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("vnetd: "), "{text}");
    }
}

#[test]
fn arguments_that_cannot_be() {
    for (args, part) in [
        (&[][..], "--socket"),
        (&["--socket", "s", "--net", "pigeon"], "pigeon"),
        (&["--socket", "s", "--queues", "0"], "--queues"),
        (&["--socket", "s", "--queues", "17"], "--queues"),
        (&["--socket", "s", "--queues", "many"], "many"),
        (&["--socket", "s", "--mac", "1:2:3"], "--mac"),
        (&["--socket", "s", "--mac", "01:00:5e:00:00:01"], "--mac"),
        (&["--socket", "s", "--log", "loud"], "loud"),
        (&["--socket", "s", "--without", "wings"], "MRG_RXBUF"),
        (&["--socket", "s", "--frobnicate"], "--frobnicate"),
        (&["--socket", "s", "more"], "more"),
    ] {
        refused(&run(args), 2, part);
    }
    assert!(!std::path::Path::new("s").exists());
}

#[test]
fn help_names_every_argument() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for argument in [
        "--socket",
        "--net",
        "--mac",
        "--queues",
        "--without",
        "--log",
    ] {
        assert!(text.contains(argument), "{argument}:\n{text}");
    }
    assert!(run(&["--version"]).status.success());
}

#[test]
fn sockets_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", dir.path().display(), "x".repeat(200));
    for path in ["/nonexistent/socket", "/proc/socket", long.as_str()] {
        refused(&run(&["--net", "null", "--socket", path]), 1, "socket");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let path = file.to_str().unwrap();
    refused(&run(&["--net", "null", "--socket", path]), 1, path);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_backend_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let long = "a-name-that-is-too-long";
    let tap = format!("tap:name={long}");
    let args = ["--socket", socket.to_str().unwrap(), "--net", &tap];
    refused(&run(&args), 1, "longer than 15 bytes");
    assert!(!socket.exists());
}

/// Runs vnetd with a TAP in namespaces made with `options`, after the shell command `before`.
fn run_with_tap(options: &str, before: &str, name: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let output = std::process::Command::new("unshare")
        .args([options, "sh", "-c"])
        .arg(format!("{before} && exec \"$@\""))
        .arg("sh")
        .arg(Server::command().get_program())
        .arg("--socket")
        .arg(&socket)
        .arg("--net")
        .arg(format!("tap:name={name}"))
        .output()
        .unwrap();
    assert!(!socket.exists());
    output
}

#[test]
fn a_tap_that_cannot_be() {
    let namespaces = std::process::Command::new("unshare")
        .args(["-rnm", "sh", "-c", "test -w /dev/net/tun"])
        .status();
    if !namespaces.is_ok_and(|status| status.success()) {
        // Past the harness, which keeps what the macros write.
        let line = "SKIPPED a_tap_that_cannot_be: no namespaces, or no TAP in them";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    }
    let missing = run_with_tap("-rm", "mount -t tmpfs none /dev/net", "tap0");
    refused(&missing, 1, "is the tun module there?");
    // Root of a user namespace is nobody in the network namespace outside of it.
    let forbidden = run_with_tap("-U", "true", "vnet-test");
    refused(&forbidden, 1, "takes CAP_NET_ADMIN");
    let other = run_with_tap("-rn", "true", "lo");
    refused(&other, 1, "it exists and is no TAP");
}

#[test]
fn a_card_goes_without_what_is_withheld() {
    for names in ["RX_CSUM", "mrg_rxbuf,RSS,QUEUE_STATS", "ALL"] {
        for more in [&[][..], &["--survive"]] {
            let args = [&["--without", names][..], more].concat();
            let server = Server::start_with("loopback", &args).unwrap();
            let mut nic = server.nic_with(options()).unwrap();
            let offered = nic.card.reg64(regs::DEVICE_FEATURES_LO).unwrap();
            for feature in features::FEATURES {
                if names
                    .split(',')
                    .any(|n| feature.name.eq_ignore_ascii_case(n))
                {
                    assert_eq!(offered & (1 << feature.bit), 0, "{names}");
                }
            }
            assert_eq!(offered == 0, names == "ALL", "{names}");
            for seed in 0..20 {
                round_trip(&mut nic, 0, seed);
            }
        }
    }
}

#[test]
fn one_socket_serves_one_server() {
    let server = Server::start("loopback").unwrap();
    let path = server.socket().to_str().unwrap();
    refused(&run(&["--net", "null", "--socket", path]), 1, "in use");
    // The first one is none the worse for it, with a client or without.
    let mut nic = server.nic_with(options()).unwrap();
    refused(&run(&["--net", "null", "--socket", path]), 1, "in use");
    round_trip(&mut nic, 0, 1);
}

#[test]
fn a_stale_socket_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    let mut command = Server::command();
    command
        .arg("--socket")
        .arg(&path)
        .args(["--net", "loopback"]);
    let mut process = Process::start(&mut command).unwrap();
    let end = std::time::Instant::now() + vnet_testkit::LIMIT;
    // The old socket refuses until the new one is in its place.
    let mut card = loop {
        match Card::connect(&path) {
            Ok(card) => break card,
            Err(e) => assert!(std::time::Instant::now() < end, "{e}"),
        }
        assert!(process.is_running(), "{}", process.stderr());
    };
    assert_eq!(card.reg(regs::ID).unwrap(), regs::ID_VALUE);
}

#[test]
fn signals_end_it_and_the_socket_goes() {
    for signal in [Signal::TERM, Signal::INT] {
        for connected in [false, true] {
            let mut server = Server::start("loopback").unwrap();
            let mut nic = None;
            if connected {
                let nic = nic.insert(server.nic_with(options()).unwrap());
                round_trip(nic, 0, 1);
            }
            server.process.signal(signal).unwrap();
            let status = server.process.wait().unwrap();
            assert!(status.success(), "{signal:?}: {status}");
            assert_eq!(server.process.stderr(), "", "quiet by default");
            assert!(!server.socket().exists(), "{signal:?}: the socket stays");
            if let Some(mut nic) = nic {
                assert!(nic.card.wire.is_closed());
            }
        }
    }
}

#[test]
fn a_client_without_shared_memory_is_told_so() {
    // Which rules a driver breaks cannot be seen by way of messages.
    let mut server = Server::start_with("loopback", &["--sanitize", "report"]).unwrap();
    let mut card = server.card().unwrap();
    card.set_bus_master(false).unwrap();
    // QEMU with memory of its own sends no descriptor.
    let payload = Card::map_message(3, 0, 0, 0x1000_0000);
    card.wire.call(command::DMA_MAP, &payload, &[]).unwrap();
    // The server may be gone before it answers.
    let _ = card.set_bus_master(true);
    let status = server.process.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let text = server.process.stderr();
    let told = text.lines().filter(|line| line.contains("share=on"));
    assert_eq!(told.count(), 1, "{text}");
    assert!(!server.socket().exists());
}

#[test]
fn the_mac_address_is_the_one_asked_for_or_a_good_one() {
    let mac = "52:54:00:12:34:56";
    let server = Server::start_with("null", &["--mac", mac]).unwrap();
    let mut nic = server.nic().unwrap();
    assert_eq!(nic.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    let (lo, hi) = regs::mac_to_regs(nic.mac);
    assert_eq!(nic.card.reg(regs::PERM_MAC_LO).unwrap(), lo);
    assert_eq!(nic.card.reg(regs::PERM_MAC_HI).unwrap(), hi);

    let first = Server::start("null").unwrap();
    let second = Server::start("null").unwrap();
    let (a, b) = (first.nic().unwrap().mac, second.nic().unwrap().mac);
    assert_ne!(a, b, "two cards with one address");
    for mac in [a, b] {
        assert_eq!(mac[0] & 3, 2, "{mac:02x?} is not local and unicast");
    }
}
