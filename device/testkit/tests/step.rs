// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that are paused and go on a step at a time, through the sockets of a real server.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{options, own, round_trip, silence};
use serde_json::{json, Value};
use vnet_control::{Class, Client, ClientError, Request};
use vnet_testkit::{Cards, Nic, Options, QUIET};

const CONFIG: &str = r#"
control = "@DIR@/control"

[[card]]
name = "a"
socket = "@DIR@/a.sock"
net = "loopback"
sanitize = "strict"
"#;

const RX: u16 = 0;
const TX: u16 = 1;

struct Rig {
    cards: Cards,
    client: Client,
    nic: Nic,
}

impl Rig {
    fn new(options: Options) -> Self {
        let cards = Cards::start(CONFIG, &["a.sock", "control"]).unwrap();
        let client = Client::connect(&cards.path("control")).unwrap();
        let nic = cards.nic("a.sock", options).unwrap();
        Self { cards, client, nic }
    }

    fn call(&mut self, execute: &str, arguments: Value) -> Result<Value, ClientError> {
        let request = Request {
            execute: execute.into(),
            arguments: arguments.as_object().unwrap().clone(),
            id: None,
        };
        self.client.call(&request.command().unwrap())
    }

    fn ask(&mut self, execute: &str) -> Value {
        self.call(execute, json!({"card": "a"})).unwrap()
    }

    /// One step of a queue, which must be the one that was announced. The used index moves with "use"
    /// alone, and the interrupts are counted with "signal" alone.
    fn step(&mut self, queue: u16, due: &str) -> Value {
        let name = ["rx0", "tx0"][usize::from(queue)];
        let before = self.seen();
        let arguments = json!({"card": "a", "queue": name});
        let done = self.call("card-step", arguments).unwrap();
        let did = &done["did"];
        assert_eq!(
            (&did["step"], &done["queue"]),
            (&due.into(), &name.into()),
            "{done}"
        );
        let after = self.seen();
        let mut expected = before;
        match due {
            "use" => {
                let entries = did["values"]["entries"].as_array().unwrap().len() as u16;
                let old = before.used[usize::from(queue)];
                let new = old.wrapping_add(entries);
                assert_eq!(did["values"]["old"], old);
                assert_eq!(did["values"]["new"], new);
                expected.used[usize::from(queue)] = new;
            }
            "signal" => expected.interrupts[usize::from(queue)] += 1,
            _ => {}
        }
        assert_eq!(after, expected, "{done}");
        done
    }

    /// The same for all of these, each of which announces the next.
    fn steps(&mut self, queue: u16, names: &[&str]) -> Value {
        let mut last = Value::Null;
        for name in names {
            if let Some(announced) = last["next"]["step"].as_str() {
                assert_eq!(announced, *name);
            }
            last = self.step(queue, name);
        }
        last
    }

    fn seen(&mut self) -> Seen {
        let counters = self.ask("card-counters");
        let interrupts = |n: usize| counters[0]["queues"][n]["interrupts"].as_u64().unwrap();
        Seen {
            used: [self.nic.used_index(RX), self.nic.used_index(TX)],
            interrupts: [interrupts(0), interrupts(1)],
        }
    }

    /// Shows the card a frame.
    fn send(&mut self, seed: u64) -> Vec<u8> {
        let frame = own(&self.nic, 100, seed);
        self.nic.send(0, &frame).unwrap();
        frame
    }

    /// The driver broke no rule of the card, for all that was done.
    fn end(mut self) {
        let rules = self.ask("rules-show");
        assert_eq!(rules["total"], 0, "{rules}");
        drop(self.nic);
        drop(self.cards);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    used: [u16; 2],
    interrupts: [u64; 2],
}

/// A frame without an interrupt.
const QUIETLY: [&str; 5] = ["fetch", "read", "hand", "use", "decide"];

#[test]
fn each_step_does_what_it_says() {
    let mut rig = Rig::new(options());
    round_trip(&mut rig.nic, 0, 1);
    // Interrupts for the next used entry of both queues, as a driver at rest wants them.
    assert!(rig.nic.arm(0).unwrap());
    let paused = rig.ask("card-pause");
    // The round of that frame may have ended after it came, with an interrupt.
    while rig.nic.vectors[0].wait(Duration::ZERO).unwrap() {}
    assert_eq!(paused["queues"].as_array().unwrap().len(), 2);
    assert_eq!(paused["queues"][0]["next"]["step"], "fetch");
    assert_eq!(rig.ask("card-show")["paused"], json!(["rx0", "tx0"]));

    let frame = rig.send(7);
    silence(&mut rig.nic, 0);
    assert!(rig.nic.arm(0).unwrap());
    let sent = rig.steps(TX, &["fetch", "read", "hand"]);
    assert_eq!(sent["did"]["values"]["result"], "taken");
    let start = sent["did"]["values"]["frame-start"].as_str().unwrap();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, start);
    rig.steps(TX, &["use", "decide"]);
    assert!(!rig.nic.vectors[0].wait(QUIET).unwrap());
    let last = rig.step(TX, "signal");
    assert_eq!(last["next"]["step"], "fetch");
    assert!(rig.nic.vectors[0].wait(Duration::ZERO).unwrap());
    assert_eq!(rig.nic.try_receive(0).unwrap(), None);

    // It comes back.
    rig.steps(RX, &["fetch", "read", "hand", "use", "decide"]);
    // The driver's event index stands where it was.
    let last = rig.step(RX, "signal");
    assert_eq!(last["next"]["step"], "fetch");
    let got = rig.nic.try_receive(0).unwrap().unwrap();
    assert_eq!(got.frame, frame);

    // A driver that polls wants no interrupt.
    rig.send(8);
    let decided = rig.steps(TX, &QUIETLY);
    assert_eq!(decided["did"]["values"]["due"], false);
    assert_eq!(decided["next"]["step"], "fetch");
    // Nothing more: it asks for a doorbell, and gets one.
    let fetched = rig.step(TX, "fetch");
    let event = fetched["did"]["values"]["avail-event"].as_u64().unwrap();
    assert_eq!(event, fetched["did"]["values"]["avail"].as_u64().unwrap());

    let resumed = rig.ask("card-resume");
    assert_eq!(resumed["queues"], json!([]));
    assert!(rig.nic.expect(0).unwrap().frame.len() == 100);
    for seed in 0..5 {
        round_trip(&mut rig.nic, 0, seed);
    }
    rig.end();
}

#[test]
fn the_queue_with_most_to_do_is_stepped() {
    let mut rig = Rig::new(options());
    round_trip(&mut rig.nic, 0, 1);
    rig.ask("card-pause");
    let frame = rig.send(2);
    let mut way = Vec::new();
    // A receive buffer may be fetched before there is a frame for it, but nothing is done in vain.
    while rig.nic.try_receive(0).unwrap().map(|got| got.frame) != Some(frame.clone()) {
        let done = rig.ask("card-step");
        let part = |value: &Value| value.as_str().unwrap().to_owned();
        way.push(part(&done["queue"]) + " " + &part(&done["did"]["step"]));
        assert!(way.len() <= 12, "{way:?}");
    }
    let at = |name: &str| way.iter().position(|step| step == name);
    assert!(at("tx0 hand").unwrap() < at("rx0 hand").unwrap(), "{way:?}");
    rig.ask("card-resume");
    round_trip(&mut rig.nic, 0, 3);
    rig.end();
}

#[test]
fn a_queue_goes_on_from_any_step() {
    let mut rig = Rig::new(options());
    for steps in 0..=QUIETLY.len() {
        round_trip(&mut rig.nic, 0, 1);
        rig.ask("card-pause");
        let frame = rig.send(steps as u64);
        rig.steps(TX, &QUIETLY[..steps]);
        rig.ask("card-resume");
        // Once, and no more.
        assert_eq!(rig.nic.expect(0).unwrap().frame, frame, "after {steps}");
        silence(&mut rig.nic, 0);
        rig.nic.drain(0).unwrap();

        rig.ask("card-pause");
        let frame = rig.send(100 + steps as u64);
        rig.steps(TX, &QUIETLY);
        rig.steps(RX, &QUIETLY[..steps]);
        rig.ask("card-resume");
        assert_eq!(rig.nic.expect(0).unwrap().frame, frame, "after {steps}");
        silence(&mut rig.nic, 0);
        rig.nic.drain(0).unwrap();
    }
    rig.end();
}

#[test]
fn stop_and_reset_do_not_wait_for_a_step() {
    let mut rig = Rig::new(options());
    for steps in 0..QUIETLY.len() {
        for reset in [false, true] {
            round_trip(&mut rig.nic, 0, 1);
            rig.nic.drain(0).unwrap();
            rig.ask("card-pause");
            rig.send(5);
            rig.steps(TX, &QUIETLY[..steps]);
            rig.steps(RX, &["fetch", "read"]);
            match reset {
                true => rig.nic.restart().unwrap(),
                false => {
                    for queue in [TX, RX] {
                        rig.nic.stop(queue).unwrap();
                        rig.nic.resume(queue).unwrap();
                    }
                }
            }
            // It is paused still, and has nothing in hand.
            assert_eq!(rig.ask("card-show")["paused"], json!(["rx0", "tx0"]));
            assert_eq!((rig.nic.used_index(TX), rig.nic.used_index(RX)), (0, 0));
            let frame = rig.send(6);
            rig.steps(TX, &QUIETLY[..4]);
            rig.ask("card-resume");
            // The first frame may have left before, and come back after the queues were started.
            let mut got = rig.nic.expect(0).unwrap().frame;
            if got != frame {
                assert_eq!(got, own(&rig.nic, 100, 5));
                got = rig.nic.expect(0).unwrap().frame;
            }
            assert_eq!(got, frame, "after {steps}");
        }
    }
    // A client that goes while something is in hand.
    rig.ask("card-pause");
    rig.send(9);
    rig.steps(TX, &["fetch", "read"]);
    drop(rig.nic);
    rig.nic = rig.cards.nic("a.sock", options()).unwrap();
    rig.ask("card-resume");
    round_trip(&mut rig.nic, 0, 2);
    rig.end();
}

#[test]
fn a_frame_that_needs_several_buffers_takes_them_one_by_one() {
    let small = Options {
        rx_buffer: 64,
        ..options()
    };
    let mut rig = Rig::new(small);
    rig.ask("card-pause");
    // 100 bytes and a header of 12 take two buffers.
    let frame = rig.send(3);
    rig.steps(TX, &QUIETLY);
    let waits = rig.steps(RX, &["fetch", "read", "hand"]);
    assert_eq!(waits["did"]["values"]["result"], "waits");
    assert_eq!(waits["did"]["values"]["room"], 52);
    let got = rig.steps(RX, &["fetch", "read", "hand"]);
    assert_eq!(got["did"]["values"]["result"], "delivered");
    let used = rig.step(RX, "use");
    assert_eq!(
        used["did"]["values"]["entries"].as_array().unwrap().len(),
        2
    );
    assert_eq!(rig.nic.try_receive(0).unwrap().unwrap().frame, frame);
    rig.ask("card-resume");
    let frame = rig.send(4);
    let got = rig.nic.expect(0).unwrap();
    assert_eq!((got.header.num_buffers, got.frame), (2, frame));
    rig.end();
}

#[test]
fn what_cannot_be_stepped_is_told() {
    let mut rig = Rig::new(options());
    let refused = |rig: &mut Rig, queue: &str, class: Class, part: &str| {
        let arguments = json!({"card": "a", "queue": queue});
        match rig.call("card-step", arguments) {
            Err(ClientError::Refused(e)) => {
                assert_eq!(e.class, class, "{e}");
                assert!(e.desc.contains(part), "{e}");
            }
            other => panic!("{other:?}"),
        }
    };
    refused(&mut rig, "tx0", Class::Failed, "tx0 is not paused");
    refused(&mut rig, "tx1", Class::BadArgument, "there is no tx1");
    refused(&mut rig, "tx00", Class::BadArgument, "there is no tx00");
    rig.call("card-pause", json!({"card": "a", "queue": "tx0"}))
        .unwrap();
    rig.nic.stop(TX).unwrap();
    refused(&mut rig, "tx0", Class::Failed, "does not run");
    refused(&mut rig, "rx0", Class::Failed, "rx0 is not paused");
    // One queue can stand still while the other works.
    rig.nic.resume(TX).unwrap();
    rig.call("card-resume", json!({"card": "a", "queue": "tx0"}))
        .unwrap();
    rig.call("card-pause", json!({"card": "a", "queue": "rx0"}))
        .unwrap();
    let frame = rig.send(1);
    rig.nic.drain(0).unwrap();
    silence(&mut rig.nic, 0);
    rig.steps(RX, &QUIETLY);
    assert_eq!(rig.nic.try_receive(0).unwrap().unwrap().frame, frame);
    rig.ask("card-resume");
    round_trip(&mut rig.nic, 0, 2);
    rig.end();
}
