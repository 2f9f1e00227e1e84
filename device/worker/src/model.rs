// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a pair is handed from thread to thread, in every order of steps and with every store that a
//! weak machine may show late.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile checked -p vnet-worker --lib model`
//!
//! Models named `…_fails` leave out one thing and must find the error: they prove that the others
//! look in the right place.

use loom::sync::atomic::{fence, AtomicU16, AtomicUsize, Ordering};
use loom::sync::Arc;
use loom::thread;

use vnet_contract::ring::need_event;

use crate::gate::Gate;
use crate::handover::{serve_or_kick, Rest};
use crate::kick::{Event, Kick};

/// An eventfd: what is written is seen by whoever reads it, as the kernel's lock has it.
#[derive(Default)]
struct Fd(AtomicUsize);

impl Event for Fd {
    fn set(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn reset(&self) {
        self.0.swap(0, Ordering::AcqRel);
    }
}

/// A kick, and a look at whether it would wake a sleeper.
struct Bed {
    fd: Arc<Fd>,
    kick: Kick<Arc<Fd>>,
}

impl Event for Arc<Fd> {
    fn set(&self) {
        (**self).set();
    }

    fn reset(&self) {
        (**self).reset();
    }
}

impl Bed {
    fn new() -> Self {
        let fd = Arc::new(Fd::default());
        Self {
            kick: Kick::on(Arc::clone(&fd)),
            fd,
        }
    }

    /// What `poll` would say.
    fn is_called(&self) -> bool {
        self.fd.0.load(Ordering::Acquire) != 0
    }
}

/// A worker that only clears its kick, while two causes come up.
fn kicks(clear: impl Fn(&Bed) + Send + Sync + Copy + 'static) {
    loom::model(move || {
        let bed = Arc::new(Bed::new());
        let work = Arc::new(AtomicUsize::new(0));
        let worker = thread::spawn({
            let (bed, work) = (Arc::clone(&bed), Arc::clone(&work));
            move || {
                let mut seen = 0;
                for _ in 0..2 {
                    if bed.is_called() {
                        clear(&bed);
                        seen = work.load(Ordering::Relaxed);
                    }
                }
                seen
            }
        });
        for cause in 1..=2 {
            work.store(cause, Ordering::Relaxed);
            bed.kick.kick();
        }
        let seen = worker.join().unwrap();
        assert!(seen == 2 || bed.is_called(), "a kick was lost");
        if !bed.is_called() {
            bed.kick.kick();
            assert!(bed.is_called(), "a kick does nothing from now on");
        }
    });
}

#[test]
fn a_kick_while_the_last_one_is_cleared_is_not_lost() {
    kicks(|bed| bed.kick.clear());
}

#[test]
#[should_panic(expected = "a kick ")]
fn an_event_that_is_reset_after_the_flag_fails() {
    kicks(|bed| {
        bed.kick.clear();
        bed.fd.reset();
    });
}

/// What the lock of a pair protects.
struct Pair {
    /// The avail index that was served, and shown to the driver as the event.
    served: u16,
    /// The worker sleeps until it is kicked.
    sleeps: bool,
}

struct Card {
    gate: Gate<Pair>,
    bed: Bed,
    avail_index: AtomicU16,
    avail_event: AtomicU16,
    barrier: bool,
}

impl Card {
    fn new(barrier: bool) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(Pair {
                served: 0,
                sleeps: false,
            }),
            bed: Bed::new(),
            avail_index: AtomicU16::new(0),
            // Nothing asked for yet.
            avail_event: AtomicU16::new(u16::MAX),
            barrier,
        })
    }

    /// A round. True if there is more to do.
    fn serve(&self, pair: &mut Pair, arm: bool) -> bool {
        pair.served = self.avail_index.load(Ordering::Acquire);
        if !arm {
            return false;
        }
        self.avail_event.store(pair.served, Ordering::Relaxed);
        if self.barrier {
            fence(Ordering::SeqCst);
        }
        self.avail_index.load(Ordering::Relaxed) != pair.served
    }

    /// The worker, until it would sleep.
    fn work(&self) {
        loop {
            let again = {
                let mut pair = self.gate.lock();
                let again = self.serve(&mut pair, true);
                pair.sleeps = !again;
                again
            };
            if again {
                continue;
            }
            if !self.bed.is_called() {
                return;
            }
            self.bed.kick.clear();
        }
    }

    fn doorbell(&self) {
        serve_or_kick(&self.gate, &self.bed.kick, |pair| {
            let sleeps = pair.sleeps;
            match self.serve(pair, sleeps) && sleeps {
                true => Rest::Work,
                false => Rest::Nothing,
            }
        });
    }

    /// A driver that makes `count` chains available, one after the other.
    fn drive(&self, count: u16) {
        for index in 1..=count {
            self.avail_index.store(index, Ordering::Release);
            fence(Ordering::SeqCst);
            let event = self.avail_event.load(Ordering::Relaxed);
            if need_event(event, index, index - 1) {
                self.doorbell();
            }
        }
    }
}

fn stream(barrier: bool, chains: u16) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let card = Card::new(barrier);
        let worker = thread::spawn({
            let card = Arc::clone(&card);
            move || card.work()
        });
        card.drive(chains);
        worker.join().unwrap();
        assert!(
            card.gate.lock().served == chains || card.bed.is_called(),
            "the pair sleeps on work"
        );
    });
}

#[test]
fn no_doorbell_is_lost_between_the_worker_and_who_serves_for_it() {
    stream(true, 1);
    stream(true, 2);
}

#[test]
#[should_panic(expected = "the pair sleeps on work")]
fn a_re_arm_without_the_barrier_fails() {
    stream(false, 1);
}

/// Two pairs that have something for each other. Each delivers with its own lock held.
fn exchange(kick: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let pairs: Arc<[(Gate<usize>, AtomicUsize, Bed); 2]> =
            Arc::new([0, 1].map(|_| (Gate::new(0), AtomicUsize::new(0), Bed::new())));
        let threads = [0, 1].map(|own: usize| {
            let pairs = Arc::clone(&pairs);
            move || {
                let (gate, inbox, bed) = &pairs[own];
                let (other_gate, other_inbox, other_bed) = &pairs[1 - own];
                let mut delivered = false;
                loop {
                    {
                        let mut taken = gate.lock();
                        *taken += inbox.swap(0, Ordering::AcqRel);
                        if !delivered {
                            delivered = true;
                            other_inbox.fetch_add(1, Ordering::AcqRel);
                            let take = |taken: &mut usize| {
                                *taken += other_inbox.swap(0, Ordering::AcqRel);
                                Rest::Nothing
                            };
                            match kick {
                                true => serve_or_kick(other_gate, &other_bed.kick, take),
                                false => {
                                    let mut taken = other_gate.try_lock();
                                    taken.as_deref_mut().map(take);
                                }
                            }
                        }
                    }
                    if !bed.is_called() {
                        return;
                    }
                    bed.kick.clear();
                }
            }
        });
        let [first, second] = threads;
        let first = thread::spawn(first);
        second();
        first.join().unwrap();
        for (gate, _, bed) in pairs.iter() {
            assert!(*gate.lock() == 1 || bed.is_called(), "a parcel waits");
        }
    });
}

#[test]
fn pairs_that_deliver_to_each_other_neither_wait_nor_forget() {
    exchange(true);
}

#[test]
#[should_panic(expected = "a parcel waits")]
fn a_delivery_that_kicks_nobody_fails() {
    exchange(false);
}
