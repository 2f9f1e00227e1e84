// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Kills workers of a vnetd that survives that.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
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

/// Waits until the worker has been ready: that is when the holder starts another one that stands by.
fn wait_until_ready(holder: u32) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while child_of(holder, "vnetd-standby")?.is_none() {
        if Instant::now() > end {
            return Err(timeout("no worker is ready"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A thread that kills one worker after the other, at times that are all over the place; a third of
/// them with the signal of those that crash.
#[derive(Debug)]
pub struct Killer {
    stop: Sender<()>,
    kills: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Killer {
    pub(crate) fn start(holder: u32, mut seed: u64, longest: Duration) -> Self {
        let (stop, stopped) = channel();
        let kills = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&kills);
        let thread = std::thread::spawn(move || {
            for n in 1.. {
                // A linear congruential generator: any will do.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pause = longest.mul_f64((seed >> 40) as f64 / (1u64 << 24) as f64);
                match stopped.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(()),
                }
                let mut signal = match (seed >> 32) % 3 {
                    0 => Signal::ABORT,
                    _ => Signal::KILL,
                };
                // A holder gives up on workers of which twenty in a row have not served, as on a slow machine
                // these would not have.
                if n % 8 == 0 {
                    wait_until_ready(holder)?;
                    signal = Signal::KILL;
                }
                kill_worker(holder, signal)?;
                count.store(n, Ordering::Relaxed);
            }
            Ok(())
        });
        Self {
            stop,
            kills,
            thread: Some(thread),
        }
    }

    /// True until this time, and after it while no more than these were killed, as far as that may take.
    pub fn goes_on(&self, end: Instant, kills: u32) -> bool {
        let now = Instant::now();
        now < end || self.kills.load(Ordering::Relaxed) <= kills && now < end + LIMIT
    }

    /// Stops, and returns how many were killed.
    pub fn stop(mut self) -> Result<u32> {
        // Fails if it has ended with an error, which is told below.
        let _ = self.stop.send(());
        let thread = self.thread.take().expect("is joined once");
        thread.join().expect("does not panic")?;
        Ok(self.kills.load(Ordering::Relaxed))
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
