// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Many cards in one process, from a configuration.
#![allow(missing_docs)]

mod common;

use std::fmt::Write;

use common::{options, round_trip};
use rustix::process::Signal;
use vnet_testkit::{command, Card, Cards, Process, Server};

/// So many cards of this kind, with sockets `0.sock` and so on.
fn loopbacks(count: usize) -> (String, Vec<String>) {
    let mut config = String::new();
    for n in 0..count {
        let card = format!("[[card]]\nsocket = \"@DIR@/{n}.sock\"\nnet = \"loopback\"\n");
        config.push_str(&card);
    }
    (config, (0..count).map(|n| format!("{n}.sock")).collect())
}

fn start(config: &str, sockets: &[String]) -> Cards {
    let sockets: Vec<_> = sockets.iter().map(String::as_str).collect();
    Cards::start(config, &sockets).unwrap()
}

#[test]
fn each_of_many_cards_carries_traffic() {
    let (config, sockets) = loopbacks(64);
    let mut cards = start(&config, &sockets);
    let nics = sockets.iter().map(|s| cards.nic(s, options()).unwrap());
    let mut nics: Vec<_> = nics.collect();
    for seed in 0..5 {
        for nic in &mut nics {
            round_trip(nic, 0, seed);
        }
    }
    let mut macs: Vec<_> = nics.iter().map(|nic| nic.mac).collect();
    macs.sort_unstable();
    macs.dedup();
    assert_eq!(macs.len(), sockets.len());
    cards.process.signal(Signal::TERM).unwrap();
    assert!(cards.process.wait().unwrap().success());
    assert_eq!(cards.process.stderr(), "", "quiet by default");
    for socket in &sockets {
        assert!(!cards.path(socket).exists());
    }
}

#[test]
fn a_client_that_cannot_work_costs_nobody_else_anything() {
    let (mut config, sockets) = loopbacks(2);
    config = config.replacen("[[card]]", "[[card]]\nsanitize = \"report\"", 1);
    let mut cards = start(&config, &sockets);
    let mut other = cards.nic("1.sock", options()).unwrap();
    round_trip(&mut other, 0, 1);

    // No descriptor comes with this memory, and rules cannot be watched by way of messages.
    let mut card = Card::connect(&cards.path("0.sock")).unwrap();
    card.set_bus_master(false).unwrap();
    let payload = Card::map_message(3, 0, 0, 0x1000_0000);
    card.wire.call(command::DMA_MAP, &payload, &[]).unwrap();
    let _ = card.set_bus_master(true);
    let end = std::time::Instant::now() + vnet_testkit::LIMIT;
    while !card.wire.is_closed() {
        assert!(std::time::Instant::now() < end, "is not hung up on");
    }
    wait_for_lines(
        &mut cards.process,
        "card 0: client: does not share its memory",
        1,
    );

    round_trip(&mut other, 0, 2);
    // And the next one is served.
    let mut next = cards.nic("0.sock", options()).unwrap();
    round_trip(&mut next, 0, 3);
}

#[test]
fn a_configuration_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vnetd.toml");
    let run = |first: &str, text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Server::command();
        let output = command.arg(first).arg(&file).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text, output.stdout)
    };
    let name = file.display().to_string();
    let text = "[[card]]\nsocket = \"/nonexistent/s\"\nnet = \"null\"\n";
    let wrong = text.replace("net", "nett");
    let due = format!("vnetd: {name}:3: unknown key nett; did you mean net?\n");
    for first in ["check", "--config"] {
        assert_eq!(run(first, &wrong), (Some(1), due.clone(), Vec::new()));
    }
    // What can only be found out by trying is found out then.
    let (status, told, checked) = run("check", text);
    assert_eq!((status, told.as_str()), (Some(0), ""));
    assert_eq!(checked, b"card s: /nonexistent/s, null\n");
    let (status, told, _) = run("--config", text);
    assert_eq!(status, Some(1));
    assert!(
        told.starts_with("vnetd: card s: socket /nonexistent/s: "),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
    // The path of one that could be goes with it.
    let good = format!(
        "[[card]]\nsocket = \"{}/a\"\nnet = \"null\"\n",
        dir.path().display()
    );
    assert_eq!(run("--config", &format!("{good}{text}")).0, Some(1));
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "beside the configuration");
}

#[test]
fn lines_of_the_log_name_the_card() {
    let mut config = String::from("log = \"info\"\n");
    let (cards, sockets) = loopbacks(2);
    writeln!(config, "{cards}").unwrap();
    let mut cards = start(&config, &sockets);
    wait_for_lines(&mut cards.process, "card{name=\"1\"}: listening on", 1);
}

#[test]
fn files_of_faults_are_read_again_for_all_cards() {
    let (config, sockets) = loopbacks(2);
    let config = config.replace("net =", "faults = \"@DIR@/faults\"\nnet =");
    let dir = tempfile::tempdir().unwrap();
    let faults = dir.path().join("faults");
    std::fs::write(&faults, "").unwrap();
    let config = config.replace("@DIR@/faults", faults.to_str().unwrap());
    let mut cards = start(&format!("log = \"info\"\n{config}"), &sockets);
    std::fs::write(&faults, "stall").unwrap();
    cards.process.signal(Signal::HUP).unwrap();
    wait_for_lines(&mut cards.process, "faults: read again", 2);
}

#[test]
fn without_files_of_faults_a_hangup_is_nothing_to_many_cards() {
    let (config, sockets) = loopbacks(2);
    let mut cards = start(&config, &sockets);
    cards.process.signal(Signal::HUP).unwrap();
    let mut nic = cards.nic("0.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    assert!(cards.process.is_running());
}

#[test]
fn without_a_file_of_faults_a_hangup_ends_a_vnetd_of_one_card() {
    let mut server = Server::start("loopback").unwrap();
    server.process.signal(Signal::HUP).unwrap();
    assert!(server.process.wait().unwrap().success());
}

fn wait_for_lines(process: &mut Process, part: &str, count: usize) {
    let end = std::time::Instant::now() + vnet_testkit::LIMIT;
    while process.stderr().matches(part).count() < count {
        assert!(process.is_running() && std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
