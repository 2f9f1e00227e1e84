// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Kills workers of a vnetd that survives that.

use std::fs;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::error::timeout;
use crate::{Error, Result, LIMIT};

/// The worker of the holder with this process id; beside it another one may stand by.
pub(crate) fn worker_of(holder: u32) -> Result<Option<u32>> {
    child_of(holder, "vnetd-worker")
}

/// The first child of a holder that calls itself by this name.
pub(crate) fn child_of(holder: u32, name: &str) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children"))?;
    let named = |pid: &u32| {
        // One that is gone by now has none.
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim_end() == name
    };
    let mut pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    Ok(pids.find(named))
}

/// Kills a process.
pub(crate) fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid as i32).expect("is no zero");
    Ok(kill_process(pid, signal)?)
}

/// Kills the worker of a holder, and waits until there is another one.
pub(crate) fn kill_worker(holder: u32, signal: Signal) -> Result<()> {
    let worker = worker_of(holder)?.ok_or_else(|| Error::Answer("there is no worker".into()))?;
    kill(worker, signal)?;
    let end = Instant::now() + LIMIT;
    while worker_of(holder)?.is_none_or(|now| now == worker) {
        if Instant::now() > end {
            return Err(timeout("no other worker"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// A thread that kills one worker after the other, at times that are all over the place; a third of
/// them with the signal of those that crash.
#[derive(Debug)]
pub struct Killer {
    stop: Sender<()>,
    thread: Option<JoinHandle<Result<u32>>>,
}

impl Killer {
    pub(crate) fn start(holder: u32, mut seed: u64, longest: Duration) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut kills = 0;
            loop {
                // A linear congruential generator: any will do.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pause = longest.mul_f64((seed >> 40) as f64 / (1u64 << 24) as f64);
                match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(kills),
                }
                let signal = match (seed >> 32) % 3 {
                    0 => Signal::ABORT,
                    _ => Signal::KILL,
                };
                kill_worker(holder, signal)?;
                kills += 1;
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops, and returns how many were killed.
    pub fn stop(mut self) -> Result<u32> {
        // Fails if it has ended with an error, which is told below.
        let _ = self.stop.send(());
        let thread = self.thread.take().expect("is joined once");
        thread.join().expect("does not panic")
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
