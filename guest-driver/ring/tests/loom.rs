// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The memory orderings, under every interleaving and every store that a weak machine may show.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile checked -p vnet-ring --test loom`
//!
//! The card's side is written out here step by step, as section 2.7 of virtio 1.2 has it. Models
//! named `…_fails` leave one barrier or ordering out and must find the error: they prove that the
//! others look in the right place.
#![cfg(loom)]
#![allow(missing_docs)]

use loom::sync::atomic::{fence, AtomicBool, AtomicU16, AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

use vnet_contract::ring::{need_event, Desc};
use vnet_ring::{tx, Memory, Slot, Used};

const SIZE: u16 = 2;

/// Which of the driver's orderings are in force.
#[derive(Clone, Copy)]
struct Rules {
    barrier: bool,
    release: bool,
    acquire: bool,
}

const ALL: Rules = Rules {
    barrier: true,
    release: true,
    acquire: true,
};

struct Shared {
    desc: [[AtomicU64; 2]; SIZE as usize],
    avail: [AtomicU16; SIZE as usize],
    avail_index: AtomicU16,
    used_event: AtomicU16,
    used: [AtomicU64; SIZE as usize],
    used_index: AtomicU16,
    avail_event: AtomicU16,
    doorbell: AtomicBool,
    interrupt: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        let word = || AtomicU64::new(0);
        let half = || AtomicU16::new(0);
        Arc::new(Self {
            desc: [[word(), word()], [word(), word()]],
            avail: [half(), half()],
            avail_index: half(),
            used_event: half(),
            used: [word(), word()],
            used_index: half(),
            avail_event: half(),
            doorbell: AtomicBool::new(false),
            interrupt: AtomicBool::new(false),
        })
    }
}

/// The driver's view.
struct Side(Arc<Shared>, Rules);

impl Memory for Side {
    fn size(&self) -> u16 {
        SIZE
    }

    /// Fresh memory is zero already, and every store would multiply the states to explore.
    fn clear(&mut self) {}

    fn write_desc(&mut self, index: u16, desc: Desc) {
        let [a, b] = desc.to_words();
        let words = &self.0.desc[usize::from(index)];
        words[0].store(a, Ordering::Relaxed);
        words[1].store(b, Ordering::Relaxed);
    }

    fn write_avail(&mut self, entry: u16, head: u16) {
        self.0.avail[usize::from(entry)].store(head, Ordering::Relaxed);
    }

    fn publish_avail_index(&mut self, index: u16) {
        let order = if self.1.release {
            Ordering::Release
        } else {
            Ordering::Relaxed
        };
        self.0.avail_index.store(index, order);
    }

    fn write_used_event(&mut self, index: u16) {
        self.0.used_event.store(index, Ordering::Relaxed);
    }

    fn used_index(&self) -> u16 {
        self.0.used_index.load(if self.1.acquire {
            Ordering::Acquire
        } else {
            Ordering::Relaxed
        })
    }

    fn used(&self, entry: u16) -> Used {
        let word = self.0.used[usize::from(entry)].load(Ordering::Relaxed);
        Used {
            id: word as u32,
            len: (word >> 32) as u32,
        }
    }

    fn avail_event(&self) -> u16 {
        self.0.avail_event.load(Ordering::Relaxed)
    }

    fn full_barrier(&self) {
        if self.1.barrier {
            fence(Ordering::SeqCst);
        }
    }
}

type Ring = tx::Ring<Side, Vec<Slot<(u64, u32), u16>>>;

fn ring(shared: &Arc<Shared>, rules: Rules) -> Ring {
    let slots = (0..SIZE).map(|_| Slot::new()).collect();
    Ring::new(Side(shared.clone(), rules), slots).unwrap()
}

fn send(ring: &mut Ring, cookie: u16) {
    let mut chain = ring.begin(1).unwrap();
    chain.push((0x1000 + u64::from(cookie), 60)).unwrap();
    chain.commit(cookie).unwrap();
}

/// The card's side, as one thread runs it.
struct Card {
    shared: Arc<Shared>,
    next_avail: u16,
    next_used: u16,
}

impl Card {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Serves what is available, checking that each chain is as it was published.
    fn serve(&mut self) {
        let index = self.shared.avail_index.load(Ordering::Acquire);
        while self.next_avail != index {
            let entry = usize::from(self.next_avail % SIZE);
            let head = self.shared.avail[entry].load(Ordering::Relaxed);
            let words = &self.shared.desc[usize::from(head)];
            let addr = words[0].load(Ordering::Relaxed);
            assert_eq!(
                addr,
                0x1000 + u64::from(self.next_avail),
                "stale descriptor"
            );
            self.next_avail += 1;
            self.complete(head);
        }
    }

    /// Gives a chain back.
    fn complete(&mut self, head: u16) {
        let entry = usize::from(self.next_used % SIZE);
        self.shared.used[entry].store(u64::from(head), Ordering::Relaxed);
        self.next_used += 1;
        self.shared
            .used_index
            .store(self.next_used, Ordering::Release);
    }

    /// Raises the interrupt if the driver wants one for what came back since `old`.
    fn notify(&self, old: u16) {
        fence(Ordering::SeqCst);
        let event = self.shared.used_event.load(Ordering::Relaxed);
        if need_event(event, self.next_used, old) {
            self.shared.interrupt.store(true, Ordering::Relaxed);
        }
    }

    /// Asks for a doorbell. True if the card may sleep until it rings.
    fn sleep(&self) -> bool {
        self.shared
            .avail_event
            .store(self.next_avail, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.shared.avail_index.load(Ordering::Acquire) == self.next_avail
    }
}

/// A card that falls asleep while the driver publishes: the doorbell rings or the card stays up.
fn doorbell(rules: Rules, chains: u16) {
    loom::model(move || {
        let shared = Shared::new();
        let mut ring = ring(&shared, rules);
        // Nothing asked for yet, as after a batch in which the card was awake.
        shared.avail_event.store(u16::MAX, Ordering::Relaxed);
        let card = thread::spawn({
            let mut card = Card::new(&shared);
            move || {
                while {
                    card.serve();
                    card.next_avail != chains && !card.sleep()
                } {}
                card.next_avail
            }
        });
        for cookie in 0..chains {
            send(&mut ring, cookie);
            if ring.publish().is_some() {
                shared.doorbell.store(true, Ordering::Relaxed);
            }
        }
        let served = card.join().unwrap();
        assert!(
            served == chains || shared.doorbell.load(Ordering::Relaxed),
            "the card sleeps and was not woken"
        );
    });
}

/// A driver that re-arms while the card completes: an interrupt comes or the driver polls on.
fn interrupt(rules: Rules, chains: u16, delayed: bool) {
    loom::model(move || {
        let shared = Shared::new();
        let mut ring = ring(&shared, rules);
        for cookie in 0..chains {
            send(&mut ring, cookie);
        }
        let _ = ring.publish();
        ring.disable_interrupts();
        let card = thread::spawn({
            let mut card = Card::new(&shared);
            move || {
                for _ in 0..chains {
                    let old = card.next_used;
                    let entry = usize::from(card.next_avail % SIZE);
                    let head = card.shared.avail[entry].load(Ordering::Relaxed);
                    card.next_avail += 1;
                    card.complete(head);
                    card.notify(old);
                }
            }
        });
        // One poll: take what is there, then ask for an interrupt or see that there is more.
        let mut taken = 0;
        loop {
            while let Some(cookie) = ring.reclaim().unwrap() {
                assert_eq!(cookie, taken, "a stale used entry");
                taken += 1;
            }
            let armed = if delayed {
                ring.enable_interrupts_delayed()
            } else {
                ring.enable_interrupts()
            };
            if armed {
                break;
            }
        }
        card.join().unwrap();
        assert!(
            taken == chains || shared.interrupt.load(Ordering::Relaxed),
            "the driver sleeps and was not woken"
        );
    });
}

#[test]
fn a_sleeping_card_is_woken() {
    doorbell(ALL, 1);
    doorbell(ALL, 2);
}

#[test]
fn a_sleeping_driver_is_woken() {
    interrupt(ALL, 1, false);
    interrupt(ALL, 2, false);
}

#[test]
fn a_driver_that_waits_for_several_is_woken() {
    interrupt(ALL, 1, true);
    interrupt(ALL, 2, true);
}

#[test]
#[should_panic(expected = "the card sleeps and was not woken")]
fn a_doorbell_without_the_barrier_fails() {
    let rules = Rules {
        barrier: false,
        ..ALL
    };
    doorbell(rules, 1);
}

#[test]
#[should_panic(expected = "the driver sleeps and was not woken")]
fn a_re_arm_without_the_barrier_fails() {
    let rules = Rules {
        barrier: false,
        ..ALL
    };
    interrupt(rules, 1, false);
}

#[test]
#[should_panic(expected = "stale descriptor")]
fn a_publication_without_release_fails() {
    let rules = Rules {
        release: false,
        ..ALL
    };
    doorbell(rules, 1);
}

#[test]
#[should_panic(expected = "IdNotHeld")]
fn a_used_index_without_acquire_fails() {
    let rules = Rules {
        acquire: false,
        ..ALL
    };
    interrupt(rules, 2, false);
}
