// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Who used the machine's CPUs during a sample: the processes of the set-up, and anybody else.

use std::{collections::BTreeMap, fs, time::Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// A process to be accounted for.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What the report calls it.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("not NAME=PID")?;
        let pid = pid.parse().map_err(|_| "not a process id")?;
        Ok(Self {
            name: name.into(),
            pid,
        })
    }
}

/// CPU time between two moments, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall-clock time.
    pub elapsed: f64,
    /// Of the processes watched, by name; this one is `peer`.
    pub own: BTreeMap<String, f64>,
    /// Of everybody else.
    pub other: f64,
    /// Taken away by the hypervisor below.
    pub steal: f64,
}

/// The machine's and the processes' clocks at one moment, in seconds.
#[derive(Debug)]
pub struct Snapshot {
    at: Instant,
    own: BTreeMap<String, f64>,
    busy: f64,
    steal: f64,
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// User and system time in a line of `/proc/PID/stat`. The name in it may hold anything.
fn process_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Busy and stolen time in the first line of `/proc/stat`.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let n: Vec<u64> = line
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    // user nice system idle iowait irq softirq steal; guests' time is in user's.
    let busy = n.first()? + n.get(1)? + n.get(2)? + n.get(5)? + n.get(6)?;
    Some((busy, *n.get(7)?))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).context(path)
}

impl Snapshot {
    /// Takes the time.
    pub fn take(watched: &[Watched]) -> Result<Self> {
        let second = ticks_per_second();
        let mut own = BTreeMap::new();
        let peer = Watched {
            name: "peer".into(),
            pid: std::process::id(),
        };
        for process in watched.iter().chain([&peer]) {
            let stat = read(&format!("/proc/{}/stat", process.pid))?;
            let ticks = process_ticks(&stat).ok_or(Error::Strange("/proc/PID/stat", stat))?;
            *own.entry(process.name.clone()).or_default() += ticks as f64 / second;
        }
        let stat = read("/proc/stat")?;
        let (busy, steal) = machine_ticks(&stat).ok_or(Error::Strange("/proc/stat", stat))?;
        Ok(Self {
            at: Instant::now(),
            own,
            busy: busy as f64 / second,
            steal: steal as f64 / second,
        })
    }

    /// What was used between this moment and a later one.
    pub fn until(&self, end: &Self) -> Usage {
        let own: BTreeMap<_, _> = self
            .own
            .iter()
            .map(|(name, start)| (name.clone(), end.own.get(name).unwrap_or(start) - start))
            .collect();
        let mine: f64 = own.values().sum();
        Usage {
            elapsed: (end.at - self.at).as_secs_f64(),
            // The kernel rounds the processes' times and the machine's differently.
            other: (end.busy - self.busy - mine).max(0.0),
            steal: end.steal - self.steal,
            own,
        }
    }
}

/// Kilobytes of private memory that a process has.
pub fn private_memory(pid: u32) -> Result<u64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .ok_or(Error::Strange("/proc/PID/status", status.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20 0 1 0 5";
        assert_eq!(process_ticks(stat), Some(123));
        assert_eq!(process_ticks("12 (x) S 1"), None);
        assert_eq!(process_ticks(""), None);
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let stat = "cpu  1 2 3 1000 2000 10 20 7 50 60\ncpu0 9 9";
        assert_eq!(machine_ticks(stat), Some((36, 7)));
        assert_eq!(machine_ticks("cpu  1 2"), None);
    }

    #[test]
    fn own_work_is_seen_as_own() {
        let start = Snapshot::take(&[]).unwrap();
        let mut n = 0u64;
        while start.at.elapsed().as_millis() < 200 {
            n = std::hint::black_box(n + 1);
        }
        let usage = start.until(&Snapshot::take(&[]).unwrap());
        assert!(usage.elapsed >= 0.2);
        let own = usage.own["peer"];
        // A loaded machine gives less than all of a CPU, and other tests run in this process.
        assert!(own > 0.02, "{usage:?}");
    }

    #[test]
    fn a_process_has_memory() {
        assert!(private_memory(std::process::id()).unwrap() > 0);
        assert!("qemu=12".parse::<Watched>().is_ok());
        assert!("qemu".parse::<Watched>().is_err());
        assert!("qemu=x".parse::<Watched>().is_err());
    }
}
