// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Where an interrupt goes.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fcntl_getfl, fcntl_setfl, readlink, OFlags};
use rustix::io::{preadv2, write, ReadWriteFlags};

/// As an offset: a file that has none.
const NO_OFFSET: u64 = u64::MAX;

/// An eventfd that the client gave to be written for each interrupt.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Takes a descriptor if it is an eventfd, and makes it non-blocking.
    ///
    /// Anything else is refused: what a write does to a pipe or a file, and how long it takes, is
    /// up to whoever sent it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        if !Self::is_one(fd.as_fd()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // This changes it for the client as well, whose reads then fail instead of waiting. The
        // clients that there are set the flag themselves.
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Says whether a descriptor is an eventfd.
    pub fn is_one(fd: BorrowedFd<'_>) -> bool {
        // There is no other way to ask what an anonymous inode is.
        let name = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        name.is_ok_and(|name| name.to_bytes() == b"anon_inode:[eventfd]")
    }

    /// Adds one to the counter, unless it is full: then its reader has been woken anyway.
    ///
    /// The client can take the flag away again, since it shares the open file. A full counter is
    /// not written in any case; only one that it fills in the instant between the look and the
    /// write can still hold up the caller, until somebody else has called [`Self::make_room`].
    pub(crate) fn signal(&self) {
        if self.writable() {
            self.write();
        }
    }

    pub(crate) fn write(&self) {
        // A failure is the client's own, and there is nobody to tell.
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }

    /// Ends a write that waits: takes from a full counter, whose reader has never looked. Does not
    /// wait itself, whatever the client does meanwhile.
    pub(crate) fn make_room(&self) {
        // What counts like a semaphore gives one at a time, and two may be needed.
        for _ in 0..2 {
            if !self.writable() {
                let mut value = [0; 8];
                let mut to = [IoSliceMut::new(&mut value)];
                // Fails if there is nothing to take any more.
                let _ = preadv2(&self.0, &mut to, NO_OFFSET, ReadWriteFlags::NOWAIT);
            }
        }
    }

    fn writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Vector;
    use rustix::event::{eventfd as new_eventfd, EventfdFlags};
    use std::fs::File;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// An eventfd and a second descriptor of it to read with.
    pub(crate) fn eventfd() -> (EventFd, OwnedFd) {
        eventfd_with(EventfdFlags::empty())
    }

    pub(crate) fn eventfd_with(flags: EventfdFlags) -> (EventFd, OwnedFd) {
        let fd = new_eventfd(0, flags | EventfdFlags::CLOEXEC).unwrap();
        let reader = fd.try_clone().unwrap();
        (EventFd::new(fd).unwrap(), reader)
    }

    /// Takes the counter; `None` if it is zero.
    pub(crate) fn count(reader: &OwnedFd) -> Option<u64> {
        let mut value = [0; 8];
        rustix::io::read(reader, &mut value).ok()?;
        Some(u64::from_ne_bytes(value))
    }

    #[test]
    fn only_eventfds_are_taken() {
        let (pipe_reader, pipe_writer) = std::io::pipe().unwrap();
        for fd in [
            OwnedFd::from(pipe_reader),
            pipe_writer.into(),
            File::open("/dev/null").unwrap().into(),
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap(),
        ] {
            assert!(EventFd::new(fd).is_err());
        }
    }

    #[test]
    fn a_full_eventfd_that_was_made_blocking_does_not_hold_up_the_caller() {
        let (fd, client) = eventfd();
        let flags = fcntl_getfl(&client).unwrap();
        assert!(flags.contains(OFlags::NONBLOCK));
        let vector = Vector::default();
        vector.attach(fd);
        fcntl_setfl(&client, flags - OFlags::NONBLOCK).unwrap();
        write(&client, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let (done, raised) = channel();
        std::thread::spawn(move || {
            vector.raise();
            done.send(()).unwrap();
        });
        raised.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
