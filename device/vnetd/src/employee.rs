// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A process that the holder has started.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::process::{kill_process, pidfd_open, Pid, PidfdFlags, Signal};
use tracing::warn;

use crate::line::{Line, Message};
use crate::program::Program;

/// How long a program may take to report in, or to be ready when it is needed.
pub(crate) const LONGEST_START: Duration = Duration::from_secs(10);
/// How long a process may have hung up and not be gone. The kernel closes its line as it ends it.
const LONGEST_EXIT: Duration = Duration::from_secs(1);

/// The process, how it is talked to, and how its end shows.
#[derive(Debug)]
pub(crate) struct Employee {
    child: Child,
    pub(crate) line: Line,
    /// Readable when the process has ended.
    pub(crate) gone: OwnedFd,
}

impl Employee {
    /// Starts one.
    pub(crate) fn start(program: &Program) -> io::Result<Self> {
        let (line, theirs) = Line::pair()?;
        let child = program.start(theirs)?;
        let gone = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { child, line, gone })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It is a child that was not waited for, so this is still it.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Sees to it that one that has hung up ends.
    pub(crate) fn hurry(&self) -> io::Result<()> {
        let mut gone = [PollFd::new(&self.gone, PollFlags::IN)];
        let limit = Timespec::try_from(LONGEST_EXIT).ok();
        if retry_on_intr(|| poll(&mut gone, limit.as_ref()))? == 0 {
            warn!("worker has hung up and goes on, and is killed");
            self.signal(Signal::KILL);
        }
        Ok(())
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

/// One that has nothing to do yet, and goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Standby {
    employee: Option<Employee>,
    until: Instant,
}

/// What has become of one that was started.
pub(crate) enum Start {
    /// It may still come.
    Pending,
    /// It waits for its briefing.
    Present,
    /// It never will.
    Failed(String),
}

impl Standby {
    pub(crate) fn start(program: &Program) -> io::Result<Self> {
        Ok(Self {
            employee: Some(Employee::start(program)?),
            until: Instant::now() + LONGEST_START,
        })
    }

    pub(crate) fn employee(&self) -> Option<&Employee> {
        self.employee.as_ref()
    }

    /// Time that is left to it for reporting in.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Looks whether it has come. `ended`: the process has.
    pub(crate) fn look(&mut self, ended: bool) -> Start {
        let Some(employee) = &mut self.employee else {
            return Start::Pending;
        };
        if let Ok(Some(Message::Present)) = employee.line.receive_now() {
            return Start::Present;
        }
        if ended {
            let status = employee.end();
            return Start::Failed(status.map_or_else(|e| e.to_string(), |s| s.to_string()));
        }
        match self.left().is_zero() {
            true => Start::Failed(format!("silent for {} s", LONGEST_START.as_secs())),
            false => Start::Pending,
        }
    }

    /// Gives it something to do.
    pub(crate) fn employ(mut self) -> Option<Employee> {
        self.employee.take()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some(employee) = &mut self.employee {
            employee.signal(Signal::KILL);
            // It ends at once.
            let _ = employee.end();
        }
    }
}
