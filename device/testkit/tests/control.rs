// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The control socket: what it does to cards, and what clients cannot do to it.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{options, own, round_trip, silence};
use serde_json::{json, Value};
use vnet_contract::regs;
use vnet_control::{Class, Client, ClientError, Command, Request, MAX_REQUEST};
use vnet_testkit::{Card, Cards, Nic, LIMIT};

const CONFIG: &str = r#"
control = "@DIR@/control"

[[card]]
name = "a"
socket = "@DIR@/a.sock"
net = "loopback"

[[card]]
name = "b"
socket = "@DIR@/b.sock"
net = "loopback"
"#;

fn start() -> Cards {
    Cards::start(CONFIG, &["a.sock", "b.sock", "control"]).unwrap()
}

fn client(cards: &Cards) -> Client {
    Client::connect(&cards.path("control")).unwrap()
}

fn command(execute: &str, arguments: Value) -> Command {
    let request = Request {
        execute: execute.into(),
        arguments: arguments.as_object().unwrap().clone(),
        id: None,
    };
    request.command().unwrap()
}

fn call(client: &mut Client, execute: &str, arguments: Value) -> Value {
    client.call(&command(execute, arguments)).unwrap()
}

fn refused(client: &mut Client, execute: &str, arguments: Value, class: Class, part: &str) {
    match client.call(&command(execute, arguments)) {
        Err(ClientError::Refused(e)) => {
            assert_eq!(e.class, class, "{e}");
            assert!(e.desc.contains(part), "{e}");
        }
        other => panic!("{other:?}"),
    }
}

/// The counters of the transmit queue of a card's first pair.
fn sent(client: &mut Client, card: &str) -> (u64, u64) {
    let all = call(client, "card-counters", json!({ "card": card }));
    let queue = &all[0]["queues"][1];
    assert_eq!(queue["direction"], "transmit");
    let number = |name: &str| queue[name].as_u64().unwrap();
    (number("frames"), number("drops"))
}

fn is_up(nic: &mut Nic) -> bool {
    nic.card.reg(regs::LINK).unwrap() & regs::LINK_UP != 0
}

/// Waits until the link is like this.
fn wait_up(nic: &mut Nic, up: bool) {
    let end = Instant::now() + LIMIT;
    while is_up(nic) != up {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn cards_are_listed_and_their_counters_move() {
    let cards = start();
    let mut client = client(&cards);
    assert_eq!(client.server().protocol, 1);
    let mode = fs::metadata(cards.path("control"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut nic = cards.nic("a.sock", options()).unwrap();
    let list = call(&mut client, "card-list", json!({}));
    let of = |n: usize, key: &str| list[n][key].clone();
    assert_eq!((of(0, "name"), of(1, "name")), ("a".into(), "b".into()));
    assert_eq!(of(0, "client")["pid"], std::process::id());
    assert_eq!(
        (of(0, "status"), of(1, "client")),
        ("serving".into(), Value::Null)
    );
    assert!(of(0, "features").is_u64() && of(1, "features").is_null());
    assert_eq!(of(0, "link")["up"], true);
    assert_eq!(of(0, "net"), "loopback");
    assert_eq!(
        call(&mut client, "card-show", json!({"card": "b"})),
        list[1]
    );

    let before = sent(&mut client, "a");
    for seed in 0..3 {
        round_trip(&mut nic, 0, seed);
    }
    assert_eq!(sent(&mut client, "a").0, before.0 + 3);
    assert_eq!(sent(&mut client, "b"), (0, 0));
    let all = call(&mut client, "card-counters", json!({}));
    assert_eq!(all.as_array().unwrap().len(), 2);
    // They go on when the driver resets the card.
    drop(nic);
    cards.nic("a.sock", options()).unwrap();
    assert_eq!(sent(&mut client, "a").0, before.0 + 3);
}

#[test]
fn a_cable_is_pulled_and_the_card_knows() {
    let cards = start();
    let mut client = client(&cards);
    let mut nic = cards.nic("a.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let link = call(&mut client, "link-set", json!({"card": "a", "up": false}));
    assert_eq!(
        link,
        json!({"up": false, "speed": null, "forced-down": true, "backend-up": true})
    );
    assert_eq!(nic.card.reg(regs::LINK).unwrap(), 0);
    assert_eq!(
        nic.card.reg(regs::EVENT_CAUSE).unwrap() & regs::EVENT_LINK,
        regs::EVENT_LINK
    );
    let (frames, drops) = sent(&mut client, "a");
    let frame = own(&nic, 100, 5);
    nic.send(0, &frame).unwrap();
    nic.drain(0).unwrap();
    silence(&mut nic, 0);
    assert_eq!(sent(&mut client, "a"), (frames, drops + 1));

    let link = call(
        &mut client,
        "link-set",
        json!({"card": "a", "up": true, "speed": 2500}),
    );
    assert_eq!((&link["up"], &link["speed"]), (&true.into(), &2500.into()));
    assert!(is_up(&mut nic));
    assert_eq!(nic.card.reg(regs::LINK_SPEED).unwrap(), 2500);
    round_trip(&mut nic, 0, 2);
    let link = call(&mut client, "link-set", json!({"card": "a", "speed": 0}));
    assert_eq!(link["speed"], Value::Null);
}

#[test]
fn a_backend_is_changed_under_a_driver() {
    let cards = start();
    let mut client = client(&cards);
    let mut nic = cards.nic("a.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let set = |net: &str| json!({"card": "a", "net": net});
    let changed = call(&mut client, "backend-set", set("null"));
    assert_eq!(
        changed,
        json!({"net": "null", "before": "loopback", "dropped": 0})
    );
    let frame = own(&nic, 100, 5);
    nic.send(0, &frame).unwrap();
    nic.drain(0).unwrap();
    silence(&mut nic, 0);
    call(&mut client, "backend-set", set("loopback"));
    round_trip(&mut nic, 0, 2);
    assert_eq!(
        call(&mut client, "card-show", json!({"card": "a"}))["net"],
        "loopback"
    );
    // What cannot be leaves everything as it is.
    refused(
        &mut client,
        "backend-set",
        set("pigeon"),
        Class::BadArgument,
        "gateway",
    );
    let long = set("tap:name=a-name-that-is-too-long");
    refused(
        &mut client,
        "backend-set",
        long,
        Class::Failed,
        "longer than 15 bytes",
    );
    round_trip(&mut nic, 0, 3);
}

#[test]
fn cards_come_and_go() {
    let cards = start();
    let mut client = client(&cards);
    let mut other = cards.nic("b.sock", options()).unwrap();
    let socket = cards.path("c.sock");
    let settings = |key: &str, value: Value| {
        let mut settings = json!({"name": "c", "socket": socket, "net": "loopback"});
        settings[key] = value;
        json!({ "settings": settings })
    };
    for (key, value, class, part) in [
        (
            "mtu_max",
            9000.into(),
            Class::BadArgument,
            "did you mean mtu-max?",
        ),
        (
            "queues",
            17.into(),
            Class::BadArgument,
            "17 is not in 1..=16",
        ),
        (
            "queues",
            json!([]),
            Class::BadArgument,
            "a string or a number",
        ),
        (
            "name",
            "b".into(),
            Class::Exists,
            "there is a card b already",
        ),
        (
            "socket",
            cards.path("b.sock").to_str().into(),
            Class::Failed,
            "in use",
        ),
        (
            "net",
            "tap:name=a-name-that-is-too-long".into(),
            Class::Failed,
            "15 bytes",
        ),
    ] {
        refused(&mut client, "card-add", settings(key, value), class, part);
    }
    for round in 0..3 {
        let added = call(&mut client, "card-add", settings("queues", 2.into()));
        assert_eq!((&added["name"], &added["queues"]), (&"c".into(), &2.into()));
        let mut nic = Nic::bring_up(Card::connect(&socket).unwrap(), options()).unwrap();
        round_trip(&mut nic, 0, round);
        let removed = call(&mut client, "card-remove", json!({"card": "c"}));
        assert_eq!(removed, json!({}));
        assert!(!socket.exists() && nic.card.wire.is_closed());
        refused(
            &mut client,
            "card-show",
            json!({"card": "c"}),
            Class::NoSuchCard,
            "a, b",
        );
        round_trip(&mut other, 0, round);
    }
}

#[test]
fn threads_and_descriptors_of_a_card_go_with_it() {
    let cards = start();
    let mut client = client(&cards);
    let count = |what: &str| {
        let path = format!("/proc/{}/{what}", cards.process.id());
        fs::read_dir(path).unwrap().count()
    };
    let socket = cards.path("c.sock");
    let mut once = || {
        let settings = json!({"name": "c", "socket": socket, "queues": 4, "sanitize": "report"});
        call(&mut client, "card-add", json!({ "settings": settings }));
        let nic = Nic::bring_up(Card::connect(&socket).unwrap(), options()).unwrap();
        let set = json!({"card": "c", "net": "null"});
        call(&mut client, "backend-set", set);
        call(&mut client, "card-remove", json!({"card": "c"}));
        drop(nic);
    };
    once();
    let before = (count("task"), count("fd"));
    for _ in 0..5 {
        once();
    }
    let end = Instant::now() + LIMIT;
    // A thread that has ended is there a moment longer, then as now.
    while count("task") > before.0 || count("fd") > before.1 {
        assert!(
            Instant::now() < end,
            "{:?} {before:?}",
            (count("task"), count("fd"))
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn faults_come_and_go() {
    let cards = start();
    let mut client = client(&cards);
    let mut nic = cards.nic("a.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let none = json!({"report": []});
    assert_eq!(call(&mut client, "faults-show", json!({"card": "a"})), none);
    let plan = |plan: &str| json!({"card": "a", "plan": plan});
    refused(
        &mut client,
        "faults-set",
        plan("\nbite"),
        Class::BadArgument,
        "line 2",
    );
    for round in 0..2 {
        let told = call(&mut client, "faults-set", plan("frame-lost queue=tx"));
        assert_eq!(
            told["report"][0],
            "fault in line 1, frame-lost: 0 of 0 events"
        );
        let frame = own(&nic, 100, 5);
        nic.send(0, &frame).unwrap();
        nic.drain(0).unwrap();
        silence(&mut nic, 0);
        let told = call(&mut client, "faults-show", json!({"card": "a"}));
        assert_eq!(
            told["report"][0],
            "fault in line 1, frame-lost: 1 of 1 events"
        );
        assert_eq!(
            call(&mut client, "card-show", json!({"card": "a"}))["faults"],
            1
        );
        assert_eq!(call(&mut client, "faults-set", plan("")), none);
        round_trip(&mut nic, 0, round);
    }
    // Also of the link, and of registers.
    call(&mut client, "faults-set", plan("link-down"));
    wait_up(&mut nic, false);
    call(&mut client, "faults-set", plan(""));
    wait_up(&mut nic, true);
}

#[test]
fn rules_that_a_driver_broke_are_told() {
    let config = CONFIG.replacen("net =", "sanitize = \"report\"\nnet =", 1);
    let cards = Cards::start(&config, &["a.sock", "control"]).unwrap();
    let mut client = client(&cards);
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let rules = json!({"card": "a"});
    assert_eq!(call(&mut client, "rules-show", rules.clone())["total"], 0);
    nic.card.set_reg(regs::ID, 1).unwrap();
    let found = call(&mut client, "rules-show", rules);
    assert_eq!(
        (&found["total"], &found["rules"][0]["rule"]),
        (&1.into(), &"register-read-only".into())
    );
    assert!(found["rules"][0]["first"][0]
        .as_str()
        .unwrap()
        .contains("docs/rules.md"));
    let show = call(&mut client, "card-show", json!({"card": "a"}));
    assert_eq!(
        (&show["rules-broken"], &show["sanitize"]),
        (&1.into(), &"report".into())
    );
    let other = call(&mut client, "card-show", json!({"card": "b"}));
    assert!(other["rules-broken"].is_null());
}

#[test]
fn an_address_is_changed() {
    let cards = start();
    let mut client = client(&cards);
    let mac = |mac: &str| json!({"card": "a", "mac": mac});
    call(&mut client, "mac-set", mac("52:54:00:00:00:09"));
    refused(
        &mut client,
        "mac-set",
        mac("53:54:00:00:00:09"),
        Class::BadArgument,
        "group",
    );
    assert_eq!(
        call(&mut client, "card-show", json!({"card": "a"}))["mac"],
        "52:54:00:00:00:09"
    );
    let nic = cards.nic("a.sock", options()).unwrap();
    assert_eq!(nic.mac, [0x52, 0x54, 0, 0, 0, 9]);
}

/// A connection without manners. Past the greeting.
fn rough(cards: &Cards) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(cards.path("control")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let mut reader = BufReader::new(stream);
    let greeting = line(&mut reader);
    assert_eq!(greeting["vnetd"]["protocol"], 1);
    reader
}

fn line(reader: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Waits until the server has hung up.
fn gone(reader: &mut BufReader<UnixStream>) {
    let mut rest = Vec::new();
    match reader.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
    }
}

#[test]
fn clients_that_send_garbage_are_told_and_hung_up_on() {
    let mut cards = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let mut good = client(&cards);

    let mut reader = rough(&cards);
    for n in 0..8 {
        reader.get_mut().write_all(b"\x00\xff[{garbage\n").unwrap();
        assert_eq!(line(&mut reader)["error"]["class"], "bad-request", "{n}");
    }
    gone(&mut reader);

    // A good request makes up for bad ones, and answers come in order.
    let mut reader = rough(&cards);
    for n in 0..20 {
        let both = format!("nonsense\n{{\"execute\":\"card-list\",\"id\":{n}}}\n");
        reader.get_mut().write_all(both.as_bytes()).unwrap();
        assert_eq!(line(&mut reader)["error"]["class"], "bad-request");
        assert_eq!(line(&mut reader)["id"], n);
    }
    // What is no command is an error, too, but one that can be asked for.
    for _ in 0..20 {
        let unknown = b"{\"execute\":\"self-destruct\"}\n";
        reader.get_mut().write_all(unknown).unwrap();
        assert_eq!(line(&mut reader)["error"]["class"], "unknown-command");
    }

    // No end of the line.
    let mut reader = rough(&cards);
    let long = vec![b' '; 2 * MAX_REQUEST];
    let _ = reader.get_mut().write_all(&long);
    gone(&mut reader);

    let list = call(&mut good, "card-list", json!({}));
    assert_eq!(list.as_array().unwrap().len(), 2);
    round_trip(&mut nic, 0, 1);
    assert!(cards.process.is_running());
}

#[test]
fn clients_that_are_slow_cost_nobody_anything() {
    let cards = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    // One that begins a line and does not end it, one that asks and never reads.
    let mut half = rough(&cards);
    half.get_mut().write_all(b"{\"execute\":").unwrap();
    let mut deaf = rough(&cards);
    deaf.get_mut().set_nonblocking(true).unwrap();
    let request = b"{\"execute\":\"card-counters\"}\n".repeat(2000);
    let asked = Instant::now();
    // Until nothing goes any more, since nothing is read.
    while asked.elapsed() < Duration::from_millis(500) {
        let _ = deaf.get_mut().write(&request);
    }
    // Others are served meanwhile.
    let mut good = client(&cards);
    call(&mut good, "card-list", json!({}));
    round_trip(&mut nic, 0, 1);
    gone(&mut half);
    deaf.get_mut().set_nonblocking(false).unwrap();
    let end = Instant::now() + LIMIT;
    while deaf.get_mut().write(b"\n").is_ok() {
        assert!(Instant::now() < end, "is not hung up on");
        std::thread::sleep(Duration::from_millis(50));
    }
    call(&mut good, "card-list", json!({}));
    round_trip(&mut nic, 0, 2);
}

#[test]
fn there_is_room_for_one_more_client() {
    let cards = start();
    let mut first = rough(&cards);
    let mut others: Vec<_> = (0..40).map(|_| rough(&cards)).collect();
    // The one that has been quiet for longest has made room.
    assert_eq!(line(&mut first)["error"]["class"], "too-many-clients");
    gone(&mut first);
    let last = others.last_mut().unwrap();
    last.get_mut()
        .write_all(b"{\"execute\":\"card-list\"}\n")
        .unwrap();
    assert!(line(last)["return"].is_array());
}

#[test]
fn one_card_by_arguments_can_be_steered_too() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let args = ["--control", control.to_str().unwrap(), "--name", "x"];
    let mut server = vnet_testkit::Server::start_with("loopback", &args).unwrap();
    let mut client = Client::connect(&control).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    call(&mut client, "link-set", json!({"card": "x", "up": false}));
    assert!(!is_up(&mut nic));
    // One that is added may fail, and the first goes on.
    let other = dir.path().join("y.sock");
    let settings = json!({"socket": other, "net": "null", "sanitize": "report"});
    call(&mut client, "card-add", json!({ "settings": settings }));
    let mut card = Card::connect(&other).unwrap();
    card.set_bus_master(false).unwrap();
    let payload = Card::map_message(3, 0, 0, 0x1000_0000);
    card.wire
        .call(vnet_testkit::command::DMA_MAP, &payload, &[])
        .unwrap();
    let _ = card.set_bus_master(true);
    let end = Instant::now() + LIMIT;
    while !card.wire.is_closed() {
        assert!(Instant::now() < end, "is not hung up on");
    }
    call(&mut client, "link-set", json!({"card": "x", "up": true}));
    round_trip(&mut nic, 0, 1);
    server
        .process
        .signal(rustix::process::Signal::TERM)
        .unwrap();
    assert!(server.process.wait().unwrap().success());
    assert!(!control.exists() && !other.exists());
}

#[test]
fn a_card_that_is_slow_to_make_holds_nobody_up() {
    let mut cards = start();
    // Whoever reads it waits for the end of what is written.
    let pipe = cards.path("faults");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let settings = json!({
        "socket": cards.path("c.sock"), "net": "loopback", "faults": &pipe,
    });
    let add = json!({ "settings": settings });
    let slow = std::thread::spawn({
        let (mut client, add) = (client(&cards), add.clone());
        move || call(&mut client, "card-add", add)
    });
    // Returns when the other end is open: it is being made.
    let plan = fs::File::options().write(true).open(&pipe).unwrap();
    let mut client = client(&cards);
    assert_eq!(
        call(&mut client, "card-list", json!({}))
            .as_array()
            .unwrap()
            .len(),
        2
    );
    call(&mut client, "link-set", json!({"card": "a", "up": false}));
    refused(
        &mut client,
        "card-add",
        add,
        Class::Exists,
        "there is a card c already",
    );
    drop(plan);
    assert_eq!(slow.join().unwrap()["name"], "c");
    assert_eq!(
        call(&mut client, "card-list", json!({}))
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let mut nic = cards.nic("c.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);

    // The same when they are read again, and it is not waited for at the end.
    cards.process.signal(rustix::process::Signal::HUP).unwrap();
    let _plan = fs::File::options().write(true).open(&pipe).unwrap();
    call(&mut client, "card-list", json!({}));
    cards.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(cards.process.wait().unwrap().success());
}
