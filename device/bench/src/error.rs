// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What can go wrong with a measurement.

use std::io;

/// Result of this program's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Client and server do not understand each other.
    #[error("the other end says: {0}")]
    Peer(String),
    /// A file or a program's output is not what it should be.
    #[error("{0} makes no sense: {1}")]
    Strange(&'static str, String),
    /// Bytes arrived that were not sent.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// JSON of a sample or of the report.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Says what was being done when a system call failed.
pub trait Context<T> {
    /// Adds that to the error.
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::Io(what.into(), e.into()))
    }
}
