// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Descriptors that outlive the process.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// The state itself.
    State,
    /// The connection to the client.
    Client,
    /// The pipe through which replies go, its end to read and its end to write.
    Replies {
        /// The end to write.
        write: bool,
    },
    /// The eventfd of an MSI-X vector.
    Vector(u16),
    /// A descriptor of the backend.
    Backend(u16),
    /// A file of guest memory.
    Memory(u32),
    /// What the driver was found to have done wrong.
    Findings,
}

impl Token {
    /// A number for it.
    pub fn to_bits(self) -> u64 {
        let (kind, index) = match self {
            Token::State => (1, 0),
            Token::Client => (2, 0),
            Token::Replies { write } => (3, write.into()),
            Token::Vector(n) => (4, n.into()),
            Token::Backend(n) => (5, n.into()),
            Token::Memory(n) => (6, n),
            Token::Findings => (7, 0),
        };
        kind << 32 | u64::from(index)
    }

    /// What a number stands for.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let index = bits as u32;
        let token = match bits >> 32 {
            1 => Token::State,
            2 => Token::Client,
            3 => Token::Replies { write: index != 0 },
            4 => Token::Vector(index as u16),
            5 => Token::Backend(index as u16),
            6 => Token::Memory(index),
            7 => Token::Findings,
            _ => return None,
        };
        (token.to_bits() == bits).then_some(token)
    }
}

/// The way to the holder. What one call has passed on stays, whatever becomes of the caller.
pub trait Keeper: Send + Sync {
    /// Keeps a second descriptor of the same, in the place of the one that the token stood for.
    fn keep(&self, token: Token, fd: BorrowedFd<'_>);

    /// Closes what the token stands for, if it does for anything.
    fn forget(&self, token: Token);
}

/// What the holder kept.
pub type Held = BTreeMap<Token, OwnedFd>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_number_belong_together() {
        let tokens = [
            Token::State,
            Token::Client,
            Token::Replies { write: false },
            Token::Replies { write: true },
            Token::Vector(0),
            Token::Vector(16),
            Token::Backend(0),
            Token::Backend(u16::MAX),
            Token::Memory(0),
            Token::Memory(u32::MAX),
            Token::Findings,
        ];
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(Token::from_bits(token.to_bits()), Some(*token));
            let others = &tokens[n + 1..];
            assert!(others.iter().all(|o| o.to_bits() != token.to_bits()));
        }
        for bits in [0, 8 << 32, 1 << 32 | 1, 4 << 32 | 0x1_0000, u64::MAX] {
            assert_eq!(Token::from_bits(bits), None, "{bits:#x}");
        }
    }
}
