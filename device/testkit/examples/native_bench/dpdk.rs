// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! DPDK's testpmd with a vhost-user port, driven by a second testpmd with a virtio-user port: the
//! same split ring in shared memory, and as many cores. What the vhost-user port says counts.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{cpu, Direction, Options};

/// Patience with a program that has to set its memory up.
const LIMIT: Duration = Duration::from_secs(30);

/// A testpmd that is killed when this goes.
struct Testpmd(Child);

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Testpmd {
    /// `core` forwards; the other one has nothing to do but print.
    fn start(
        program: &str,
        device: &str,
        core: usize,
        mode: &str,
        size: u32,
    ) -> std::io::Result<Self> {
        let mut words = program.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        let other = cpu::DRIVER + cpu::SERVER - core;
        command
            .args(words)
            .args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry"])
            .args(["-l", &format!("{},{}", cpu::DRIVER, cpu::SERVER)])
            .args(["--main-lcore", &other.to_string()])
            .args(["--file-prefix", &format!("vnet-bench-{core}")])
            .args(["--vdev", device, "--"])
            .args(["--auto-start", "--stats-period", "1", "--no-mlockall"])
            .arg("--total-num-mbufs=32768")
            .arg(format!("--forward-mode={mode}"))
            .arg(format!("--txpkts={size}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

/// Frames per second of each sample, which is one of testpmd's own of a second.
pub(crate) fn samples(
    options: &Options,
    program: &str,
    direction: Direction,
    size: u32,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("vhost.sock");
    let (key, host_mode, guest_mode) = match direction {
        Direction::Tx => ("Rx-pps:", "rxonly", "txonly"),
        _ => ("Tx-pps:", "txonly", "rxonly"),
    };
    let device = format!("net_vhost0,iface={}", socket.display());
    let mut host = Testpmd::start(program, &device, cpu::SERVER, host_mode, size)?;
    let end = Instant::now() + LIMIT;
    while !socket.exists() {
        if Instant::now() > end || host.0.try_wait()?.is_some() {
            return Err("testpmd does not start".into());
        }
        sleep(Duration::from_millis(20));
    }
    let device = format!("net_virtio_user0,path={},packed_vq=0", socket.display());
    let _guest = Testpmd::start(program, &device, cpu::DRIVER, guest_mode, size)?;
    let lines = BufReader::new(host.0.stdout.take().ok_or("no output")?).lines();
    // The first seconds in which frames flow are for warming up.
    let rates = lines
        .map_while(Result::ok)
        .take_while(|_| Instant::now() < end)
        .filter_map(|line| rate(&line, key))
        .filter(|&rate| rate > 0.0);
    let samples: Vec<_> = rates.skip(2).take(options.repeat).collect();
    if samples.is_empty() {
        return Err("testpmd carries nothing".into());
    }
    Ok(samples)
}

/// The number behind `key` in a line of testpmd's statistics.
fn rate(line: &str, key: &str) -> Option<f64> {
    let rest = &line[line.find(key)? + key.len()..];
    rest.split_whitespace().next()?.parse().ok()
}
