// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What every message begins with. Numbers have the byte order of the host.

/// Size of a header.
pub const HEADER_SIZE: usize = 16;

/// Bits of the flags that tell what the message is.
const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
/// The sender of a command wants no reply.
const NO_REPLY: u32 = 1 << 4;
/// A reply says that the command failed.
const ERROR: u32 = 1 << 5;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who sends a command, and repeated in the reply.
    pub id: u16,
    /// Number of the command.
    pub command: u16,
    /// Size of the message, with this header.
    pub size: u32,
    /// Kind of the message, and what is wanted.
    pub flags: u32,
    /// In a reply that is an error: which.
    pub errno: u32,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Reply,
    Unknown(u32),
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            id: u16::from_ne_bytes([a, b]),
            command: u16::from_ne_bytes([c, d]),
            size: u32::from_ne_bytes([e, f, g, h]),
            flags: u32::from_ne_bytes([i, j, k, l]),
            errno: u32::from_ne_bytes([m, n, o, p]),
        }
    }

    /// True if this is a reply, and so for [`Requests`](crate::Requests).
    pub fn is_reply(&self) -> bool {
        self.kind() == Kind::Reply
    }

    /// The error number of a reply that is an error; never zero.
    pub(crate) fn error(&self) -> Option<u32> {
        // Some clients forget the number.
        (self.flags & ERROR != 0).then(|| match self.errno {
            0 => rustix::io::Errno::IO.raw_os_error().unsigned_abs(),
            errno => errno,
        })
    }

    /// The header of a command of ours that wants a reply.
    pub(crate) fn command(id: u16, command: u16, size: u32) -> [u8; HEADER_SIZE] {
        Self {
            id,
            command,
            size,
            flags: TYPE_COMMAND,
            errno: 0,
        }
        .to_bytes()
    }

    fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..2].copy_from_slice(&self.id.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.flags & TYPE_MASK {
            TYPE_COMMAND => Kind::Command,
            TYPE_REPLY => Kind::Reply,
            other => Kind::Unknown(other),
        }
    }

    /// True if nothing must be answered.
    pub fn no_reply(&self) -> bool {
        self.flags & NO_REPLY != 0 || self.kind() == Kind::Reply
    }

    /// The header of a reply of this size, or of an error with this number.
    pub(crate) fn reply(&self, size: u32, errno: Option<u32>) -> [u8; HEADER_SIZE] {
        let flags = match errno {
            None => TYPE_REPLY,
            Some(_) => TYPE_REPLY | ERROR,
        };
        Self {
            size,
            flags,
            errno: errno.unwrap_or(0),
            ..*self
        }
        .to_bytes()
    }
}
