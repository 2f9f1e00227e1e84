// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A client that waits for each answer.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Answer, Command, Error, Greeting, Request, Version, MAX_ANSWER, PROTOCOL};

/// Longest wait for the server: it gives up on whatever it does before.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is at the socket.
    #[error("{}: {source}; does vnetd run, with this as its control socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection is of no use any more.
    #[error("connection to vnetd: {0}")]
    Io(#[from] io::Error),
    /// The server ended the connection.
    #[error("vnetd has hung up")]
    HungUp,
    /// What came is not what was to come.
    #[error("vnetd sent what makes no sense: {0}")]
    Nonsense(#[from] serde_json::Error),
    /// It speaks another protocol.
    #[error("vnetd {version} speaks version {protocol} of the protocol, not {PROTOCOL}")]
    Protocol {
        /// Version of the program.
        version: String,
        /// What it speaks.
        protocol: u32,
    },
    /// The request was refused.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    server: Version,
    next: u64,
}

impl Client {
    /// Connects to the socket at this path.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let line = read(&mut stream)?;
        let Ok(Greeting { vnetd }) = serde_json::from_slice(&line) else {
            let refused: Answer = serde_json::from_slice(&line)?;
            let error = refused
                .error
                .map_or(ClientError::HungUp, ClientError::Refused);
            return Err(error);
        };
        if vnetd.protocol != PROTOCOL {
            return Err(ClientError::Protocol {
                version: vnetd.version,
                protocol: vnetd.protocol,
            });
        }
        Ok(Self {
            stream,
            server: vnetd,
            next: 1,
        })
    }

    /// Who the server is.
    pub fn server(&self) -> &Version {
        &self.server
    }

    /// Has something done, and returns what came of it.
    pub fn call(&mut self, command: &Command) -> Result<Value, ClientError> {
        self.call_with(command, None)
    }

    /// The same for something that is to be done with a file.
    pub fn call_with_file(
        &mut self,
        command: &Command,
        file: BorrowedFd<'_>,
    ) -> Result<Value, ClientError> {
        self.call_with(command, Some(file))
    }

    fn call_with(
        &mut self,
        command: &Command,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, ClientError> {
        let mut request = Request::from(command);
        request.id = Some(self.next);
        self.next += 1;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        let sent = match file {
            Some(file) => send(self.stream.get_ref(), &line, file)?,
            None => 0,
        };
        self.stream.get_mut().write_all(&line[sent..])?;
        let answer: Answer = serde_json::from_slice(&read(&mut self.stream)?)?;
        match answer {
            Answer { error: Some(e), .. } => Err(e.into()),
            Answer { value, .. } => Ok(value.unwrap_or_default()),
        }
    }

    /// The same for an answer of a known type.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T, ClientError> {
        Ok(serde_json::from_value(self.call(command)?)?)
    }
}

/// Sends the start of a line with a descriptor, and returns how much of it that was.
fn send(stream: &UnixStream, line: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    // There is room for it.
    control.push(SendAncillaryMessage::ScmRights(&files));
    let bytes = [IoSlice::new(line)];
    let sent = retry_on_intr(|| sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL))?;
    Ok(sent)
}

fn read(stream: &mut BufReader<UnixStream>) -> Result<Vec<u8>, ClientError> {
    let mut line = Vec::new();
    let mut limited = stream.take(MAX_ANSWER as u64);
    limited.read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => Ok(line),
        _ => Err(ClientError::HungUp),
    }
}
