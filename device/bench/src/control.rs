// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the two ends say to each other: a request and its reply are a line of JSON each.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde::{de::DeserializeOwned, Deserialize, Serialize};

use crate::{
    account::Usage,
    error::{Context, Error, Result},
};

/// The server's port.
pub const PORT: u16 = 5400;

/// No line is longer than this.
const LINE_MAX: usize = 4096;

/// What the guest's end asks of the host's. The first four make the connection a stream once they
/// are answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Receive what comes.
    Sink,
    /// Send without end.
    Source,
    /// Receive that many bytes and compare them all.
    CheckedSink(u64),
    /// Send that many bytes that the other end will compare.
    CheckedSource(u64),
    /// A sample begins: take the clocks and counters.
    Begin {
        /// The host's interface whose frames are counted.
        interface: String,
    },
    /// It ends: say what was between.
    End,
    /// Receive datagrams until the connection ends.
    DatagramSink,
    /// A sample of its own: send datagrams and say what was meanwhile.
    DatagramSource {
        /// Port of the guest.
        port: u16,
        /// Datagrams a second.
        rate: u64,
        /// How long.
        millis: u64,
        /// As for `Begin`.
        interface: String,
    },
    /// Answer datagrams until the connection ends.
    Echo,
}

/// The host's view of a sample.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// CPU and wall-clock time.
    pub usage: Usage,
    /// Bytes that its sinks received.
    pub bytes: u64,
    /// Datagrams that its sink received as they were sent.
    pub datagrams: u64,
    /// Others.
    pub corrupt: u64,
    /// Datagrams that it sent.
    pub sent: u64,
    /// Frames that the interface had from the guest.
    pub frames: u64,
    /// Kilobytes of private memory of the watched processes at the end.
    pub memory: std::collections::BTreeMap<String, u64>,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Done, or about to be.
    Ready,
    /// A UDP port to send to.
    Port(u16),
    /// A sample's end.
    Seen(Box<Seen>),
    /// It went wrong.
    Failed(String),
}

/// Writes a line.
pub fn say(mut stream: &TcpStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).context("control connection")
}

/// Reads a line and not a byte more, for a stream may follow; none at the connection's end.
pub fn hear<T: DeserializeOwned>(mut stream: &TcpStream) -> Result<Option<T>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_MAX {
        match stream.read(&mut byte).context("control connection")? {
            0 if line.is_empty() => return Ok(None),
            0 => break,
            _ if byte == *b"\n" => return Ok(Some(serde_json::from_slice(&line)?)),
            _ => line.extend(byte),
        }
    }
    Err(Error::Strange(
        "control line",
        String::from_utf8_lossy(&line).into(),
    ))
}

/// A connection to the server.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).context(format!("connect to {server}"))?;
        stream.set_nodelay(true).context("control connection")?;
        Ok(Self(stream))
    }

    /// Asks and waits for the answer.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        say(&self.0, request)?;
        match hear(&self.0)? {
            Some(Reply::Failed(why)) => Err(Error::Peer(why)),
            Some(reply) => Ok(reply),
            None => Err(Error::Peer("nothing".into())),
        }
    }

    /// The same where the answer is what the host saw.
    pub fn ask_seen(&self, request: &Request) -> Result<Seen> {
        match self.ask(request)? {
            Reply::Seen(seen) => Ok(*seen),
            other => Err(Error::Peer(format!("{other:?}"))),
        }
    }

    /// The same where it is a port.
    pub fn ask_port(&self, request: &Request) -> Result<u16> {
        match self.ask(request)? {
            Reply::Port(port) => Ok(port),
            other => Err(Error::Peer(format!("{other:?}"))),
        }
    }

    /// The connection itself, for what goes between two requests.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }

    /// Asks for a stream; the connection is nothing else from now on.
    pub fn into_stream(self, request: &Request) -> Result<TcpStream> {
        self.ask(request)?;
        Ok(self.0)
    }
}
