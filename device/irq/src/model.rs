// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Vectors that are raised while the client changes them, in every order.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile checked -p vnet-irq --lib model`

use std::os::fd::OwnedFd;

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::eventfd::tests::{count, eventfd};
use crate::{EventFd, Vector};

/// A vector that a worker raises `times`, while `meanwhile` happens to it.
fn raised(times: u64, before: impl Fn(&Vector), meanwhile: impl FnOnce(&Vector)) -> Arc<Vector> {
    let vector = Arc::new(Vector::default());
    before(&vector);
    let worker = thread::spawn({
        let vector = Arc::clone(&vector);
        move || (0..times).for_each(|_| vector.raise())
    });
    meanwhile(&vector);
    worker.join().unwrap();
    vector
}

/// Interrupts that an eventfd has seen since the last look.
fn seen(reader: &OwnedFd) -> u64 {
    count(reader).unwrap_or(0)
}

#[test]
fn an_eventfd_that_was_replaced_is_written_no_more_and_none_is_lost() {
    loom::model(|| {
        let (old, old_reader) = eventfd();
        let (new, new_reader) = eventfd();
        let mut first = 0;
        let old = std::cell::Cell::new(Some(old));
        let vector = raised(
            2,
            |vector| vector.attach(old.take().unwrap()),
            |vector| {
                vector.attach(new);
                first = seen(&old_reader);
            },
        );
        assert_eq!(seen(&old_reader), 0, "written after it was replaced");
        assert_eq!(first + seen(&new_reader), 2);
        assert!(!vector.is_pending());
    });
}

#[test]
fn what_was_raised_before_there_was_an_eventfd_is_delivered() {
    loom::model(|| {
        let (fd, reader) = eventfd();
        let vector = raised(2, |_| (), |vector| vector.attach(fd));
        // Those before count as one.
        assert!((1..=2).contains(&seen(&reader)));
        assert!(!vector.is_pending());
    });
}

#[test]
fn what_is_held_back_is_delivered_in_the_end_and_not_before() {
    loom::model(|| {
        let (fd, reader) = eventfd();
        let fd = std::cell::Cell::new(Some(fd));
        raised(
            2,
            |vector| {
                vector.attach(fd.take().unwrap());
                vector.hold(true);
            },
            |vector| {
                assert_eq!(seen(&reader), 0);
                vector.hold(false);
            },
        );
        assert!((1..=2).contains(&seen(&reader)));
    });
}

#[test]
fn what_was_detached_is_pending_or_was_delivered() {
    loom::model(|| {
        let (fd, reader) = eventfd();
        let fd = std::cell::Cell::new(Some(fd));
        let mut before = 0;
        let vector = raised(
            1,
            |vector| vector.attach(fd.take().unwrap()),
            |vector| {
                vector.detach();
                before = seen(&reader);
            },
        );
        assert_eq!(seen(&reader), 0, "written after it was detached");
        assert_eq!(before, u64::from(!vector.is_pending()));
    });
}

/// What goes wrong if the lock is given back before the eventfd is written.
#[test]
#[should_panic(expected = "written after it was replaced")]
fn a_write_without_the_lock_reaches_an_eventfd_that_was_replaced() {
    loom::model(|| {
        let (old, old_reader) = eventfd();
        let (new, _new_reader) = eventfd();
        let target = Arc::new(Mutex::new(std::sync::Arc::new(old)));
        let worker = thread::spawn({
            let target = Arc::clone(&target);
            move || {
                let fd: std::sync::Arc<EventFd> = target.lock().unwrap().clone();
                // Loom knows no eventfds: this is where another thread may come in between.
                thread::yield_now();
                fd.signal();
            }
        });
        *target.lock().unwrap() = std::sync::Arc::new(new);
        seen(&old_reader);
        worker.join().unwrap();
        assert_eq!(seen(&old_reader), 0, "written after it was replaced");
    });
}

/// What goes wrong if the eventfd and what waits for one have a lock each.
#[test]
#[should_panic(expected = "neither delivered nor pending")]
fn an_interrupt_that_finds_no_eventfd_and_waits_in_two_steps_is_lost() {
    loom::model(|| {
        let (fd, reader) = eventfd();
        let target = Arc::new(Mutex::new(None::<EventFd>));
        let pending = Arc::new(Mutex::new(false));
        let worker = thread::spawn({
            let (target, pending) = (Arc::clone(&target), Arc::clone(&pending));
            move || {
                let there = target
                    .lock()
                    .unwrap()
                    .as_ref()
                    .map(EventFd::signal)
                    .is_some();
                if !there {
                    *pending.lock().unwrap() = true;
                }
            }
        });
        let mut slot = target.lock().unwrap();
        let fd = slot.insert(fd);
        if std::mem::take(&mut *pending.lock().unwrap()) {
            fd.signal();
        }
        drop(slot);
        worker.join().unwrap();
        assert_eq!(seen(&reader), 1, "neither delivered nor pending");
    });
}
