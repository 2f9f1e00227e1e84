// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The kernel's packet generator, on one of its threads.

use std::{
    fs,
    net::IpAddr,
    thread::{self, JoinHandle},
};

use crate::{
    error::{Context, Error, Result},
    interface,
};

const CONTROL: &str = "/proc/net/pktgen/pgctrl";
const THREAD: &str = "/proc/net/pktgen/kpktgend_0";

/// A generator that runs.
pub struct Generator(JoinHandle<Result<()>>);

/// One command a write.
fn write(path: &str, command: &str) -> Result<()> {
    fs::write(path, format!("{command}\n")).context(format!("{path}: {command}"))
}

impl Generator {
    /// Starts to send frames of 60 bytes, each allocated anew, as fast as it goes. They are for
    /// another station than the host, which so has no work with them but to count them.
    pub fn start(interface: &str, to: IpAddr) -> Result<Self> {
        interface::run("modprobe", &["pktgen"])?;
        write(THREAD, "rem_device_all")?;
        write(THREAD, &format!("add_device {interface}"))?;
        let device = format!("/proc/net/pktgen/{interface}");
        for command in [
            "count 0",
            "delay 0",
            "pkt_size 60",
            "dst_mac 02:00:00:00:00:01",
            &format!("dst {to}"),
        ] {
            write(&device, command)?;
        }
        // This write returns when the generator has stopped.
        Ok(Self(thread::spawn(|| write(CONTROL, "start"))))
    }

    /// Stops it.
    pub fn stop(self) -> Result<()> {
        write(CONTROL, "stop")?;
        self.0
            .join()
            .unwrap_or_else(|_| Err(Error::Peer("thread panicked".into())))?;
        write(THREAD, "rem_device_all")
    }
}
