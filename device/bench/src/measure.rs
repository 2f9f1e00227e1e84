// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The guest's end: one sample of one metric on one interface.

use std::{
    net::{Shutdown, SocketAddr},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
    control::{Connection, Reply, Request, Seen},
    datagram::{self, Sink},
    driver::Unbound,
    error::{Error, Result},
    interface, pktgen,
    sample::Sample,
    search, stream,
};

/// Before a sample counts: TCP finds its window, interrupt moderation its rate.
const WARM_UP: Duration = Duration::from_millis(300);

/// Until datagrams under way have arrived, or will not.
const SETTLE: Duration = Duration::from_millis(150);

/// Offered rate of the overload, in datagrams a second.
const OVERLOAD: u64 = 120_000;

/// Bytes that are compared, in each direction.
const CHECKED: u64 = 8 << 20;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Metric {
    /// One TCP stream from the guest
    TcpOut,
    /// One TCP stream to the guest
    TcpIn,
    /// Four TCP streams from the guest
    Tcp4Out,
    /// Four TCP streams to the guest
    Tcp4In,
    /// Datagrams from the guest, as many as it can
    UdpOut,
    /// The highest rate of datagrams to the guest that it does not lose
    UdpIn,
    /// Datagrams to the guest at a rate that is too high
    UdpOverload,
    /// Frames from the kernel's packet generator
    Pktgen,
    /// Request and response by UDP
    UdpRr,
    /// Flood ping
    Ping,
    /// Every byte of a transfer in each direction arrives as it was sent
    Intact,
    /// Memory that the interface takes in the guest
    Memory,
}

/// Where and how long.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The host's end.
    pub server: SocketAddr,
    /// The guest's interface.
    pub interface: String,
    /// The host's.
    pub host_interface: String,
    /// How long a sample takes.
    pub time: Duration,
    /// Leave the link as it is, which is on.
    pub keep_link: bool,
}

/// Switches the interface off at the end, however the sample ends.
struct Switched<'a>(&'a str);

impl<'a> Switched<'a> {
    fn on(interface: &'a str) -> Result<Self> {
        let switched = Self(interface);
        interface::switch(interface, true)?;
        Ok(switched)
    }
}

impl Drop for Switched<'_> {
    fn drop(&mut self) {
        if let Err(error) = interface::switch(self.0, false) {
            eprintln!("vnet-bench: {error}");
        }
    }
}

impl Setup {
    fn connect(&self) -> Result<Connection> {
        Connection::open(self.server)
    }

    /// Takes both ends' counters around what `during` does.
    fn window<T>(
        &self,
        sample: &mut Sample,
        control: &Connection,
        during: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Seen)> {
        let interface = self.host_interface.clone();
        control.ask(&Request::Begin { interface })?;
        let start = interface::counters(&self.interface)?;
        let result = during()?;
        let counted = interface::counters(&self.interface)? - start;
        let seen = control.ask_seen(&Request::End)?;
        sample.account(&seen.usage);
        sample.set("packets", counted.packets as f64);
        sample.set("interrupts", counted.interrupts as f64);
        if seen.corrupt > 0 {
            return Err(Error::Corrupt(format!("{} datagrams", seen.corrupt)));
        }
        Ok((result, seen))
    }

    /// Bytes that TCP carried and how fast, out of the guest or into it.
    fn tcp(&self, sample: &mut Sample, streams: usize, out: bool) -> Result<()> {
        let control = self.connect()?;
        let total = Arc::new(AtomicU64::new(0));
        let mut sockets = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..streams {
            let request = if out { Request::Sink } else { Request::Source };
            let socket = Arc::new(self.connect()?.into_stream(&request)?);
            sockets.push(socket.clone());
            let total = total.clone();
            threads.push(thread::spawn(move || {
                let run = if out { stream::send } else { stream::receive };
                run(&socket, &total)
            }));
        }
        thread::sleep(WARM_UP);
        let ((received, elapsed), seen) = self.window(sample, &control, || {
            let (start, before) = (Instant::now(), total.load(Relaxed));
            thread::sleep(self.time);
            let received = total.load(Relaxed) - before;
            Ok((received, start.elapsed().as_secs_f64()))
        })?;
        for socket in sockets {
            // Fails when the other end was quicker.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::Peer("thread panicked".into())))?;
        }
        sample.set("megabytes_in_all", total.load(Relaxed) as f64 * 1e-6);
        // What counts is what arrived.
        let (bytes, elapsed) = if out {
            (seen.bytes as f64, seen.usage.elapsed)
        } else {
            (received as f64, elapsed)
        };
        if bytes == 0.0 {
            return Err(Error::Peer("no bytes arrived".into()));
        }
        sample.set("mbit_s", bytes * 8e-6 / elapsed);
        sample.set("cpu_s_per_gb", sample.values["cpu"] / (bytes * 1e-9));
        sample.set(
            "interrupts_per_mb",
            sample.values["interrupts"] / (bytes * 1e-6),
        );
        sample.set("megabytes", bytes * 1e-6);
        Ok(())
    }

    fn udp_out(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        let to = SocketAddr::new(self.server.ip(), control.ask_port(&Request::DatagramSink)?);
        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let stop = stop.clone();
            move || datagram::send_flat_out(to, &stop)
        });
        thread::sleep(WARM_UP);
        let window = self.window(sample, &control, || {
            thread::sleep(self.time);
            Ok(())
        });
        stop.store(true, Relaxed);
        sender
            .join()
            .unwrap_or_else(|_| Err(Error::Peer("thread panicked".into())))?;
        let ((), seen) = window?;
        sample.set("kpps", seen.datagrams as f64 * 1e-3 / seen.usage.elapsed);
        self.per_packet(sample, seen.datagrams);
        Ok(())
    }

    fn per_packet(&self, sample: &mut Sample, packets: u64) {
        if packets > 0 {
            let interrupts = sample.values.get("interrupts").copied().unwrap_or_default();
            sample.set("interrupts_per_packet", interrupts / packets as f64);
        }
    }

    /// Sends datagrams to the guest; returns what was sent and what arrived before and after the
    /// last had time to.
    fn offer(
        &self,
        sample: &mut Sample,
        control: &Connection,
        rate: u64,
        time: Duration,
    ) -> Result<(Seen, u64, u64)> {
        let sink = Sink::start()?;
        let start = interface::counters(&self.interface)?;
        let seen = control.ask_seen(&Request::DatagramSource {
            port: sink.port(),
            rate,
            millis: time.as_millis() as u64,
            interface: self.host_interface.clone(),
        })?;
        let during = sink.arrived.intact.load(Relaxed);
        thread::sleep(SETTLE);
        let all = sink.arrived.intact.load(Relaxed);
        let counted = interface::counters(&self.interface)? - start;
        sample.account(&seen.usage);
        sample.set("packets", counted.packets as f64);
        sample.set("interrupts", counted.interrupts as f64);
        self.per_packet(sample, counted.packets);
        match sink.arrived.corrupt.load(Relaxed) {
            0 => Ok((seen, during, all)),
            corrupt => Err(Error::Corrupt(format!("{corrupt} datagrams"))),
        }
    }

    fn udp_in(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        // A probe long enough for 0.1 % to be many datagrams, short enough for some of them.
        let time = (self.time / 2).clamp(Duration::from_millis(300), Duration::from_secs(2));
        let mut others = 0f64;
        let best = search::highest(|rate| {
            let (seen, _, arrived) = self.offer(sample, &control, rate, time)?;
            others = others.max(sample.others);
            let offered = seen.sent as f64 / seen.usage.elapsed;
            Ok(search::Probe {
                offered,
                loss: 1.0 - (arrived as f64 / seen.sent as f64).min(1.0),
            })
        })?;
        sample.others = others;
        sample.set("kpps", best.offered * 1e-3);
        sample.set("loss", best.loss);
        Ok(())
    }

    fn udp_overload(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        let (seen, during, _) = self.offer(sample, &control, OVERLOAD, self.time)?;
        sample.set("kpps", during as f64 * 1e-3 / seen.usage.elapsed);
        sample.set("offered_kpps", seen.sent as f64 * 1e-3 / seen.usage.elapsed);
        Ok(())
    }

    fn pktgen(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        let generator = pktgen::Generator::start(&self.interface, self.server.ip())?;
        thread::sleep(WARM_UP);
        let window = self.window(sample, &control, || {
            thread::sleep(self.time);
            Ok(())
        });
        generator.stop()?;
        let ((), seen) = window?;
        sample.set("kpps", seen.frames as f64 * 1e-3 / seen.usage.elapsed);
        self.per_packet(sample, seen.frames);
        Ok(())
    }

    fn udp_rr(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        let to = SocketAddr::new(self.server.ip(), control.ask_port(&Request::Echo)?);
        datagram::ask(to, WARM_UP)?;
        let (mut trips, _) = self.window(sample, &control, || datagram::ask(to, self.time))?;
        if trips.times.is_empty() {
            return Err(Error::Peer("no answers".into()));
        }
        trips.times.sort_by(f64::total_cmp);
        let at = |part: f64| trips.times[((trips.times.len() - 1) as f64 * part) as usize];
        sample.set("p50_us", at(0.5));
        sample.set("p99_us", at(0.99));
        sample.set("round_trips", trips.times.len() as f64);
        sample.set("lost", trips.lost as f64);
        Ok(())
    }

    fn ping(&self, sample: &mut Sample) -> Result<()> {
        let control = self.connect()?;
        let seconds = self.time.as_secs_f64().ceil().to_string();
        let address = self.server.ip().to_string();
        let (text, _) = self.window(sample, &control, || {
            interface::run("ping", &["-n", "-f", "-q", "-w", &seconds, &address])
        })?;
        sample.set("average_us", ping_average(&text)?);
        Ok(())
    }

    fn intact(&self, sample: &mut Sample) -> Result<()> {
        let out = self.connect()?;
        out.ask(&Request::CheckedSink(CHECKED))?;
        stream::send_checked(out.stream(), CHECKED)?;
        match crate::control::hear(out.stream())? {
            Some(Reply::Ready) => {}
            other => return Err(Error::Corrupt(format!("{other:?}"))),
        }
        let into = self
            .connect()?
            .into_stream(&Request::CheckedSource(CHECKED))?;
        stream::receive_checked(&into, CHECKED)?;
        sample.set("megabytes", 2.0 * CHECKED as f64 * 1e-6);
        Ok(())
    }

    fn memory(&self, sample: &mut Sample) -> Result<()> {
        let unbound = Unbound::from(&self.interface)?;
        let off = interface::free_memory()?;
        unbound.bind()?;
        let switched = Switched::on(&self.interface)?;
        let idle = off - interface::free_memory()?;
        let mut traffic = Sample::default();
        self.tcp(&mut traffic, 1, false)?;
        self.tcp(&mut traffic, 1, true)?;
        let control = self.connect()?;
        let ((), seen) = self.window(&mut traffic, &control, || Ok(()))?;
        drop(control);
        thread::sleep(SETTLE);
        let used = off - interface::free_memory()?;
        let queues = interface::queues(&self.interface)?.max(1) as f64;
        drop(switched);
        sample.set("idle_kib_per_queue", idle.max(0) as f64 / queues);
        sample.set("used_kib_per_queue", used.max(0) as f64 / queues);
        sample.set("queues", queues);
        if let Some(kilobytes) = seen.memory.get("vnetd") {
            sample.set("vnetd_kib", *kilobytes as f64);
        }
        Ok(())
    }

    /// Takes a sample.
    pub fn measure(&self, metric: Metric, sample: &mut Sample) -> Result<()> {
        if metric == Metric::Memory {
            return self.memory(sample);
        }
        // One link at a time, but for a trace, which would see the switching.
        let _switched = if self.keep_link {
            None
        } else {
            Some(Switched::on(&self.interface)?)
        };
        let start = interface::counters(&self.interface)?;
        match metric {
            Metric::TcpOut => self.tcp(sample, 1, true),
            Metric::TcpIn => self.tcp(sample, 1, false),
            Metric::Tcp4Out => self.tcp(sample, 4, true),
            Metric::Tcp4In => self.tcp(sample, 4, false),
            Metric::UdpOut => self.udp_out(sample),
            Metric::UdpIn => self.udp_in(sample),
            Metric::UdpOverload => self.udp_overload(sample),
            Metric::Pktgen => self.pktgen(sample),
            Metric::UdpRr => self.udp_rr(sample),
            Metric::Ping => self.ping(sample),
            Metric::Intact => self.intact(sample),
            Metric::Memory => unreachable!("above"),
        }?;
        let all = interface::counters(&self.interface)? - start;
        sample.set("packets_in_all", all.packets as f64);
        Ok(())
    }
}

/// The average in the last line that ping prints, in microseconds.
fn ping_average(text: &str) -> Result<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix("rtt ")?.split_once(" = "))
        .and_then(|(_, figures)| figures.split('/').nth(1)?.parse::<f64>().ok())
        .map(|milliseconds| milliseconds * 1e3)
        .ok_or_else(|| Error::Strange("ping", text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_of_ping() {
        let text = "--- 10.99.0.1 ping statistics ---\n\
                    9 packets transmitted, 9 received, 0% packet loss, time 1ms\n\
                    rtt min/avg/max/mdev = 0.102/0.138/0.411/0.025 ms, ipg/ewma 0.1/0.1 ms\n";
        assert_eq!(ping_average(text).unwrap().round(), 138.0);
        assert!(ping_average("9 packets transmitted, 0 received").is_err());
    }
}
