// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! UDP datagrams: sent at a rate or flat out, counted and checked where they arrive, or answered.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Arc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{Context, Error, Result},
    pattern,
};

/// Receive buffer of a sink. A program that must not lose datagrams asks for more than the
/// default, which holds some hundred of this size.
const BUFFER: usize = 4 << 20;

/// How long the paced sender sleeps between bursts. It must not spin: the machine may have no more
/// CPUs than the guest and the card need.
const PAUSE: Duration = Duration::from_micros(200);

/// How often a blocked receiver looks whether it shall stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What arrived at a sink.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Datagrams as they were sent.
    pub intact: AtomicU64,
    /// Others.
    pub corrupt: AtomicU64,
}

/// Receives in a thread of its own until it is dropped.
pub struct Sink {
    /// Counters, growing.
    pub arrived: Arc<Arrived>,
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Sink {
    /// Opens a socket on any port of all addresses.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0").context("UDP socket")?;
        socket
            .set_read_timeout(Some(LOOK_UP))
            .context("UDP timeout")?;
        // Beyond the system's limit only with privilege, which this has in the guest.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)
            .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER))
            .context("UDP buffer")?;
        let port = socket.local_addr().context("UDP port")?.port();
        let arrived = Arc::new(Arrived::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (arrived, stop) = (arrived.clone(), stop.clone());
            move || Self::run(&socket, &arrived, &stop)
        });
        Ok(Self {
            arrived,
            port,
            stop,
            thread: Some(thread),
        })
    }

    /// Where to send to.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn run(socket: &UdpSocket, arrived: &Arrived, stop: &AtomicBool) {
        let mut data = [0; pattern::DATAGRAM + 1];
        while !stop.load(Relaxed) {
            match socket.recv(&mut data) {
                Ok(n) if pattern::number_of(&data[..n]).is_some() => &arrived.intact,
                // An error other than time is the echo of one on the way: nothing arrived.
                Err(_) => continue,
                Ok(_) => &arrived.corrupt,
            }
            .fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the counters stay as they are.
            let _ = thread.join();
        }
    }
}

/// Sends `rate` datagrams a second for that long, in small bursts; returns how many it were.
pub fn send_paced(to: SocketAddr, rate: u64, time: Duration) -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("UDP socket")?;
    socket.connect(to).context("UDP connect")?;
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        let due = (elapsed.min(time).as_secs_f64() * rate as f64) as u64;
        while sent < due {
            match socket.send(&pattern::datagram(sent)) {
                Ok(_) => sent += 1,
                // The way is full, or the receiver just gone: lost like any other.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => sent += 1,
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    sent += 1;
                }
                Err(e) => return Err(Error::Io("UDP send".into(), e)),
            }
        }
        if elapsed >= time {
            return Ok(sent);
        }
        thread::sleep(PAUSE);
    }
}

/// Sends one datagram after the other until told to stop; returns how many the kernel took.
pub fn send_flat_out(to: SocketAddr, stop: &AtomicBool) -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("UDP socket")?;
    socket.connect(to).context("UDP connect")?;
    let mut sent = 0;
    while !stop.load(Relaxed) {
        match socket.send(&pattern::datagram(sent)) {
            Ok(_) => sent += 1,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            Err(e) => return Err(Error::Io("UDP send".into(), e)),
        }
    }
    Ok(sent)
}

/// Answers each datagram with itself until told to stop.
pub fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    socket
        .set_read_timeout(Some(LOOK_UP))
        .context("UDP timeout")?;
    let mut data = [0; 2048];
    while !stop.load(Relaxed) {
        match socket.recv_from(&mut data) {
            // The asker may be gone meanwhile.
            Ok((n, from)) => drop(socket.send_to(&data[..n], from)),
            Err(e) if is_timeout(e.kind()) => {}
            Err(e) => return Err(Error::Io("UDP echo".into(), e)),
        }
    }
    Ok(())
}

/// Round trips, one after the other.
#[derive(Debug, Default)]
pub struct RoundTrips {
    /// Microseconds of each.
    pub times: Vec<f64>,
    /// How many were not answered.
    pub lost: u64,
}

/// Asks an [`echo`] for that long.
pub fn ask(to: SocketAddr, time: Duration) -> Result<RoundTrips> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("UDP socket")?;
    socket.connect(to).context("UDP connect")?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .context("UDP timeout")?;
    let mut trips = RoundTrips::default();
    let mut data = [0; pattern::DATAGRAM + 1];
    let end = Instant::now() + time;
    let mut number = 0;
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(trips);
        }
        socket.send(&pattern::datagram(number)).context("UDP ask")?;
        match socket.recv(&mut data) {
            Ok(n) => match pattern::number_of(&data[..n]) {
                Some(answered) if answered == number => {
                    trips.times.push(start.elapsed().as_secs_f64() * 1e6)
                }
                // A late answer to a question given up.
                Some(_) => {}
                None => return Err(Error::Corrupt(format!("answer {number}"))),
            },
            Err(e) if is_timeout(e.kind()) => trips.lost += 1,
            Err(e) => return Err(Error::Io("UDP answer".into(), e)),
        }
        number += 1;
    }
}
