// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a server asks of its client: to read or write memory that the server cannot map.

use crate::fields::Fields;
use crate::header::{Header, HEADER_SIZE};
use crate::inbox::Message;
use crate::refusal::Refusal;

/// Commands of a server.
const DMA_READ: u16 = 11;
const DMA_WRITE: u16 = 12;

/// Bytes of address and count, which data follows.
const ACCESS_SIZE: usize = 16;

/// Most requests without an answer at a time.
pub const MAX_REQUESTS: usize = 16;

/// The requests that a client has not answered yet.
///
/// A client answers in any order, when it likes or never; what it answers is held to what it was
/// asked. An answer that does not fit ends the request that it names, and the session goes on.
#[derive(Debug, Default)]
pub struct Requests {
    open: Vec<Request>,
    next_id: u16,
}

/// A request, as long as it is open.
#[derive(Clone, Copy, Debug)]
struct Request {
    id: u16,
    command: u16,
    address: u64,
    count: u32,
}

/// How a request ended.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The number that the request was given.
    pub id: u16,
    /// The bytes that were asked for, none if it was a write; or why there are none.
    pub result: Result<&'a [u8], Refusal>,
}

impl Requests {
    /// True if no request can be made before one is answered.
    pub fn is_full(&self) -> bool {
        self.open.len() >= MAX_REQUESTS
    }

    /// True if all are answered.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Asks for `count` bytes of memory, in a message that takes the place of what is in `message`.
    /// Returns a number for the request; `None`: there are too many.
    pub fn read(&mut self, address: u64, count: u32, message: &mut Vec<u8>) -> Option<u16> {
        message.clear();
        self.ask(DMA_READ, address, count, message)
    }

    /// Asks to write `count` bytes, which `data` is to append to the message; see [`Self::read`].
    pub fn write(
        &mut self,
        address: u64,
        count: u32,
        message: &mut Vec<u8>,
        data: impl FnOnce(&mut [u8]),
    ) -> Option<u16> {
        message.clear();
        message.resize(HEADER_SIZE + ACCESS_SIZE + count as usize, 0);
        data(&mut message[HEADER_SIZE + ACCESS_SIZE..]);
        self.ask(DMA_WRITE, address, count, message)
    }

    fn ask(
        &mut self,
        command: u16,
        address: u64,
        count: u32,
        message: &mut Vec<u8>,
    ) -> Option<u16> {
        if self.is_full() {
            message.clear();
            return None;
        }
        // Of the last 65,536 numbers a few may be in use, by requests that wait for long.
        let id = (0..=u16::MAX)
            .map(|n| self.next_id.wrapping_add(n))
            .find(|&id| self.open.iter().all(|request| request.id != id))?;
        self.next_id = id.wrapping_add(1);
        let size = message.len().max(HEADER_SIZE + ACCESS_SIZE);
        message.resize(size, 0);
        let (header, rest) = message.split_at_mut(HEADER_SIZE);
        header.copy_from_slice(&Header::command(id, command, size as u32));
        rest[..8].copy_from_slice(&address.to_ne_bytes());
        rest[8..ACCESS_SIZE].copy_from_slice(&u64::from(count).to_ne_bytes());
        self.open.push(Request {
            id,
            command,
            address,
            count,
        });
        Some(id)
    }

    /// Takes a reply. An error: it answers nothing that was asked.
    pub fn answer<'a>(&mut self, message: &Message<'a>) -> Result<Answer<'a>, Refusal> {
        let header = message.header;
        let found = self.open.iter().position(|open| open.id == header.id);
        let request = self.open.swap_remove(found.ok_or(Refusal::Reply)?);
        Ok(Answer {
            id: request.id,
            result: request.check(&header, message.payload),
        })
    }
}

impl Request {
    /// The data of a reply to this.
    fn check<'a>(&self, header: &Header, payload: Option<&'a [u8]>) -> Result<&'a [u8], Refusal> {
        if header.command != self.command {
            return Err(Refusal::Reply);
        }
        if let Some(errno) = header.error() {
            return Err(Refusal::Client(errno));
        }
        let payload = payload.ok_or(Refusal::TooLong)?;
        if self.command == DMA_WRITE && payload.is_empty() {
            // Some say no more than that it is done.
            return Ok(payload);
        }
        let mut fields = Fields::new(payload);
        let (address, count) = (fields.u64()?, fields.u64()?);
        let data = fields.rest();
        let due = match self.command {
            DMA_READ => self.count as usize,
            _ => 0,
        };
        if address != self.address || count != u64::from(self.count) || data.len() != due {
            return Err(Refusal::Length);
        }
        Ok(data)
    }
}
