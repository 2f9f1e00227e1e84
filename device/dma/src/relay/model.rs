// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A worker and the message thread at the relay, in every order of their steps.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile checked -p vnet-dma --lib model`
//!
//! Nobody runs out of patience here, for loom's waits have no end: a worker that only its patience
//! would save is found. Models named `…_fails` do one thing wrong and must find the error.

use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vm_memory::Bytes;

use super::*;
use crate::Mapping;

/// Each stretch has a range of its own.
const STRETCHES: [Stretch; 2] = [
    Stretch { address: 0, len: 4 },
    Stretch {
        address: 0x1000,
        len: 4,
    },
];
/// What the worker leaves in a mirror after an exchange that failed.
const MARK: u8 = 0xee;

/// What the message thread hears of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    /// The client answers what it was asked first.
    Answer,
    /// The client refuses that.
    Refuse,
    /// The card is reset.
    Reset,
    /// The range of the second stretch is unmapped.
    Unmap,
    /// The client leaves.
    Leave,
}
use Deed::{Answer, Leave, Refuse, Reset, Unmap};

/// What a twin does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// The event is cleared behind the look that it called for.
    ClearsLate,
    /// What was refused goes on waiting for a client that has left.
    WaitsForNobody,
    /// An answer is taken without a look at which exchange it is for.
    TakesAny,
}

struct Bed {
    relay: Relay,
    space: AddressSpace,
    map: Arc<DmaMap>,
    flaw: Flaw,
    /// Loom need not know of the rest: it is not what threads meet with.
    asked: std::sync::Mutex<VecDeque<Ask>>,
    done: AtomicBool,
}

impl Bed {
    fn new(flaw: Flaw) -> Self {
        let space = AddressSpace::new();
        space.set_bus_master(true);
        assert!(space.set_relayed(true));
        for stretch in STRETCHES {
            let mapping = Mapping {
                address: stretch.address,
                size: 0x1000,
                file: None,
                offset: 0,
                read: true,
                write: true,
            };
            space.map(mapping).unwrap();
        }
        let relay = Relay::with_patience(Mirrors::default(), Duration::MAX).unwrap();
        relay.set_open(true);
        Self {
            relay,
            map: space.mirrored().unwrap(),
            space,
            flaw,
            asked: Default::default(),
            done: AtomicBool::new(false),
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, VecDeque<Ask>> {
        self.asked.lock().unwrap()
    }

    /// The worker, with two exchanges.
    fn work(&self, way: Way) -> [Result<(), Failure>; 2] {
        let results = [(); 2].map(|()| {
            let turn = self.relay.turn();
            let result = turn.exchange(&self.map, way, STRETCHES);
            let number = self.relay.lock().number;
            let on_its_way = self.asked().iter().any(|ask| ask.exchange == number);
            match (result, way) {
                (Ok(()), _) => assert!(!on_its_way, "done before it was answered"),
                (Err(Failure::Refused(_)), Way::Push) => assert!(!on_its_way, "not at rest"),
                (Err(Failure::Cancelled), _) => {
                    let next = turn.exchange(&self.map, way, STRETCHES);
                    assert!(next.is_err(), "a turn goes on after a reset");
                }
                _ => {}
            }
            if result.is_err() {
                self.fill(MARK);
            } else if way == Way::Pull {
                self.assert_filled(number as u8);
            }
            result
        });
        self.done.store(true, Ordering::Relaxed);
        results
    }

    fn fill(&self, byte: u8) {
        for Stretch { address, .. } in STRETCHES {
            self.map
                .write_slice(&[byte; 4], GuestAddress(address))
                .unwrap();
        }
    }

    fn assert_filled(&self, byte: u8) {
        for Stretch { address, .. } in STRETCHES {
            let mut found = [0; 4];
            self.map
                .read_slice(&mut found, GuestAddress(address))
                .unwrap();
            assert_eq!(found, [byte; 4], "data of another exchange");
        }
    }

    /// The message thread: these deeds, then all that is left to answer, unless the client leaves.
    fn serve(&self, deeds: &[Deed]) {
        let mut unmapped = false;
        for deed in deeds {
            self.ask(unmapped);
            match deed {
                Answer | Refuse => {
                    while self.asked().is_empty() && self.sleep() {
                        self.ask(unmapped);
                    }
                    self.answer(*deed == Answer);
                }
                Reset => self.relay.cancel(),
                Unmap => unmapped = self.space.unmap(STRETCHES[1].address, 1) == 1,
                Leave => {
                    self.leave();
                    self.asked().clear();
                    assert!(self.relay.next(&self.space, 4).is_none());
                    assert!(!self.relay.is_writing());
                    return;
                }
            }
        }
        loop {
            self.ask(unmapped);
            while self.answer(true) {
                self.ask(unmapped);
            }
            if !self.sleep() {
                break;
            }
        }
        assert!(!self.relay.is_writing());
    }

    /// Asks for what there is to ask for.
    fn ask(&self, unmapped: bool) {
        while let Some(ask) = self.relay.next(&self.space, 4) {
            let gone = unmapped && ask.address == STRETCHES[1].address;
            assert!(!gone, "asks for what was unmapped");
            self.asked().push_back(ask);
        }
        if self.flaw == Flaw::ClearsLate {
            // Loom knows no eventfds: this is where the worker may come in between.
            thread::yield_now();
            self.relay.clear();
        }
    }

    /// Answers the oldest request, with the number of its exchange. False: there is none.
    fn answer(&self, good: bool) -> bool {
        let Some(ask) = self.asked().pop_front() else {
            return false;
        };
        let data = [ask.exchange as u8; 4];
        if self.flaw == Flaw::TakesAny {
            ask.fill(&data);
        }
        let data = match ask.way {
            Way::Pull => &data[..],
            Way::Push => &[],
        };
        self.relay.answered(&ask, good.then_some(data).ok_or(()));
        true
    }

    fn leave(&self) {
        if self.flaw != Flaw::WaitsForNobody {
            return self.relay.set_open(false);
        }
        let mut inner = self.relay.lock();
        inner.open = false;
        if let Some(exchange) = &mut inner.current {
            exchange.failed.get_or_insert(Failure::Closed);
        }
        (inner.window, inner.pushes) = (0, 0);
        self.relay.news.notify_all();
    }

    /// Until the event has come up. False: the worker is done.
    fn sleep(&self) -> bool {
        for _ in 0..5 {
            if self.done.load(Ordering::Relaxed) {
                return false;
            }
            let mut event = [PollFd::new(&self.relay, PollFlags::IN)];
            if poll(&mut event, Some(&Timespec::default())).unwrap() == 1 {
                if self.flaw != Flaw::ClearsLate {
                    self.relay.clear();
                }
                return true;
            }
            // Until the worker can do nothing more.
            thread::yield_now();
        }
        panic!("the worker waits, and nobody wakes the message thread");
    }
}

/// Every cause of a failure that is due after these deeds is fine, and no other.
fn is_due(result: Result<(), Failure>, deeds: &[Deed]) -> bool {
    match result {
        Ok(()) => true,
        Err(Failure::Refused(_)) => deeds.contains(&Refuse) || deeds.contains(&Unmap),
        Err(Failure::Cancelled) => deeds.contains(&Reset),
        Err(Failure::Closed) => deeds.contains(&Leave),
        Err(Failure::Silent) => false,
    }
}

fn check(flaw: Flaw, way: Way, deeds: &[Deed]) {
    let deeds = deeds.to_vec();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let bed = Arc::new(Bed::new(flaw));
        let worker = thread::spawn({
            let bed = Arc::clone(&bed);
            move || bed.work(way)
        });
        bed.serve(&deeds);
        let results = worker.join().unwrap();
        for result in results {
            assert!(is_due(result, &deeds), "{result:?} after {deeds:?}");
        }
        if results[1].is_err() {
            // Answers that came late have come by now.
            bed.assert_filled(MARK);
        }
    });
}

/// Whatever happens to an exchange, in any order, and whether or not the client leaves then.
fn all(way: Way) {
    const DEEDS: [Deed; 4] = [Answer, Refuse, Reset, Unmap];
    for first in DEEDS {
        for second in DEEDS {
            check(Flaw::None, way, &[first, second]);
            check(Flaw::None, way, &[first, second, Leave]);
        }
    }
}

#[test]
fn a_pull_ends_and_leaves_no_late_data() {
    all(Way::Pull);
}

#[test]
fn a_push_ends_and_after_a_refusal_not_before_it_is_at_rest() {
    all(Way::Push);
}

#[test]
#[should_panic(expected = "nobody wakes the message thread")]
fn an_event_that_is_cleared_behind_the_look_fails() {
    check(Flaw::ClearsLate, Way::Pull, &[]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_refusal_that_waits_for_who_has_left_fails() {
    check(Flaw::WaitsForNobody, Way::Push, &[Refuse, Leave]);
}

#[test]
#[should_panic(expected = "data of another exchange")]
fn an_answer_that_is_taken_without_a_look_fails() {
    check(Flaw::TakesAny, Way::Pull, &[Reset, Reset]);
}
