// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A holder that is no process, for tests.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use crate::keeper::{Held, Keeper, Token};

/// Keeps descriptors for as long as it lives.
#[derive(Debug, Default)]
pub struct Holder(Mutex<Held>);

impl Holder {
    /// What it would give to a process that takes over.
    pub fn held(&self) -> Held {
        self.with(|held| {
            let fds = held.iter();
            fds.map(|(token, fd)| (*token, fd.try_clone().expect("dup")))
                .collect()
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Held) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keeper for Holder {
    fn keep(&self, token: Token, fd: BorrowedFd<'_>) {
        let fd = fd.try_clone_to_owned().expect("dup");
        self.with(|held| held.insert(token, fd));
    }

    fn forget(&self, token: Token) {
        self.with(|held| held.remove(&token));
    }
}
