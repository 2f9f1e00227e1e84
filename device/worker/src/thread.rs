// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The worker thread: rounds while there is work, sleep while there is none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vnet_backend::{Attachment, Queue};

use crate::polling::{Next, Polling};
use crate::replace::Rewire;
use crate::round::{Round, Sleep};
use crate::shared::Shared;
use crate::unshared::{self, Fetched};

/// A sleep that is shorter than this, and ends without anything to do, counts as idle spinning.
const SHORT: Duration = Duration::from_micros(200);
/// Idle rounds in a row after which the worker stops listening to its backend for a while.
const PATIENCE: u32 = 8;
/// How long that is at first; doubled with every further idle round, to a limit.
const NAP: Duration = Duration::from_millis(1);
/// How often it is doubled at most.
const NAP_DOUBLINGS: u32 = 6;

/// While the worker polls, one in so many looks goes to the backend.
const LOOKS: u32 = 4;
/// Pause instructions between two looks.
const PAUSES: u32 = 8;

/// What a worker thread has of the backend, to use without the lock.
pub(crate) struct Wiring {
    /// A descriptor of its own, to sleep on.
    readiness: Option<OwnedFd>,
    attachment: Option<Box<dyn Attachment>>,
    attached: bool,
}

impl Wiring {
    pub(crate) fn new(backend: &dyn Queue) -> io::Result<Self> {
        let readiness = backend.readiness().map(|fd| fd.try_clone_to_owned());
        let attachment = backend.attachment();
        Ok(Self {
            readiness: readiness.transpose()?,
            attached: attachment.as_ref().is_none_or(|a| a.was_attached()),
            attachment,
        })
    }

    /// Makes way for that of another backend. Returns what there was, and who waits for its end.
    fn replace(&mut self, new: Rewire) -> (Self, Sender<()>) {
        let Rewire { wiring, done } = new;
        (std::mem::replace(self, wiring), done)
    }

    /// Sees to it that frames come to this queue only while the driver receives.
    fn attach(&mut self, attached: bool) {
        if self.attached != attached {
            self.attached = attached;
            if let Some(attachment) = &mut self.attachment {
                attachment.set_attached(attached);
            }
        }
    }
}

/// Serves the pair until it is told to stop.
pub(crate) fn run(shared: &Shared, mut wiring: Wiring, mut polling: Polling, taken_over: bool) {
    let mut idle = 0;
    // How long the worker slept before this round, if it did, and when it woke.
    let mut slept: Option<(Duration, Instant)> = None;
    let (mut arm, mut look) = (true, 0u32);
    let mut fetched = Fetched::default();
    // Whether the driver receives: if not, this process may be about to go on with what another has started.
    let mut known = !taken_over;
    while !shared.stop.load(Ordering::Acquire) {
        if shared.unshared.load(Ordering::Acquire) {
            let new = shared.gate.lock().rewire.take();
            drop(new.map(|new| wiring.replace(new)));
            let (round, receiving) = unshared::round(shared, &mut fetched);
            wiring.attach(receiving);
            let now = Instant::now();
            let more = round.sleep.deadline.is_some_and(|d| d <= now) && round.progress;
            if round.progress {
                idle = 0;
            }
            if !round.again && !more {
                let sleep = rest(&round, idle, now);
                let called = wait(shared, wiring.readiness.as_ref(), sleep, now);
                idle = idle_rounds(idle, called, now.elapsed());
            }
            continue;
        }
        // What there was of a backend that was replaced goes without the lock.
        let former;
        known = known || shared.dma.snapshot().memory().is_some();
        let (sleep, now, receiving) = {
            let mut state = shared.gate.lock();
            former = state.rewire.take().map(|new| wiring.replace(new));
            // While it polls, the worker asks the driver every time, and the backend, whose answer
            // may be a system call, some of the times.
            let due = arm || look % LOOKS == 0;
            let round = shared.serve(&mut state, due, arm);
            shared.report(&round);
            if round.progress {
                idle = 0;
            }
            let now = Instant::now();
            shared.remind(&mut state, &round, || now);
            // A backend with more to do says so by a deadline that has come.
            let more =
                round.again || round.progress && round.sleep.deadline.is_some_and(|d| d <= now);
            if round.bulk {
                polling.bulk();
            }
            if let Some((time, woken)) = slept.take() {
                // A request that a doorbell brought: what counts is how soon after it the
                // response came, for a worker that had been looking would have seen both.
                let time = match state.served_asleep.take() {
                    Some(at) => time.min(woken.saturating_duration_since(at)),
                    None => time,
                };
                polling.slept(time, round.progress && !round.bulk);
            }
            let sleep = if more {
                look = 0;
                arm = !polling.is_on();
                None
            } else if polling.next(round.progress, now) == Next::Look {
                look = look.wrapping_add(1);
                arm = false;
                None
            } else if !arm {
                // Once more, with doorbells.
                arm = true;
                None
            } else {
                arm = !polling.is_on();
                look = 0;
                Some(rest(&round, idle, now))
            };
            // Before the lock is let go: a doorbell that is served inline has to know what wakes
            // the worker, and what does not.
            state.sleep = sleep;
            (sleep, now, state.rx.is_running() || state.rx_expected)
        };
        drop(former);
        if known {
            wiring.attach(receiving);
        }
        let Some(sleep) = sleep else {
            if look != 0 {
                pause();
            }
            continue;
        };
        let called = wait(shared, wiring.readiness.as_ref(), sleep, now);
        let woken = Instant::now();
        let time = woken.saturating_duration_since(now);
        idle = idle_rounds(idle, called, time);
        slept = Some((time, woken));
    }
}

/// Counts rounds that were idle in a row, after a sleep of this length.
fn idle_rounds(idle: u32, called: bool, time: Duration) -> u32 {
    match called || time >= SHORT && idle < PATIENCE {
        true => 0,
        false => idle.saturating_add(1),
    }
}

/// Between two looks: leaves the CPU to whoever wants it.
fn pause() {
    for _ in 0..PAUSES {
        std::hint::spin_loop();
    }
    std::thread::yield_now();
}

/// How to sleep after a round, with `idle` idle ones before it.
fn rest(round: &Round, idle: u32, now: Instant) -> Sleep {
    // A descriptor that stays readable (a TAP that was deleted) or a deadline that stays in the
    // past (a backend that waits for buffers) must not turn into a busy loop. One that is yet to come
    // is kept.
    match idle {
        0..PATIENCE => round.sleep,
        _ => {
            let end = now + NAP * (1 << (idle - PATIENCE).min(NAP_DOUBLINGS));
            let due = round.sleep.deadline.filter(|due| *due > now);
            Sleep {
                readiness: false,
                deadline: Some(due.map_or(end, |due| due.min(end))),
            }
        }
    }
}

/// Sleeps. Returns true if it was a kick or the alarm that ended it.
fn wait(shared: &Shared, readiness: Option<&OwnedFd>, sleep: Sleep, now: Instant) -> bool {
    let timeout = sleep.deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(now);
        Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    let backend = readiness.filter(|_| sleep.readiness);
    let mut fds = [
        PollFd::new(&shared.kick, PollFlags::IN),
        PollFd::new(&shared.alarm, PollFlags::IN),
        PollFd::from_borrowed_fd(
            backend.map_or(shared.kick.as_fd(), AsFd::as_fd),
            PollFlags::IN,
        ),
    ];
    let count = if backend.is_some() { 3 } else { 2 };
    // Interrupted by a signal or short of memory: look for work and come back.
    let _ = poll(&mut fds[..count], timeout.as_ref());
    let [kicked, rung] = [0, 1].map(|n: usize| !fds[n].revents().is_empty());
    if kicked {
        shared.kick.clear();
    }
    if rung {
        shared.alarm.clear();
    }
    kicked || rung
}
