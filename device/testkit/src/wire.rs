// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! vfio-user, message by message.
//!
//! A client of its own instead of the crate's: a test must see error replies, send what is wrong,
//! and post writes without waiting, none of which the crate's client does.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::retry_on_intr;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::{Error, GuestRam, Keeper, Result, LIMIT};

/// Commands of the protocol.
#[allow(missing_docs)]
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const GET_INFO: u16 = 4;
    pub const GET_REGION_INFO: u16 = 5;
    pub const GET_REGION_IO_FDS: u16 = 6;
    pub const GET_IRQ_INFO: u16 = 7;
    pub const SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DMA_READ: u16 = 11;
    pub const DMA_WRITE: u16 = 12;
    pub const DEVICE_RESET: u16 = 13;
    pub const WRITE_MULTI: u16 = 15;
}

/// Indices of VFIO's PCI regions.
#[allow(missing_docs)]
pub mod region {
    pub const BAR0: u32 = 0;
    pub const BAR2: u32 = 2;
    pub const CONFIG: u32 = 7;
}

/// Indices and flags of VFIO's PCI interrupts.
#[allow(missing_docs)]
pub mod irq {
    pub const MSIX: u32 = 2;
    pub const ERR: u32 = 3;
    pub const DATA_NONE: u32 = 1 << 0;
    pub const DATA_BOOL: u32 = 1 << 1;
    pub const DATA_EVENTFD: u32 = 1 << 2;
    pub const ACTION_MASK: u32 = 1 << 3;
    pub const ACTION_UNMASK: u32 = 1 << 4;
    pub const ACTION_TRIGGER: u32 = 1 << 5;
}

/// Size of a message header.
const HEADER: usize = 16;
/// Header flag: this is a reply.
const REPLY: u32 = 1;
/// Header flag: the sender wants no reply.
pub const NO_REPLY: u32 = 1 << 4;
/// Header flag: the reply is an error.
const ERROR: u32 = 1 << 5;
/// Most descriptors in one message that a server is told to send.
const MAX_FDS: usize = 16;
/// Most that a client can send here, be it right or not.
const MOST_FDS: usize = 32;

/// A reply of the server.
#[derive(Debug)]
pub struct Reply {
    /// Message id, as in the request.
    pub id: u16,
    /// Command, as in the request.
    pub command: u16,
    /// Error number, if the reply is an error.
    pub error: Option<u32>,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// What a message begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) id: u16,
    pub(crate) command: u16,
    flags: u32,
    errno: u32,
}

/// Reads a header, and how much follows; `None`: that cannot be.
pub(crate) fn header_of(h: &[u8; HEADER]) -> Option<(Head, usize)> {
    let word = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let head = Head {
        id: u16::from_le_bytes([h[0], h[1]]),
        command: u16::from_le_bytes([h[2], h[3]]),
        flags: word(8),
        errno: word(12),
    };
    let size = word(4) as usize;
    (HEADER..=2 << 20)
        .contains(&size)
        .then(|| (head, size - HEADER))
}

impl Head {
    /// A reply with this payload, if it is one.
    pub(crate) fn reply(&self, payload: &[u8]) -> Option<Reply> {
        (self.flags & 0xf == REPLY).then(|| Reply {
            id: self.id,
            command: self.command,
            error: (self.flags & ERROR != 0).then_some(self.errno),
            payload: payload.to_vec(),
            fds: Vec::new(),
        })
    }

    /// The answer to a request of the server.
    pub(crate) fn answer(&self, result: std::result::Result<(), u32>, payload: &[u8]) -> Vec<u8> {
        let size = (HEADER + payload.len()) as u32;
        let flags = match result {
            Ok(()) => REPLY,
            Err(_) => REPLY | ERROR,
        };
        let mut h = Wire::header(self.id, self.command, size, flags);
        h[12..16].copy_from_slice(&result.err().unwrap_or(0).to_le_bytes());
        [&h[..], payload].concat()
    }
}

/// A connection to the server.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    next_id: u16,
    keeper: Option<(Keeper, Arc<Mutex<UnixStream>>)>,
}

impl Wire {
    /// Connects without a word.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self {
            stream,
            next_id: 0,
            keeper: None,
        })
    }

    /// From now on serves what the card asks for of this memory, whatever else goes on.
    pub fn keep(&mut self, ram: &Arc<GuestRam>) -> Result<()> {
        let reader = self.stream.try_clone()?;
        // It waits for as long as the connection lasts.
        reader.set_read_timeout(None)?;
        let writer = Arc::new(Mutex::new(self.stream.try_clone()?));
        let keeper = Keeper::start(reader, Arc::clone(&writer), Arc::clone(ram))?;
        self.keeper = Some((keeper, writer));
        Ok(())
    }

    /// True if memory is not shared.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Who serves memory that is not shared; [`Self::keep`] was called before.
    pub fn keeper(&self) -> &Keeper {
        match &self.keeper {
            Some((keeper, _)) => keeper,
            None => panic!("all memory is shared"),
        }
    }

    /// Negotiates the version as QEMU does, and returns what the server offers.
    pub fn version(&mut self) -> Result<serde_json::Value> {
        let offer = serde_json::json!({
            "capabilities": {
                "pgsizes": 4096,
                "max_msg_fds": MAX_FDS,
                "max_dma_maps": 65535,
                "max_data_xfer_size": 1 << 20,
                "migration": { "pgsize": 4096, "max_bitmap_size": 1 << 28 },
                "write_multiple": true,
            }
        });
        let mut payload = vec![0, 0, 0, 0];
        payload.extend_from_slice(offer.to_string().as_bytes());
        payload.push(0);
        let reply = self.call(command::VERSION, &payload, &[])?;
        let Some(text) = reply.payload.get(4..) else {
            return Err(Error::Answer("short VERSION reply".into()));
        };
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        serde_json::from_slice(text).map_err(|e| Error::Answer(format!("VERSION reply: {e}")))
    }

    /// Sends a request and returns its reply, which must not be an error.
    pub fn call(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let reply = self.request(command, payload, fds)?;
        match reply.error {
            Some(errno) => Err(Error::Refused { command, errno }),
            None => Ok(reply),
        }
    }

    /// Sends a request and returns its reply, be it an error or not.
    pub fn request(
        &mut self,
        command: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply> {
        let id = self.send(command, 0, payload, fds)?;
        let reply = self.receive()?;
        if (reply.id, reply.command) != (id, command) {
            return Err(Error::Answer(format!(
                "reply {}/{} to request {id}/{command}",
                reply.id, reply.command
            )));
        }
        Ok(reply)
    }

    /// Sends a request and returns its id.
    pub fn send(
        &mut self,
        command: u16,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<u16> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let size = (HEADER + payload.len()) as u32;
        let bytes = [&Self::header(id, command, size, flags)[..], payload].concat();
        self.send_raw(&bytes, fds)?;
        Ok(id)
    }

    /// A message header.
    pub fn header(id: u16, command: u16, size: u32, flags: u32) -> [u8; HEADER] {
        let mut h = [0; HEADER];
        h[0..2].copy_from_slice(&id.to_le_bytes());
        h[2..4].copy_from_slice(&command.to_le_bytes());
        h[4..8].copy_from_slice(&size.to_le_bytes());
        h[8..12].copy_from_slice(&flags.to_le_bytes());
        h
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        // A message goes out in one piece, and not into the middle of an answer.
        let writer = self.keeper.as_ref().map(|(_, writer)| writer);
        let _alone = writer.map(|w| w.lock().unwrap_or_else(PoisonError::into_inner));
        if fds.is_empty() {
            return Ok((&self.stream).write_all(bytes)?);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(
            ancillary.push(SendAncillaryMessage::ScmRights(fds)),
            "at most {MOST_FDS} descriptors"
        );
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok((&self.stream).write_all(&bytes[sent..])?)
    }

    /// Reads one reply.
    pub fn receive(&mut self) -> Result<Reply> {
        if let Some((keeper, _)) = &self.keeper {
            let reply = keeper.replies.recv_timeout(LIMIT);
            return reply.map_err(|e| Error::Answer(format!("no reply: {e}")));
        }
        let mut h = [0; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        // With a timeout, a process that was stopped for a while is told so.
        let got = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut h)];
            recvmsg(
                &self.stream,
                &mut parts,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?
        .bytes;
        if got == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let fds = ancillary
            .drain()
            .filter_map(|m| match m {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        self.stream.read_exact(&mut h[got..])?;
        let Some((head, length)) = header_of(&h) else {
            return Err(Error::Answer(format!("header {h:?}")));
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        match head.reply(&payload) {
            Some(reply) => Ok(Reply { fds, ..reply }),
            None => Err(Error::Answer(format!("no reply: {head:?}"))),
        }
    }

    /// True if the server has closed the connection, once everything that it sent is read.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Tells the server that nothing more will be sent.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }
}
