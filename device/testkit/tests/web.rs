// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The page that shows the cards at work, as a browser gets it, and what others cannot do to it.
#![allow(missing_docs)]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{burst, options, own, round_trip};
use serde_json::{json, Value};
use vnet_control::MAX_REQUEST;
use vnet_testkit::{Cards, LIMIT};

const CONFIG: &str = r#"
web = "127.0.0.1:0"
web-token = "@DIR@/token"

[[card]]
name = "a"
socket = "@DIR@/a.sock"
net = "loopback"
sanitize = "strict"

[[card]]
name = "b"
socket = "@DIR@/b.sock"
net = "null"
"#;

fn start() -> (Cards, Page) {
    let cards = Cards::start(CONFIG, &["a.sock", "b.sock"]).unwrap();
    let page = Page::of(&cards);
    (cards, page)
}

/// Where the page is.
#[derive(Clone)]
struct Page {
    /// Address and port.
    host: String,
    /// With the token, from slash to slash.
    path: String,
}

impl Page {
    fn of(cards: &Cards) -> Self {
        let end = Instant::now() + LIMIT;
        loop {
            let told = cards.process.stderr();
            let url = told.split_once("http://").map(|(_, rest)| rest);
            if let Some((url, _)) = url.and_then(|url| url.split_once('\n')) {
                let (host, path) = url.split_once('/').unwrap();
                return Self {
                    host: host.into(),
                    path: format!("/{path}"),
                };
            }
            assert!(Instant::now() < end, "no URL in {told}");
            sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Asks for what is below the token, and returns status, head and body.
    fn ask(&self, method: &str, page: &str, body: &str) -> (u16, String, String) {
        self.ask_at(method, &format!("{}{page}", self.path), body)
    }

    fn ask_at(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        let (host, length) = (&self.host, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        answer(stream).expect("an answer")
    }

    fn command(&self, execute: &str, arguments: &Value) -> Value {
        let body = json!({"execute": execute, "arguments": arguments}).to_string();
        let (status, _, answer) = self.ask("POST", "command", &body);
        assert_eq!(status, 200);
        serde_json::from_str(&answer).unwrap()
    }

    fn events(&self, card: &str) -> Events {
        let mut stream = self.connect();
        let Self { host, path } = self;
        write!(
            stream,
            "GET {path}events?card={card} HTTP/1.1\r\nhost: {host}\r\n\r\n"
        )
        .unwrap();
        Events(BufReader::new(stream))
    }
}

/// What comes until the server hangs up: status, head in small letters, and body. `None` if it hangs up
/// without a word.
fn answer(mut stream: TcpStream) -> Option<(u16, String, String)> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // It hung up on what was still on its way.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}"),
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, head.to_lowercase(), body.into()))
}

/// A stream of pictures.
struct Events(BufReader<TcpStream>);

impl Events {
    /// The next line that is a picture; `None` at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.into());
            }
        }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.line().expect("a picture")).unwrap()
    }

    /// The next picture that is as it should be.
    fn until(&mut self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let picture = self.next();
            if good(&picture) {
                return picture;
            }
            assert!(Instant::now() < end, "{what}: {picture}");
        }
    }
}

fn queue(picture: &Value, n: usize) -> &Value {
    &picture["card"]["queues"][n]
}

#[test]
fn only_who_has_the_token_sees_it() {
    let (cards, page) = start();
    let token = std::fs::read_to_string(cards.path("token")).unwrap();
    assert_eq!(page.path, format!("/{}/", token.trim_end()));
    for (name, part) in [
        ("", "page.js"),
        ("page.js", "EventSource"),
        ("style.css", ".queue"),
        ("datasheet", "id=\"73-notification\""),
    ] {
        let (status, head, body) = page.ask("GET", name, "");
        assert_eq!(status, 200, "{name}");
        assert!(body.contains(part), "{name}");
        for due in ["default-src 'none'", "no-store", "no-referrer", "nosniff"] {
            assert!(head.contains(due), "{name}: {head}");
        }
        assert!(
            !body.contains("https://"),
            "{name} takes something from elsewhere"
        );
        let (status, ..) = page.ask("POST", name, "");
        assert_eq!(status, 405, "{name}");
    }
    let wrong = page.path.replace(|c: char| c.is_ascii_digit(), "x");
    let short = &page.path[..page.path.len() - 2];
    for bad in [
        "/",
        "*",
        "/events",
        "/page.js",
        "//page.js",
        &format!("{wrong}events"),
        &format!("{short}/"),
        &format!("{}x", page.path),
    ] {
        let (status, _, body) = page.ask_at("GET", bad, "");
        assert_eq!((status, body.as_str()), (404, "Not Found\n"), "{bad}");
    }
    let (status, ..) = page.ask_at("POST", &format!("{wrong}command"), "{}");
    assert_eq!(status, 404);
    let (status, ..) = page.ask("GET", "command", "");
    assert_eq!(status, 405);
}

#[test]
fn commands_are_to_step_and_no_more() {
    let (_cards, page) = start();
    // More than that is for the control socket.
    for (execute, arguments) in [
        ("card-remove", json!({"card": "a"})),
        ("link-set", json!({"card": "a", "up": false})),
        ("card-list", json!({})),
    ] {
        let refused = page.command(execute, &arguments);
        assert_eq!(refused["error"]["class"], "unknown-command", "{execute}");
    }
    let refused = page.command("card-step", &json!({"card": "nobody"}));
    assert_eq!(refused["error"]["class"], "no-such-card");
    for bad in ["", "nonsense", "[]", "{\"execute\": 7}"] {
        let (status, _, told) = page.ask("POST", "command", bad);
        assert!(
            status == 200 && told.contains("bad-request"),
            "{bad}: {told}"
        );
    }
    // One byte more than a request may have: with more, the server could hang up while we send.
    let (status, ..) = page.ask("POST", "command", &" ".repeat(MAX_REQUEST + 1));
    assert_eq!(status, 400);
}

#[test]
fn an_address_for_others_has_to_be_wanted() {
    let config = CONFIG.replace("127.0.0.1:0", "0.0.0.0:0");
    let refused = Cards::start(&config, &["a.sock"])
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("web-public allows it"), "{refused}");
    let cards = Cards::start(&format!("web-public = true\n{config}"), &["a.sock"]).unwrap();
    let mut page = Page::of(&cards);
    page.host = page.host.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(page.ask("GET", "", "").0, 200);
}

#[test]
fn pictures_show_rings_and_frames() {
    let (cards, page) = start();
    let mut events = page.events("a");
    let first = events.next();
    assert_eq!(first["cards"].as_array().unwrap().len(), 2);
    assert_eq!(queue(&first, 0)["ring"], Value::Null);

    let mut nic = cards.nic("a.sock", options()).unwrap();
    events.until("runs", |picture| queue(picture, 1)["ring"].is_object());
    for seed in 0..5 {
        round_trip(&mut nic, 0, seed);
    }
    nic.drain(0).unwrap();
    let used = (nic.used_index(0), nic.used_index(1));
    let picture = events.until("used", |picture| {
        let used_of = |n: usize| queue(picture, n)["ring"]["used"].clone();
        (used_of(0), used_of(1)) == (used.0.into(), used.1.into())
    });
    let [rx, tx] = [0, 1].map(|n| queue(&picture, n));
    assert_eq!((&rx["queue"], &tx["queue"]), (&"rx0".into(), &"tx0".into()));
    // The receive buffers that were posted are the card's, and no transmit buffer is.
    let owned = |queue: &Value| -> u64 {
        let runs = queue["ring"]["owned"].as_array().unwrap();
        runs.iter().map(|run| run[1].as_u64().unwrap()).sum()
    };
    let posted = rx["ring"]["avail"].as_u64().unwrap() - u64::from(used.0);
    assert_eq!((owned(rx), owned(tx)), (posted, 0));
    assert_eq!(
        (&tx["ring"]["size"], &tx["frames"]),
        (&256.into(), &5.into())
    );

    // What comes while somebody looks is told, with its way.
    round_trip(&mut nic, 0, 40);
    let frame_of = |picture: &Value, queue: &str| {
        let frames = picture["card"]["frames"].as_array().unwrap();
        let of_queue = |frame: &&Value| frame["queue"] == queue && frame["bytes"] == 100;
        frames.iter().find(of_queue).cloned()
    };
    let picture = events.until("frames", |picture| {
        ["rx0", "tx0"]
            .iter()
            .all(|queue| frame_of(picture, queue).is_some())
    });
    for name in ["rx0", "tx0"] {
        let frame = frame_of(&picture, name).unwrap();
        assert_eq!(frame["text"], "type 0x88b5");
        assert_eq!(frame["start"].as_str().unwrap().len(), 2 * 96);
        assert_eq!(frame["chains"].as_array().unwrap().len(), 1);
        let stage = |name: &str| frame["stages"][name].as_i64();
        let [backend, done, used] = ["backend", "done", "used"].map(|name| stage(name).unwrap());
        assert!(0 <= backend && backend <= done && done <= used, "{frame}");
    }
    // A frame stays for those who come later.
    let again = page.events("a").next();
    assert!(frame_of(&again, "rx0").is_some(), "{again}");

    assert_eq!(page.events("b").next()["card"]["name"], "b");
    assert_eq!(page.events("").next()["card"]["name"], "a");
    assert_eq!(page.events("c").next()["card"], Value::Null);
}

/// With its name or without.
#[test]
fn all_who_look_at_a_card_see_all_of_its_frames() {
    let (cards, page) = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let mut viewers = ["a", ""].map(|card| page.events(card));
    for events in &mut viewers {
        events.until("runs", |picture| queue(picture, 1)["ring"].is_object());
    }
    let last = 6;
    for seed in 0..last {
        round_trip(&mut nic, 0, seed);
        sleep(Duration::from_millis(100));
    }
    for events in &mut viewers {
        events.until("all frames", |picture| {
            let frames = picture["card"]["frames"].as_array().unwrap();
            let sent = frames.iter().filter(|frame| frame["queue"] == "tx0");
            sent.map(|frame| frame["number"].as_u64().unwrap())
                .eq(1..=last)
        });
    }
}

#[test]
fn a_step_shows_in_the_next_picture() {
    let (cards, page) = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);
    nic.drain(0).unwrap();
    let paused = page.command("card-pause", &json!({"card": "a"}));
    assert_eq!(paused["return"]["queues"][1]["next"]["step"], "fetch");
    let frame = own(&nic, 100, 3);
    nic.send(0, &frame).unwrap();
    let used = nic.used_index(1);
    let mut events = page.events("a");
    let step = json!({"card": "a", "queue": "tx0"});
    for (name, next, moved) in [
        ("fetch", "read", 0),
        ("read", "hand", 0),
        ("hand", "use", 0),
        ("use", "decide", 1),
    ] {
        let done = page.command("card-step", &step);
        assert_eq!(done["return"]["did"]["step"], name);
        let picture = events.until(name, |picture| queue(picture, 1)["next"]["step"] == next);
        let tx = queue(&picture, 1);
        assert_eq!(
            (&tx["paused"], &tx["ring"]["used"]),
            (&true.into(), &(used + moved).into())
        );
        // The descriptor is the card's until then.
        let owned = tx["ring"]["owned"].as_array().unwrap().len();
        assert_eq!(owned, usize::from(1 - moved), "{name}");
        assert_eq!(nic.used_index(1), used + moved);
        assert_eq!(picture["cards"][0]["paused"], true);
    }
    page.command("card-resume", &json!({"card": "a"}));
    assert_eq!(nic.expect(0).unwrap().frame, frame);
}

#[test]
fn viewers_are_few_and_gone_when_they_go() {
    let (_cards, page) = start();
    let mut viewers: Vec<_> = (0..8).map(|_| page.events("a")).collect();
    viewers.iter_mut().for_each(|events| drop(events.next()));
    assert_eq!(page.ask("GET", "events", "").0, 503);
    // The page is there for others all the same.
    assert_eq!(page.ask("GET", "", "").0, 200);
    viewers.clear();
    // It takes a picture until it is noticed that they went.
    let end = Instant::now() + LIMIT;
    while page.events("a").line().is_none() {
        assert!(Instant::now() < end, "their places are not given free");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn whoever_does_not_read_holds_nobody_up() {
    let (cards, page) = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let _sleepers: Vec<_> = (0..4).map(|_| page.events("a")).collect();
    let mut reader = page.events("a");
    let end = Instant::now() + Duration::from_secs(2);
    let mut pictures = 0;
    while Instant::now() < end || pictures < 2 {
        burst(&mut nic, 500, 32, 1000);
        reader.next();
        pictures += 1;
    }
    let used = nic.used_index(1);
    reader.until("the latest", |picture| {
        queue(picture, 1)["ring"]["used"] == used
    });
}

#[test]
fn hostile_requests_are_refused_and_the_cards_go_on() {
    let (cards, page) = start();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let long = "x".repeat(100_000);
    for (request, due) in [
        ("nonsense\r\n\r\n".into(), Some(400)),
        ("\0\u{1}\u{2}\r\n\r\n".into(), Some(400)),
        ("GET / HTTP/9.9\r\n\r\n".into(), Some(400)),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), Some(431)),
        (format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), Some(431)),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)),
            Some(431),
        ),
        (
            format!("POST {}command HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n", page.path),
            Some(400),
        ),
        (
            format!("POST {}command HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", page.path),
            Some(400),
        ),
    ] {
        let mut stream = page.connect();
        // It may hang up before it has read all.
        let _ = stream.write_all(request.as_bytes());
        let status = answer(stream).map(|(status, ..)| status);
        let request: String = request.chars().take(60).collect();
        // What was told may be lost when it hangs up on what was still on its way, as of a long one.
        let lost = status.is_none() && request.len() == 60;
        assert!(status == due || lost, "{request}: {status:?}");
        round_trip(&mut nic, 0, 7);
    }
    // More than are served at a time, and none says a word.
    let idle: Vec<_> = (0..100).map(|_| page.connect()).collect();
    round_trip(&mut nic, 0, 8);
    drop(idle);
    assert_eq!(page.ask("GET", "", "").0, 200);
}
