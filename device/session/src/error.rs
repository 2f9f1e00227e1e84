// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why the card cannot be served. Each message is one line for the user.

use std::io;
use std::path::PathBuf;

/// Why the card cannot be served, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server listens on the path.
    #[error("socket {}: in use by another server", .0.display())]
    InUse(PathBuf),
    /// The path names something that is not a socket, which is not ours to remove.
    #[error("socket {}: the file exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be set up.
    #[error("socket {}: {source}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The listener is gone.
    #[error("accepting a client: {0}")]
    Accept(#[source] io::Error),
    /// What is needed to end a session cannot be had.
    #[error("session: {0}")]
    Control(#[source] io::Error),
    /// The client's memory cannot be reached: it sent no file descriptor for any of it, and is not
    /// to be asked for it.
    #[error(
        "client: does not share its memory, without which there is neither --sanitize nor \
         --survive; QEMU needs -object memory-backend-memfd,share=on as the memory of its machine"
    )]
    NoSharedMemory,
}
