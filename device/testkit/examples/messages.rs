// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a message costs the message thread: its CPU time, which other work on the machine changes
//! less than it does the time on the clock.
//!
//! The card has a queue that runs, and no frames. "flood": doorbells as fast as the socket takes
//! them. "alone": one doorbell at a time, with the thread asleep in between. "read": a register,
//! with the client waiting for the answer.
//!
//! `cargo run --release -p vnet-testkit --example messages [-- --survive]`: what follows are options
//! of vnetd. `VNET_VNETD` names another server.
#![allow(missing_docs)]

use std::fs;
use std::time::{Duration, Instant};

use vnet_contract::{queue, regs};
use vnet_testkit::{Nic, Result, Server};

const FLOOD: u32 = 300_000;
const ALONE: u32 = 5_000;
const READS: u32 = 20_000;

/// How long the message thread has been on a CPU.
fn cpu_time(server: &Server) -> Result<Duration> {
    // With `--survive`, the worker has it.
    let pid = server.worker()?.unwrap_or(server.process.id());
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(tasks)? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() == "vnet-session" {
            let stat = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = stat.split(' ').next().and_then(|n| n.parse().ok());
            return Ok(Duration::from_nanos(nanoseconds.unwrap_or(0)));
        }
    }
    panic!("no message thread");
}

/// Microseconds of CPU time and on the clock, per message.
fn measure(
    server: &Server,
    nic: &mut Nic,
    count: u32,
    mut message: impl FnMut(&mut Nic) -> Result<()>,
) -> Result<(f64, f64)> {
    nic.card.reg(regs::ID)?;
    let (cpu, start) = (cpu_time(server)?, Instant::now());
    for _ in 0..count {
        message(nic)?;
    }
    // Answered once all before it is done.
    nic.card.reg(regs::ID)?;
    let (cpu, clock) = (cpu_time(server)? - cpu, start.elapsed());
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    Ok((each(cpu), each(clock)))
}

fn main() -> Result<()> {
    let options: Vec<_> = std::env::args_os().skip(1).collect();
    let server = Server::start_with("null", &options)?;
    let mut nic = server.nic()?;
    let bell = |nic: &mut Nic| nic.card.doorbell(queue::tx_index(0), 0);
    println!("message | CPU, us | clock, us");
    for _ in 0..3 {
        let (cpu, clock) = measure(&server, &mut nic, FLOOD, bell)?;
        println!("flood   | {cpu:7.2} | {clock:7.2}");
        let (cpu, _) = measure(&server, &mut nic, ALONE, |nic| {
            std::thread::sleep(Duration::from_micros(100));
            bell(nic)
        })?;
        println!("alone   | {cpu:7.2} |");
        let (cpu, clock) = measure(&server, &mut nic, READS, |nic| {
            nic.card.reg(regs::ID).map(drop)
        })?;
        println!("read    | {cpu:7.2} | {clock:7.2}");
    }
    Ok(())
}
