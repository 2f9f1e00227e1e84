// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A timer that wakes the worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags,
    Timespec,
};

/// A timer that whoever serves a round can set, while the worker sleeps on it.
///
/// The timeout of the worker's own sleep would not do: a round that is served inline would have to
/// wake the worker for it to sleep anew. It is less exact as well, since timeouts have slack.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: OwnedFd,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            fd: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        })
    }

    /// Goes off once, after this time, and not at the time that was set before.
    fn set(&self, after: Duration) {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timer = Itimerspec {
            it_interval: zero,
            // Zero would turn it off.
            it_value: after
                .max(Duration::from_nanos(1))
                .try_into()
                .unwrap_or(zero),
        };
        // Fails for times that are no times only.
        let _ = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &timer);
    }

    /// Called by the worker when the timer has gone off.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// When the alarm goes off; part of what the lock of the pair protects.
#[derive(Debug, Default)]
pub(crate) struct Reminder {
    at: Option<Instant>,
}

impl Reminder {
    /// Makes sure that the alarm goes off at `due` or before. To go off early costs one look; to
    /// set a timer whenever something has become less urgent would cost more.
    pub(crate) fn ensure(&mut self, alarm: &Alarm, due: Instant, now: Instant) {
        if self.at.is_none_or(|at| at <= now || due < at) {
            alarm.set(due.saturating_duration_since(now));
            self.at = Some(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{poll, PollFd, PollFlags};

    /// True if the alarm goes off within `patience`.
    fn goes_off(alarm: &Alarm, patience: Duration) -> bool {
        let timeout: Timespec = patience.try_into().unwrap();
        let mut fds = [PollFd::new(alarm, PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }

    #[test]
    fn the_earliest_time_counts() {
        const SECONDS: Duration = Duration::from_secs(20);
        const SOON: Duration = Duration::from_millis(2);
        let alarm = Alarm::new().unwrap();
        let mut reminder = Reminder::default();
        let start = Instant::now();
        assert!(!goes_off(&alarm, SOON), "not set");
        reminder.ensure(&alarm, start + 10 * SECONDS, start);
        assert!(!goes_off(&alarm, SOON), "later");
        let now = Instant::now();
        reminder.ensure(&alarm, now + SOON, now);
        reminder.ensure(&alarm, start + 10 * SECONDS, now);
        assert!(goes_off(&alarm, SECONDS));
        assert!(now.elapsed() >= SOON);
        alarm.clear();
        assert!(!goes_off(&alarm, SOON), "once");

        // A time that has passed already, after one that has passed too.
        reminder.ensure(&alarm, start, Instant::now());
        assert!(goes_off(&alarm, SECONDS));
    }
}
