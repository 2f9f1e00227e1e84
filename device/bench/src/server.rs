// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The host's end: the peer of all traffic, and the one who looks at the host's clocks.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Arc, Mutex, PoisonError,
    },
    thread,
    time::Duration,
};

use crate::{
    account::{self, Snapshot, Watched},
    control::{hear, say, Reply, Request, Seen},
    datagram::{self, Sink},
    error::{Context, Error, Result},
    stream,
};

/// What all connections share.
pub struct Server {
    watched: Vec<Watched>,
    received: AtomicU64,
    sent: AtomicU64,
    /// Why a stream ended that should not have; told at the next occasion.
    failure: Mutex<Option<String>>,
}

/// A sample under way.
struct Sample {
    start: Snapshot,
    interface: String,
    bytes: u64,
    datagrams: u64,
    corrupt: u64,
    frames: u64,
}

/// A connection that stays one of requests and replies.
#[derive(Default)]
struct Session {
    sample: Option<Sample>,
    sink: Option<Sink>,
    echoes: Vec<Arc<AtomicBool>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for stop in &self.echoes {
            stop.store(true, Relaxed);
        }
    }
}

/// Frames that an interface received, by `/proc/net/dev`, which belongs to the network namespace.
fn frames_from(table: &str, interface: &str) -> Option<u64> {
    table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn frames(interface: &str) -> Result<u64> {
    let table = fs::read_to_string("/proc/self/net/dev").context("interface counters")?;
    frames_from(&table, interface).ok_or_else(|| Error::Strange("interface", interface.into()))
}

impl Server {
    /// A server that accounts for these processes and itself.
    pub fn new(watched: Vec<Watched>) -> Arc<Self> {
        Arc::new(Self {
            watched,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// Serves everyone who connects, for ever.
    pub fn run(self: &Arc<Self>, listener: &TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().context("accept")?;
            let server = self.clone();
            thread::spawn(move || {
                if let Err(error) = server.serve(&stream) {
                    eprintln!("vnet-bench: {error}");
                    *server.failure() = Some(error.to_string());
                }
            });
        }
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true).context("control connection")?;
        let guest = stream.peer_addr().context("peer's address")?.ip();
        let mut session = Session::default();
        while let Some(request) = hear(stream)? {
            match request {
                Request::Sink => {
                    say(stream, &Reply::Ready)?;
                    return stream::receive(stream, &self.received);
                }
                Request::Source => {
                    say(stream, &Reply::Ready)?;
                    return stream::send(stream, &self.sent);
                }
                Request::CheckedSink(bytes) => {
                    say(stream, &Reply::Ready)?;
                    let reply = match stream::receive_checked(stream, bytes) {
                        Ok(()) => Reply::Ready,
                        Err(error) => Reply::Failed(error.to_string()),
                    };
                    say(stream, &reply)?;
                }
                Request::CheckedSource(bytes) => {
                    say(stream, &Reply::Ready)?;
                    stream::send_checked(stream, bytes)?;
                }
                request => {
                    let reply = match self.answer(&mut session, guest, request) {
                        Ok(reply) => reply,
                        Err(error) => Reply::Failed(error.to_string()),
                    };
                    say(stream, &reply)?;
                }
            }
        }
        Ok(())
    }

    fn answer(&self, session: &mut Session, guest: IpAddr, request: Request) -> Result<Reply> {
        match request {
            Request::Begin { interface } => {
                session.sample = Some(self.begin(session.sink.as_ref(), interface)?);
                Ok(Reply::Ready)
            }
            Request::End => {
                let sample = session
                    .sample
                    .take()
                    .ok_or_else(|| Error::Peer("end without begin".into()))?;
                let seen = self.end(session.sink.as_ref(), &sample)?;
                Ok(Reply::Seen(Box::new(seen)))
            }
            Request::DatagramSink => {
                let sink = session.sink.insert(Sink::start()?);
                Ok(Reply::Port(sink.port()))
            }
            Request::DatagramSource {
                port,
                rate,
                millis,
                interface,
            } => {
                let sample = self.begin(None, interface)?;
                let to = SocketAddr::new(guest, port);
                let sent = datagram::send_paced(to, rate, Duration::from_millis(millis))?;
                let mut seen = self.end(None, &sample)?;
                seen.sent = sent;
                Ok(Reply::Seen(Box::new(seen)))
            }
            Request::Echo => {
                let socket = UdpSocket::bind("0.0.0.0:0").context("UDP socket")?;
                let port = socket.local_addr().context("UDP port")?.port();
                let stop = Arc::new(AtomicBool::new(false));
                session.echoes.push(stop.clone());
                thread::spawn(move || {
                    if let Err(error) = datagram::echo(&socket, &stop) {
                        eprintln!("vnet-bench: {error}");
                    }
                });
                Ok(Reply::Port(port))
            }
            other => Err(Error::Peer(format!("not here: {other:?}"))),
        }
    }

    fn begin(&self, sink: Option<&Sink>, interface: String) -> Result<Sample> {
        Ok(Sample {
            bytes: self.received.load(Relaxed),
            datagrams: sink.map_or(0, |sink| sink.arrived.intact.load(Relaxed)),
            corrupt: sink.map_or(0, |sink| sink.arrived.corrupt.load(Relaxed)),
            frames: frames(&interface)?,
            interface,
            start: Snapshot::take(&self.watched)?,
        })
    }

    fn end(&self, sink: Option<&Sink>, sample: &Sample) -> Result<Seen> {
        let end = Snapshot::take(&self.watched)?;
        if let Some(failure) = self.failure().take() {
            return Err(Error::Peer(failure));
        }
        let memory = |process: &Watched| {
            let kilobytes = account::private_memory(process.pid)?;
            Ok((process.name.clone(), kilobytes))
        };
        Ok(Seen {
            usage: sample.start.until(&end),
            bytes: self.received.load(Relaxed) - sample.bytes,
            datagrams: sink.map_or(0, |sink| {
                sink.arrived.intact.load(Relaxed) - sample.datagrams
            }),
            corrupt: sink.map_or(0, |sink| {
                sink.arrived.corrupt.load(Relaxed) - sample.corrupt
            }),
            sent: 0,
            frames: frames(&sample.interface)? - sample.frames,
            memory: self.watched.iter().map(memory).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_right_interface() {
        let table = "Inter-|   Receive\n face |bytes packets\n\
                     b-vnet2:  1    2 3\n  b-vnet:  100   77 0 0\n";
        assert_eq!(frames_from(table, "b-vnet"), Some(77));
        assert_eq!(frames_from(table, "b-vnet2"), Some(2));
        assert_eq!(frames_from(table, "b-vne"), None);
    }
}
