// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why something was not done.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// For programs.
    pub class: Class,
    /// For people: one line.
    pub desc: String,
}

/// Kinds of errors. There may be more one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// The line is not a request.
    BadRequest,
    /// There is no such command.
    UnknownCommand,
    /// The arguments are not those of the command, or one has a value that cannot be.
    BadArgument,
    /// There is no card of that name.
    NoSuchCard,
    /// There is a card of that name, or there are too many.
    Exists,
    /// The card or its backend does not do it.
    Failed,
    /// It takes too long. It may come to pass yet.
    Timeout,
    /// There are too many clients.
    TooManyClients,
    /// The server went wrong.
    Internal,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Error {
    /// An error.
    pub fn new(class: Class, desc: impl Into<String>) -> Self {
        let desc = desc.into();
        Self { class, desc }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.desc)
    }
}

impl std::error::Error for Error {}
