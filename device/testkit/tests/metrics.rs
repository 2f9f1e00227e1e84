// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Metrics: what a scrape says, that it says the same as the control socket, and what clients cannot
//! do to it.
#![allow(missing_docs)]

mod common;
#[path = "common/openmetrics.rs"]
mod openmetrics;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{burst, options, own, round_trip};
use openmetrics::{parse, Scrape};
use serde_json::{json, Value};
use vnet_control::{Client, Request};
use vnet_testkit::{Cards, LIMIT};

/// A card behind a line that loses frames, two on a switch, and one more.
const CONFIG: &str = r#"
log = "info"
control = "@DIR@/control"
metrics = "unix:@DIR@/metrics"

[[card]]
name = "a"
socket = "@DIR@/a.sock"
net = "loopback"
shape = "loss=50%,seed=3"

[[card]]
name = "b"
socket = "@DIR@/b.sock"
net = "switch:name=lan,port=one,snooping"

[[card]]
name = "c"
socket = "@DIR@/c.sock"
net = "switch:name=lan"
queues = 2

[[card]]
name = "d"
socket = "@DIR@/d.sock"
net = "loopback"
"#;

fn start() -> Cards {
    let sockets = ["a.sock", "b.sock", "c.sock", "d.sock", "control", "metrics"];
    let cards = Cards::start(CONFIG, &sockets).unwrap();
    // Answered once all of them are there.
    call(&cards, "card-list", json!({}));
    cards
}

/// What the server answers to these lines: the head and the body.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("HTTP has a head");
    (head.into(), body.into())
}

fn connect(cards: &Cards) -> UnixStream {
    let stream = UnixStream::connect(cards.path("metrics")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: vnetd\r\n\r\n";

fn scrape(cards: &Cards) -> Scrape {
    let (head, body) = ask(connect(cards), GET);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let format = "content-type: application/openmetrics-text; version=1.0.0";
    assert!(head.contains(format), "{head}");
    parse(&body)
}

fn call(cards: &Cards, execute: &str, arguments: Value) -> Value {
    let request = Request {
        execute: execute.into(),
        arguments: arguments.as_object().unwrap().clone(),
        id: None,
    };
    let mut client = Client::connect(&cards.path("control")).unwrap();
    client.call(&request.command().unwrap()).unwrap()
}

#[test]
fn a_scrape_says_what_the_control_socket_says() {
    let cards = start();
    let mut a = cards.nic("a.sock", options()).unwrap();
    let mut d = cards.nic("d.sock", options()).unwrap();
    for seed in 0..40 {
        let frame = own(&a, 100, seed);
        a.send(0, &frame).unwrap();
    }
    burst(&mut d, 2000, 8, 1000);
    // With the cable pulled, a frame is lost for that reason.
    call(&cards, "link-set", json!({"card": "d", "up": false}));
    let frame = own(&d, 100, 1);
    d.send(0, &frame).unwrap();

    let end = Instant::now() + LIMIT;
    let (told, counters) = loop {
        let told = scrape(&cards);
        let counters = call(&cards, "card-counters", json!({}));
        let labels = [("card", "d"), ("reason", "unplugged")];
        let unplugged = told.sum("vnet_queue_dropped_frames_total", &labels);
        let sent = [("card", "a"), ("direction", "transmit")];
        let through = told.sum("vnet_shape_frames_total", &sent) == 40.0;
        // Nothing moves any more.
        if unplugged == 1.0 && through && told.samples == scrape(&cards).samples {
            break (told, counters);
        }
        assert!(Instant::now() < end, "{told:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for card in counters.as_array().unwrap() {
        for queue in card["queues"].as_array().unwrap() {
            let pair = queue["pair"].to_string();
            let labels = [
                ("card", card["card"].as_str().unwrap()),
                ("pair", pair.as_str()),
                ("direction", queue["direction"].as_str().unwrap()),
            ];
            for (name, member) in [
                ("vnet_queue_frames_total", "frames"),
                ("vnet_queue_bytes_total", "bytes"),
                ("vnet_queue_dropped_frames_total", "drops"),
                ("vnet_queue_errors_total", "errors"),
                ("vnet_queue_doorbells_total", "doorbells"),
                ("vnet_queue_interrupts_total", "interrupts"),
            ] {
                let due = queue[member].as_u64().unwrap() as f64;
                assert_eq!(told.sum(name, &labels), due, "{name} {labels:?}");
            }
        }
    }
    let sent = [("card", "d"), ("direction", "transmit")];
    assert_eq!(told.sum("vnet_queue_frames_total", &sent), 2000.0);
    // Batches were timed, and none of them was empty.
    let batches = told.sum("vnet_queue_service_seconds_count", &sent);
    assert!((1.0..=2001.0).contains(&batches), "{batches}");
    assert!(told.sum("vnet_queue_service_seconds_sum", &sent) > 0.0);
    // All frames were taken, and buffers wait for more.
    assert_eq!(told.sum("vnet_queue_ring_waiting", &sent), 0.0);
    let received = [("card", "d"), ("direction", "receive")];
    let size = told.sum("vnet_queue_ring_size", &received);
    let waiting = told.sum("vnet_queue_ring_waiting", &received);
    assert!(waiting > 0.0 && waiting <= size, "{waiting} of {size}");

    // Half of them, and half of those that come back.
    let lost = told.sum("vnet_shape_lost_frames_total", &[("card", "a")]);
    assert!((10.0..40.0).contains(&lost), "{lost} of 40 lost");
    assert_eq!(told.sum("vnet_card_link_up", &[("card", "d")]), 0.0);
    assert_eq!(told.sum("vnet_card_backend_link_up", &[("card", "d")]), 1.0);
    let connected = |card| told.sum("vnet_card_client_connected", &[("card", card)]);
    assert_eq!((connected("a"), connected("b")), (1.0, 0.0));
    assert_eq!(told.sum("vnet_card_info", &[("backend", "loopback")]), 2.0);
}

#[test]
fn switches_and_cards_come_and_go() {
    let cards = start();
    let mut b = cards.nic("b.sock", options()).unwrap();
    let c = cards.nic("c.sock", options()).unwrap();
    let frame = common::frame(&b, c.mac, 500, 1);
    b.send(0, &frame).unwrap();
    let end = Instant::now() + LIMIT;
    let port = |port, direction| [("switch", "lan"), ("port", port), ("direction", direction)];
    loop {
        let told = scrape(&cards);
        let frames = |at: [(&str, &str); 3]| told.sum("vnet_switch_port_frames_total", &at);
        // The port without a name has that of its card.
        if frames(port("c", "out")) == 1.0 {
            assert_eq!(frames(port("one", "in")), 1.0);
            let bytes = told.sum("vnet_switch_port_bytes_total", &port("one", "in"));
            assert_eq!(bytes, 500.0);
            assert_eq!(told.sum("vnet_switch_addresses", &[("switch", "lan")]), 1.0);
            assert!(told.names().contains("vnet_switch_multicast_groups"));
            break;
        }
        assert!(Instant::now() < end, "{told:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    call(&cards, "card-remove", json!({"card": "d"}));
    let told = scrape(&cards);
    let all = told.samples.keys().filter_map(|(_, l)| l.get("card"));
    assert!(all
        .collect::<BTreeSet<_>>()
        .iter()
        .eq(["a", "b", "c"].iter()));
    let path = cards.path("e.sock");
    call(
        &cards,
        "card-add",
        json!({"settings": {"socket": path, "net": "loopback"}}),
    );
    let mut nic = cards.nic("e.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    // One that comes later is timed as well.
    let end = Instant::now() + LIMIT;
    let labels = [("card", "e"), ("direction", "receive")];
    while scrape(&cards).sum("vnet_queue_service_seconds_count", &labels) != 1.0 {
        assert!(Instant::now() < end);
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let cards = start();
    let _nic = cards.nic("a.sock", options()).unwrap();
    let told = scrape(&cards);
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/grafana-dashboard.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            asked.extend(expr.split(word).filter(|w| w.starts_with("vnet_")));
        }
    }
    assert!(asked.len() >= 10, "{asked:?}");
    let missing: Vec<_> = asked.difference(&told.names()).copied().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_port_is_for_this_machine() {
    let config = CONFIG.replace("unix:@DIR@/metrics", "127.0.0.1:0");
    let mut cards = Cards::start(&config, &["control"]).unwrap();
    call(&cards, "card-list", json!({}));
    let end = Instant::now() + LIMIT;
    let log = loop {
        let log = cards.process.stderr();
        if log.contains("/metrics\n") {
            break log;
        }
        assert!(Instant::now() < end, "{log}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let address = log.split("metrics at http://").nth(1).unwrap();
    let address = address.split('/').next().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let (head, body) = ask(&stream, GET);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(parse(&body).sum("vnet_card_serving", &[]), 4.0);
    assert!(cards.process.is_running());
}

#[test]
fn clients_cannot_do_much() {
    let cards = start();
    let status = |request: &str| {
        let (head, _) = ask(connect(&cards), request);
        head.split(' ').nth(1).unwrap().to_owned()
    };
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&line("GET /")), "404");
    assert_eq!(status(&line("POST /metrics")), "405");
    assert_eq!(status("nonsense\r\n\r\n"), "400");
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
    let mut stream = connect(&cards);
    let mut answer = Vec::new();
    // It may hang up before it has read all.
    let _ = stream.write_all(long.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    // As many as there can be, which say nothing: they go, and the next one is served.
    let quiet: Vec<_> = (0..8).map(|_| connect(&cards)).collect();
    let told = scrape(&cards);
    assert_eq!(told.sum("vnet_card_serving", &[]), 4.0);
    drop(quiet);
}
