// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What can go wrong in a test, other than an assertion.

use std::io;

/// Result of the testkit.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call of the testkit failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused, the peer is gone or a wait took too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server answered with an error.
    #[error("command {command} refused with errno {errno}")]
    Refused {
        /// vfio-user command.
        command: u16,
        /// Error number of the reply.
        errno: u32,
    },
    /// The peer answered with something else than it must.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// The card does not do what its contract says.
    #[error("card: {0}")]
    Card(String),
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

/// The error for a wait that took too long.
pub(crate) fn timeout(what: &str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, what.to_owned()))
}
