// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A vnetd with a file of faults.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vnet_contract::regs;
use vnet_testkit::{Server, LIMIT};

fn server(file: &Path) -> Server {
    let args = ["--faults", file.to_str().unwrap(), "--log", "info"];
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
