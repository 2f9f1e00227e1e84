// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Captures that are started and ended while a driver uses the card.
#![allow(missing_docs)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{burst, options, round_trip};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pipe::fcntl_getpipe_size;
use rustix::process::Signal;
use serde_json::{json, Value};
use vnet_control::{
    Capture, CaptureEnd, CaptureState, Class, Client, ClientError, Command, OfCapture, Request,
};
use vnet_testkit::{Cards, Server, LIMIT};

const CONFIG: &str = r#"
control = "@DIR@/control"

[[card]]
name = "a"
socket = "@DIR@/a.sock"
net = "loopback"
sanitize = "report"
"#;

fn of() -> OfCapture {
    OfCapture {
        card: "a".into(),
        number: None,
    }
}

fn start(queue: Option<&str>) -> Command {
    Command::CaptureStart(Capture {
        card: "a".into(),
        queue: queue.map(Into::into),
        snaplen: None,
        count: None,
        seconds: None,
    })
}

fn state(answer: Result<Value, ClientError>) -> CaptureState {
    serde_json::from_value(answer.unwrap()).unwrap()
}

fn refused(answer: Result<Value, ClientError>, class: Class, part: &str) {
    match answer {
        Err(ClientError::Refused(e)) => {
            assert_eq!(e.class, class, "{e}");
            assert!(e.desc.contains(part), "{e}");
        }
        other => panic!("{other:?}"),
    }
}

fn faults(client: &mut Client, plan: &str) {
    let arguments = json!({ "card": "a", "plan": plan });
    let request = Request {
        execute: "faults-set".into(),
        arguments: arguments.as_object().unwrap().clone(),
        id: None,
    };
    client.call(&request.command().unwrap()).unwrap();
}

#[test]
fn a_capture_goes_on_through_all_that_happens_to_the_card() {
    let cards = Cards::start(CONFIG, &["a.sock", "control"]).unwrap();
    let mut client = Client::connect(&cards.path("control")).unwrap();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    round_trip(&mut nic, 0, 1);

    let path = cards.path("a.pcapng");
    let file = File::create(&path).unwrap();
    let begun = state(client.call_with_file(&start(None), file.as_fd()));
    assert_eq!((begun.end, begun.queues.len()), (None, 2));
    let other = File::create(cards.path("b.pcapng")).unwrap();
    let second = client.call_with_file(&start(None), other.as_fd());
    refused(second, Class::Exists, "capture of a already");

    burst(&mut nic, 100, 10, 1000);
    // A driver that is loaded anew, one that breaks a rule, a card that misbehaves.
    drop(nic);
    let mut nic = cards.nic("a.sock", options()).unwrap();
    nic.card.reg(0x3ffc).unwrap();
    faults(&mut client, "duplicate-interrupt queue=rx");
    round_trip(&mut nic, 0, 2);
    faults(&mut client, "");

    let shown = state(client.call(&Command::CaptureShow(of())));
    assert_eq!(shown.end, None);
    let done = state(client.call(&Command::CaptureStop(of())));
    assert_eq!((done.end, done.error), (Some(CaptureEnd::Stopped), None));
    assert_eq!((done.frames, done.lost_events), (202, 0));
    for queue in &done.queues {
        assert_eq!((queue.seen, queue.dropped), (101, 0), "{queue:?}");
    }
    let text = std::fs::read(&path).unwrap();
    assert_eq!(text.len() as u64, done.bytes);
    let has = |part: &str| text.windows(part.len()).any(|w| w == part.as_bytes());
    assert!(has("vnet event=fault queue=rx0 duplicate-interrupt"));
    assert!(has("vnet event=finding register-unknown: "));
    // The option if_MACaddr.
    let address = [&[6, 0, 6, 0][..], &nic.mac].concat();
    assert!(text.windows(address.len()).any(|w| w == address));

    // Nothing more comes into it, and there may be another.
    round_trip(&mut nic, 0, 3);
    assert_eq!(std::fs::read(&path).unwrap().len(), text.len());
    state(client.call_with_file(&start(Some("rx0")), other.as_fd()));
    round_trip(&mut nic, 0, 4);
    // Whoever began the first one takes it for his no longer.
    let first = || OfCapture {
        number: begun.number,
        ..of()
    };
    for late in [Command::CaptureShow(first()), Command::CaptureStop(first())] {
        refused(client.call(&late), Class::Failed, "another capture of a");
    }
    let done = state(client.call(&Command::CaptureStop(of())));
    assert_eq!((done.frames, done.queues.len()), (1, 1));
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let cards = Cards::start(CONFIG, &["a.sock", "control"]).unwrap();
    let mut client = Client::connect(&cards.path("control")).unwrap();
    let none = client.call(&Command::CaptureStop(of()));
    refused(none, Class::Failed, "there is no capture of a");
    let without = client.call(&start(None));
    refused(without, Class::BadArgument, "descriptor");
    let path = cards.path("x");
    std::fs::write(&path, "x").unwrap();
    let file = File::open(&path).unwrap();
    let unknown = client.call_with_file(&start(Some("both")), file.as_fd());
    refused(unknown, Class::BadArgument, "such as tx0");
    let missing = client.call_with_file(&start(Some("tx1")), file.as_fd());
    refused(missing, Class::BadArgument, "there is no tx1");
    let unwritable = client.call_with_file(&start(None), file.as_fd());
    refused(unwritable, Class::Failed, "cannot be written");
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
}

/// A client that goes on after a mistake has its frames in the file that it means.
#[test]
fn a_file_is_for_the_request_that_it_came_with() {
    let cards = Cards::start(CONFIG, &["a.sock", "control"]).unwrap();
    let stream = UnixStream::connect(cards.path("control")).unwrap();
    let mut answers = BufReader::new(&stream).lines();
    let _greeting = answers.next().unwrap().unwrap();
    let mut ask = |line: &str, file: &File| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let line = [IoSlice::new(line.as_bytes())];
        sendmsg(&stream, &line, &mut control, SendFlags::empty()).unwrap();
        answers.next().unwrap().unwrap()
    };
    let [wrong, good] = ["wrong", "good"].map(|name| File::create(cards.path(name)).unwrap());
    ask("x\n", &wrong);
    ask("{\"execute\": \"card-list\"}\n", &wrong);
    let start = |card: Value| {
        let request = json!({"execute": "capture-start", "arguments": {"card": card}});
        format!("{request}\n")
    };
    let refusal = ask(&start(1.into()), &wrong);
    assert!(refusal.contains("bad-argument"), "{refusal}");
    let begun = ask(&start("a".into()), &good);
    assert!(begun.contains("\"return\""), "{begun}");
    let len = |file: &File| file.metadata().unwrap().len();
    assert!(len(&wrong) == 0 && len(&good) > 0);
}

/// It begins with what is written at the beginning of the file.
#[test]
fn a_capture_that_begins_late_is_there_all_the_same() {
    let cards = Cards::start(CONFIG, &["a.sock", "control"]).unwrap();
    let mut client = Client::connect(&cards.path("control")).unwrap();
    let mut nic = cards.nic("a.sock", options()).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let size = fcntl_getpipe_size(&writer).unwrap();
    (&writer).write_all(&vec![0; size]).unwrap();
    let late = client.call_with_file(&start(None), writer.as_fd());
    refused(late, Class::Timeout, "may come to pass yet");
    reader.read_exact(&mut vec![0; size]).unwrap();
    let end = Instant::now() + LIMIT;
    while client.call(&Command::CaptureShow(of())).is_err() {
        assert!(Instant::now() < end, "nobody knows of it");
    }
    let second = client.call_with_file(&start(None), writer.as_fd());
    refused(second, Class::Exists, "capture of a already");
    round_trip(&mut nic, 0, 1);
    nic.card.reg(0x3ffc).unwrap();
    let done = state(client.call(&Command::CaptureStop(of())));
    assert_eq!((done.end, done.frames), (Some(CaptureEnd::Stopped), 2));
    drop(writer);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    let part = b"vnet event=finding register-unknown: ";
    assert!(text.windows(part.len()).any(|w| w == part));
}

/// Those whose readers do not read are given up together.
#[test]
fn captures_that_cannot_be_finished_hold_the_end_up_once() {
    let card =
        |n| format!("[[card]]\nname = \"{n}\"\nsocket = \"@DIR@/{n}.sock\"\nnet = \"null\"\n");
    let config: String = (0..8).map(card).collect();
    let config = format!("control = \"@DIR@/control\"\n{config}");
    let mut cards = Cards::start(&config, &["7.sock", "control"]).unwrap();
    let mut client = Client::connect(&cards.path("control")).unwrap();
    let pipes: Vec<_> = (0..8)
        .map(|n| {
            let (reader, writer) = std::io::pipe().unwrap();
            let start = Command::CaptureStart(Capture {
                card: n.to_string(),
                queue: None,
                snaplen: None,
                count: None,
                seconds: None,
            });
            state(client.call_with_file(&start, writer.as_fd()));
            // No room for what is written at the end.
            rustix::io::ioctl_fionbio(&writer, true).unwrap();
            while (&writer).write(&[0; 4096]).is_ok() {}
            rustix::io::ioctl_fionbio(&writer, false).unwrap();
            (reader, writer)
        })
        .collect();
    let begun = Instant::now();
    cards.process.signal(Signal::TERM).unwrap();
    assert!(cards.process.wait().unwrap().success());
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(begun.elapsed() < Duration::from_secs(3));
    drop(pipes);
}

/// Packets of a pcapng file, and for each of its interfaces how many were seen, and how many of them are
/// not there.
fn told(path: &Path) -> (u64, Vec<[u64; 2]>) {
    let text = std::fs::read(path).unwrap();
    let number = |at: usize| u32::from_ne_bytes(text[at..at + 4].try_into().unwrap());
    let option = |code: u16, block: &[u8]| {
        let head = [code.to_ne_bytes(), 8u16.to_ne_bytes()].concat();
        let at = block.chunks(4).position(|word| word == head).unwrap();
        u64::from_ne_bytes(block[4 * at + 4..][..8].try_into().unwrap())
    };
    let (mut packets, mut statistics, mut at) = (0, Vec::new(), 0);
    while at < text.len() {
        let end = at + number(at + 4) as usize;
        // Each block has its length at its end, too.
        assert_eq!(number(at + 4), number(end - 4));
        match number(at) {
            6 => packets += 1,
            5 => statistics.push([4, 5].map(|code| option(code, &text[at + 20..end]))),
            _ => {}
        }
        at = end;
    }
    (packets, statistics)
}

/// Nobody lets go of the card then.
#[test]
fn a_record_is_finished_when_vnetd_ends() {
    // vnetd gives the disk half a second for it, and an end that takes so long says nothing.
    let in_time = |survive: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let record = format!("file={}", dir.path().join("a.pcapng").display());
        let args = [&["--log", "info", "--record", &record], survive].concat();
        let mut server = Server::start_with("loopback", &args).unwrap();
        let mut nic = server.nic_with(options()).unwrap();
        burst(&mut nic, 1000, 10, 1000);
        let begun = Instant::now();
        let log = server.end().unwrap();
        if begun.elapsed() >= Duration::from_millis(400) {
            return false;
        }
        assert!(
            log.contains("2000 frames were written, 0 were not"),
            "{log}"
        );
        let (packets, statistics) = told(&dir.path().join("a-000000.pcapng"));
        assert_eq!((packets, statistics), (2000, vec![[1000, 0]; 2]));
        true
    };
    for survive in [&[][..], &["--survive"]] {
        assert!((0..10).any(|_| in_time(survive)));
    }
}
