// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One MSI-X vector.

use std::sync::{Arc, PoisonError};

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::EventFd;

/// One MSI-X vector: where its interrupt goes, and whether one waits.
///
/// The eventfd sits behind a mutex that is held while it is written. Uncontended this costs a
/// small part of the write, and it gives the guarantee that matters: when [`Self::attach`] or
/// [`Self::detach`] has returned, no thread writes the former eventfd any more. A write that the
/// client holds up is ended by another thread.
///
/// Aligned so that vectors of different workers share no cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Vector {
    state: Mutex<State>,
    /// The same eventfd, for who has to reach it while it is written. Locked for an instant, with
    /// the lock of `state` or without.
    written: Mutex<Option<Arc<EventFd>>>,
    raised: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    target: Option<Arc<EventFd>>,
    held: bool,
    pending: bool,
}

impl State {
    /// Delivers what is pending if it can be delivered.
    fn flush(&mut self) {
        if let (true, false, Some(target)) = (self.pending, self.held, &self.target) {
            target.signal();
            self.pending = false;
        }
    }
}

impl Vector {
    /// Raises the interrupt. With nothing attached, or while it is held, it becomes pending.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.pending = true;
        state.flush();
    }

    /// Sends the interrupt to this eventfd from now on, and delivers one that was pending.
    pub fn attach(&self, fd: EventFd) {
        let mut state = self.lock();
        self.aim(&mut state, Some(Arc::new(fd)));
        state.flush();
    }

    /// Holds the interrupt back, or stops to, and delivers one that was pending.
    pub fn hold(&self, held: bool) {
        let mut state = self.lock();
        state.held = held;
        state.flush();
    }

    /// Takes the eventfd away.
    pub fn detach(&self) {
        self.aim(&mut self.lock(), None);
    }

    /// Ends the write that somebody waits in, if it is one that a client holds up. Waits for nobody.
    pub(crate) fn release(&self) {
        // As a rule nobody is at it.
        if self.state.try_lock().is_ok() {
            return;
        }
        let written = self.written.lock();
        if let Some(target) = &*written.unwrap_or_else(PoisonError::into_inner) {
            target.make_room();
        }
    }

    /// True if the interrupt was raised and could not be delivered yet.
    pub fn is_pending(&self) -> bool {
        self.lock().pending
    }

    /// Forgets a pending interrupt.
    pub fn clear_pending(&self) {
        self.lock().pending = false;
    }

    /// How often the interrupt was raised since the server started.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    fn aim(&self, state: &mut State, target: Option<Arc<EventFd>>) {
        let written = self.written.lock();
        written
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&target);
        state.target = target;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::eventfd::tests::{count, eventfd, eventfd_with};
    use crate::Vectors;
    use rustix::event::EventfdFlags;
    use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
    use rustix::io::write;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn raised_without_a_target_waits_for_one_and_fires_once() {
        let vector = Vector::default();
        vector.raise();
        vector.raise();
        assert!(vector.is_pending());
        let (fd, reader) = eventfd();
        vector.attach(fd);
        assert_eq!(count(&reader), Some(1));
        assert!(!vector.is_pending());
        let (fd, again) = eventfd();
        vector.attach(fd);
        assert_eq!((count(&reader), count(&again)), (None, None));
        assert_eq!(vector.raised(), 2);
    }

    #[test]
    fn a_replaced_or_detached_fd_stays_silent() {
        let vector = Vector::default();
        let (old, old_reader) = eventfd();
        let (new, new_reader) = eventfd();
        vector.attach(old);
        vector.attach(new);
        vector.raise();
        assert_eq!((count(&old_reader), count(&new_reader)), (None, Some(1)));
        vector.detach();
        vector.raise();
        assert_eq!(count(&new_reader), None);
        vector.clear_pending();
        assert!(!vector.is_pending());
    }

    #[test]
    fn what_is_raised_while_held_waits_also_for_a_target() {
        let vector = Vector::default();
        let (fd, reader) = eventfd();
        vector.attach(fd);
        vector.hold(true);
        vector.raise();
        assert!(vector.is_pending());
        assert_eq!(count(&reader), None);
        vector.hold(false);
        assert_eq!((count(&reader), vector.is_pending()), (Some(1), false));

        vector.hold(true);
        vector.detach();
        vector.raise();
        let (fd, reader) = eventfd();
        vector.attach(fd);
        assert_eq!((count(&reader), vector.is_pending()), (None, true));
        vector.hold(false);
        assert_eq!((count(&reader), vector.is_pending()), (Some(1), false));
    }

    #[test]
    fn no_interrupt_is_lost_while_the_fd_is_replaced() {
        const REPLACED: usize = 100;
        let vector = Vector::default();
        let (fd, reader) = eventfd();
        vector.attach(fd);
        let mut readers = vec![reader];
        std::thread::scope(|scope| {
            let replaced = Arc::new(());
            let going_on = Arc::downgrade(&replaced);
            let vector = &vector;
            scope.spawn(move || {
                while going_on.strong_count() != 0 {
                    vector.raise();
                }
            });
            // Raises meet every replacement: none starts before there was one since the last.
            for _ in 0..REPLACED {
                let before = vector.raised();
                while vector.raised() == before {
                    std::thread::yield_now();
                }
                let (fd, reader) = eventfd();
                vector.attach(fd);
                readers.push(reader);
            }
            drop(replaced);
        });
        // Something was attached all the time, so every raise is counted by one of the eventfds.
        let seen: u64 = readers.iter().filter_map(count).sum();
        assert_eq!(seen, vector.raised());
        assert!(seen >= REPLACED as u64);
    }

    /// A client that filled the counter right after the look, and that is gone.
    fn held_up(flags: EventfdFlags) {
        let vectors = Vectors::new(1).unwrap();
        let (fd, client) = eventfd_with(flags);
        vectors.attach(0, vec![fd]).unwrap();
        let flags = fcntl_getfl(&client).unwrap();
        fcntl_setfl(&client, flags - OFlags::NONBLOCK).unwrap();
        write(&client, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        drop(client);
        let vector = Arc::clone(vectors.get(0).unwrap());
        let (done, released) = channel();
        thread::spawn(move || {
            let state = vector.lock();
            state.target.as_ref().unwrap().write();
            drop(state);
            vector.detach();
            done.send(()).unwrap();
        });
        released.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_write_that_a_client_holds_up_is_ended() {
        held_up(EventfdFlags::empty());
    }

    #[test]
    fn a_write_to_what_counts_like_a_semaphore_is_ended() {
        held_up(EventfdFlags::SEMAPHORE);
    }
}
