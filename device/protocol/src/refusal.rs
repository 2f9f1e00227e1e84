// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why a message is refused.

use std::io;

use rustix::io::Errno;

use crate::command::DEVICE_FEATURE;
use crate::inbox::Lost;

/// Why a message is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No message has this size, and where the next one begins cannot be known.
    #[error("message of {0} bytes")]
    Size(u32),
    /// Another major version of the protocol.
    #[error("version {major}.{minor} of the protocol is not spoken here")]
    Version {
        /// Major version that the client proposes.
        major: u16,
        /// Minor version that the client proposes.
        minor: u16,
    },
    /// Neither a command nor a reply.
    #[error("message of unknown type {0}")]
    Type(u32),
    /// A reply, though nothing was asked.
    #[error("reply to nothing")]
    Reply,
    /// A command before the version was agreed on, or a second proposal after that.
    #[error("not before, or not after, the version is agreed on")]
    Order,
    /// The proposal of a version cannot be read.
    #[error("malformed version data: {0}")]
    VersionData(&'static str),
    /// The command is not served here.
    #[error("command {0} is not supported")]
    Unsupported(u16),
    /// The payload is too short for the command, or does not fit what it says itself.
    #[error("payload of the wrong length")]
    Length,
    /// The message is longer than any that can be right.
    #[error("message is too long")]
    TooLong,
    /// The reply would be longer than the client allows.
    #[error("reply would be too long")]
    ReplyTooLong,
    /// Some of the descriptors are missing.
    #[error("{}", match .0 {
        Lost::TooMany => "descriptors were lost on the way",
        Lost::Foreign => "descriptor of neither a file nor an eventfd",
    })]
    Lost(Lost),
    /// Not as many descriptors as the command takes.
    #[error("{0} descriptors")]
    Descriptors(usize),
    /// Flags that are unknown, or do not go together.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// What the flags ask for is not supported.
    #[error("flags {0:#x} are not supported")]
    UnsupportedFlags(u32),
    /// There is no region of this number.
    #[error("no region {0}")]
    Region(u32),
    /// The access does not lie within its region.
    #[error("access to region {region} at {offset:#x} of {count} bytes")]
    Access {
        /// Region number.
        region: u32,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        count: u32,
    },
    /// There is no kind of interrupt of this number.
    #[error("no interrupts of kind {0}")]
    Irq(u32),
    /// Not all of these interrupts exist.
    #[error("no {count} interrupts of kind {index} from {start} on")]
    IrqRange {
        /// Kind of interrupt.
        index: u32,
        /// First one.
        start: u32,
        /// Number of them.
        count: u32,
    },
    /// The client refuses what it was asked for, with this error number.
    #[error("the client refuses: error {0}")]
    Client(u32),
    /// The device refuses.
    #[error("{0}")]
    Device(#[source] io::Error),
}

impl Refusal {
    /// The error number for the reply. Never zero, which some clients take for success.
    pub fn errno(&self) -> u32 {
        let errno = match self {
            Refusal::Device(e) => match e.raw_os_error() {
                Some(code) if code > 0 => return code.unsigned_abs(),
                _ if e.kind() == io::ErrorKind::InvalidInput => Errno::INVAL,
                _ => Errno::IO,
            },
            Refusal::Client(errno) => return *errno,
            // What Linux says of a device without such features, and what QEMU understands.
            Refusal::Unsupported(DEVICE_FEATURE) => Errno::NOTTY,
            Refusal::Unsupported(_) | Refusal::UnsupportedFlags(_) => Errno::OPNOTSUPP,
            Refusal::Version { .. } => Errno::PROTONOSUPPORT,
            Refusal::Type(_) | Refusal::Reply | Refusal::Order => Errno::PROTO,
            Refusal::TooLong | Refusal::ReplyTooLong => Errno::MSGSIZE,
            Refusal::Lost(Lost::TooMany) => Errno::MFILE,
            Refusal::Lost(Lost::Foreign)
            | Refusal::Size(_)
            | Refusal::VersionData(_)
            | Refusal::Length
            | Refusal::Descriptors(_)
            | Refusal::Flags(_)
            | Refusal::Region(_)
            | Refusal::Access { .. }
            | Refusal::Irq(_)
            | Refusal::IrqRange { .. } => Errno::INVAL,
        };
        errno.raw_os_error().unsigned_abs()
    }

    /// True if the session cannot go on.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Refusal::Size(_) | Refusal::Version { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_s_errors_keep_their_number_and_none_is_zero() {
        let errno = |e: io::Error| Refusal::Device(e).errno();
        assert_eq!(errno(Errno::EXIST.into()), 17);
        assert_eq!(errno(io::ErrorKind::InvalidInput.into()), 22);
        assert_eq!(errno(io::ErrorKind::Other.into()), 5);
        assert_eq!(errno(io::Error::from_raw_os_error(0)), 5);
        assert_eq!(errno(io::Error::from_raw_os_error(-17)), 5);
    }
}
