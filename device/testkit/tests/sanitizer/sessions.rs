// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that keep the rules, and whom a finding is laid to.

use super::*;

#[test]
fn no_rule_was_forgotten() {
    let rules: Vec<_> = RULES
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    assert!(rules.len() > 30);
    let cases = concat!(
        include_str!("registers.rs"),
        include_str!("chains.rs"),
        include_str!("headers.rs"),
        include_str!("waits.rs"),
    );
    for rule in rules {
        assert!(cases.contains(&format!("\"{rule}\"")), "{rule}");
    }
}

#[test]
fn a_driver_that_keeps_the_rules() {
    for net in ["loopback", "gateway"] {
        let broken = judge(net, |server| {
            let options = Options {
                features: u64::MAX,
                ..Options::default()
            };
            let mut nic = server.nic_with(options).unwrap();
            for seed in 0..2000 {
                match net {
                    "loopback" => round_trip(&mut nic, 0, seed),
                    _ => nic.send(0, &own(&nic, 60, seed)).unwrap(),
                }
            }
            nic.drain(0).unwrap();
            while !nic.arm(0).unwrap() {}
            linger(&mut nic.card);
            nic.restart().unwrap();
            nic.stop(0).unwrap();
            nic.resume(0).unwrap();
            nic.drain(0).unwrap();
            while !nic.arm(0).unwrap() {}
            linger(&mut nic.card);
        });
        assert!(broken.is_empty(), "{net}: {broken:?}");
    }
}

#[test]
fn offloads_that_fit() {
    let broken = judge("null", |server| {
        let mut bench = Bench::new(server);
        bench.start(TX, NO_VECTOR);
        let (header, frame) = datagram(100);
        bench.send(header, &frame);
        let (header, frame) = datagram(3000);
        let header = NetHdr {
            gso_type: GSO_UDP_L4,
            gso_size: 1000,
            hdr_len: 42,
            ..header
        };
        bench.send(header, &frame);
    });
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn report_is_not_strict() {
    let mut server = Server::start_with("null", &["--sanitize=report"]).unwrap();
    server.card().unwrap().reg(0x3ffc).unwrap();
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(0));
    assert!(text.contains("register-unknown, 1 times"), "{text}");
}

#[test]
fn what_is_found_outlives_the_process_that_found_it() {
    let args = ["--survive", "--sanitize=strict"];
    let mut server = Server::start_with("null", &args).unwrap();
    let mut card = server.card().unwrap();
    server.kill_worker().unwrap();
    card.reg(0x3ffc).unwrap();
    card.reg(0x3ff8).unwrap();
    server.kill_worker().unwrap();
    card.set_reg(regs::MTU, 1).unwrap();
    // In order.
    let before = server.worker().unwrap();
    server.process.signal(Signal::USR2).unwrap();
    eventually(|| {
        server
            .worker()
            .unwrap()
            .is_some_and(|now| Some(now) != before)
    });
    card.reg(0x3ffc).unwrap();
    server.kill_worker().unwrap();
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(3), "{text}");
    for due in [
        "sanitizer: 2 rules were broken, 4 times in all",
        "sanitizer: register-unknown, 3 times, first: register-unknown: There is no register",
        "sanitizer: register-value, 1 times, first: register-value: ",
    ] {
        assert!(text.contains(due), "{text}");
    }
}

#[test]
fn a_driver_that_keeps_the_rules_does_when_the_server_is_killed() {
    let args = ["--survive", "--sanitize=strict", "--sanitize-patience=1"];
    let mut server = Server::start_with("loopback", &args).unwrap();
    let mut nic = server.nic().unwrap();
    for n in 0..20 {
        round_trip(&mut nic, 0, n);
        server.kill_worker().unwrap();
    }
    round_trip(&mut nic, 0, 1);
    linger(&mut nic.card);
    drop(nic);
    let (status, text) = server.finish().unwrap();
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("no rule was broken"), "{text}");
}

/// What looked at the rings has died, and something else looks on.
#[test]
fn rings_are_watched_by_the_next_process() {
    type Drive = fn(&mut Bench);
    let cases: [(&str, Drive); 3] = [
        ("chain-direction", |bench| {
            let at = bench.tx_buffer(0);
            bench.tx.desc(12, at, 100, DESC_F_WRITE, 0);
            bench.offer_bad(TX, 12);
        }),
        ("chain-reused", |bench| {
            bench.post(21);
            bench.post(21);
            bench.ring(RX);
            moment();
        }),
        ("buffer-changed", |bench| {
            bench.post(21);
            bench.ring(RX);
            moment();
            bench.ram.write(bench.rx_buffer(21), &[1]);
            moment();
        }),
    ];
    for (rule, drive) in cases {
        let args = ["--survive", "--sanitize=strict", "--queues=2"];
        let mut server = Server::start_with("loopback", &args).unwrap();
        let mut bench = Bench::new(&server);
        bench.start(RX, 0);
        bench.start(TX, NO_VECTOR);
        server.kill_worker().unwrap();
        drive(&mut bench);
        drop(bench);
        let (status, text) = server.finish().unwrap();
        assert_eq!(status, Some(3), "{text}");
        assert!(
            text.contains(&format!("sanitizer: {rule}, 1 times")),
            "{text}"
        );
    }
}

/// All but what was begun when the server died is found, and nothing twice.
#[test]
fn every_access_is_judged_once_when_the_server_is_killed() {
    let args = ["--survive", "--sanitize=strict"];
    let mut server = Server::start_with("null", &args).unwrap();
    let mut card = server.card().unwrap();
    let killer = server.kill_workers(17, Duration::from_millis(30));
    let end = Instant::now() + Duration::from_secs(3);
    let mut count = 0;
    while killer.goes_on(end, 20) {
        card.set_reg(regs::MTU, 1).unwrap();
        card.set_reg(regs::ID, 1).unwrap();
        card.reg(0x3ffc).unwrap();
        card.set_reg(regs::queue_reg(TX, regs::Q_CTRL), regs::Q_CTRL_ENABLE)
            .unwrap();
        count += 1;
    }
    let kills = killer.stop().unwrap();
    let (_, text) = server.finish().unwrap();
    assert!(kills > 20, "{kills}");
    for rule in [
        "register-value",
        "register-read-only",
        "register-unknown",
        "queue-setup",
    ] {
        let found = text.lines().find_map(|line| {
            let rest = line.strip_prefix(&format!("sanitizer: {rule}, "))?;
            rest.split_once(" times")?.0.parse().ok()
        });
        let found: u32 = found.expect(&text);
        assert!(
            (count - kills..=count).contains(&found),
            "{rule}: {found} of {count}, {kills} kills"
        );
    }
}

#[test]
fn each_session_is_told_of_its_own() {
    let args = ["--survive", "--sanitize=report"];
    let mut server = Server::start_with("null", &args).unwrap();
    let said = |server: &Server, text: &str| server.process.stderr().contains(text);
    let mut card = server.card().unwrap();
    for n in 0..6 {
        card.reg(0x3fc0 + 4 * n).unwrap();
    }
    drop(card);
    let summary = "the driver of this session broke rules";
    eventually(|| said(&server, &format!("{summary} 6 times")));
    assert!(!said(&server, "an access at 0x3fd0"), "the fifth");
    // As often again by the next driver, with a hand-over in the middle of its session and one
    // between this and another.
    let mut card = server.card().unwrap();
    card.reg(0x3fe0).unwrap();
    eventually(|| said(&server, "an access at 0x3fe0"));
    server.kill_worker().unwrap();
    card.reg(0x3fe4).unwrap();
    drop(card);
    eventually(|| said(&server, &format!("{summary} 2 times")));
    server.kill_worker().unwrap();
    let mut card = server.card().unwrap();
    card.set_reg(regs::MTU, 1).unwrap();
    drop(card);
    eventually(|| said(&server, &format!("{summary} 1 times")));
    let text = server.end().unwrap();
    assert!(text.contains("broken, 9 times in all"), "{text}");
}
