// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One MSI-X vector.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fcntl_getfl, OFlags};

/// One MSI-X vector: where its interrupt goes, and whether one waits.
///
/// The eventfd sits behind a mutex that is held while it is written. Uncontended this costs a
/// small part of the write, and it gives the guarantee that matters: when [`Self::attach`] or
/// [`Self::detach`] has returned, no thread writes the former eventfd any more.
#[derive(Debug, Default)]
pub struct Vector {
    state: Mutex<State>,
    raised: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    target: Option<Target>,
    pending: bool,
}

impl Vector {
    /// Raises the interrupt. With nothing attached it becomes pending.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        match &state.target {
            Some(target) => target.signal(),
            None => state.pending = true,
        }
    }

    /// Sends the interrupt to this eventfd from now on, and delivers one that was pending.
    pub fn attach(&self, fd: OwnedFd) {
        let target = Target::new(fd);
        let mut state = self.lock();
        if std::mem::take(&mut state.pending) {
            target.signal();
        }
        state.target = Some(target);
    }

    /// Takes the eventfd away.
    pub fn detach(&self) {
        self.lock().target = None;
    }

    /// True if the interrupt was raised with nothing attached.
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A descriptor that the client gave to be written for each interrupt.
#[derive(Debug)]
struct Target {
    fd: OwnedFd,
    may_block: bool,
}

impl Target {
    fn new(fd: OwnedFd) -> Self {
        let may_block = fcntl_getfl(&fd).map_or(true, |flags| !flags.contains(OFlags::NONBLOCK));
        Self { fd, may_block }
    }

    fn signal(&self) {
        // Nothing makes the client send an eventfd, or one with room in its counter, and a full
        // one must not hold up a worker. Setting O_NONBLOCK would change it for the client too.
        if self.may_block && !self.writable() {
            return;
        }
        // A full counter still wakes its reader, and any other failure is the client's own: there
        // is nobody to tell.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    fn writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::event::{eventfd as new_eventfd, EventfdFlags};
    use std::sync::Arc;

    /// An eventfd and a second descriptor of it to read with.
    pub(crate) fn eventfd() -> (OwnedFd, OwnedFd) {
        let fd = new_eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let reader = fd.try_clone().unwrap();
        (fd, reader)
    }

    /// Takes the counter; `None` if it is zero.
    pub(crate) fn count(reader: &OwnedFd) -> Option<u64> {
        let mut value = [0; 8];
        rustix::io::read(reader, &mut value).ok()?;
        Some(u64::from_ne_bytes(value))
    }

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
    fn a_full_blocking_eventfd_does_not_hold_up_the_caller() {
        let fd = new_eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let vector = Vector::default();
        vector.attach(fd);
        vector.raise();
    }

    #[test]
    fn no_interrupt_is_lost_while_the_fd_is_replaced() {
        const RAISES: u64 = 20_000;
        let vector = Arc::new(Vector::default());
        let raiser = {
            let vector = Arc::clone(&vector);
            std::thread::spawn(move || (0..RAISES).for_each(|_| vector.raise()))
        };
        let mut readers = Vec::new();
        // No detach here: every raise after the first attach is counted by one of the eventfds.
        let (fd, reader) = eventfd();
        vector.attach(fd);
        let before = vector.raised();
        readers.push(reader);
        for _ in 0..100 {
            let (fd, reader) = eventfd();
            vector.attach(fd);
            readers.push(reader);
        }
        raiser.join().unwrap();
        let seen: u64 = readers.iter().filter_map(count).sum();
        assert!(seen <= RAISES && seen + before >= RAISES, "{seen} {before}");
    }
}
