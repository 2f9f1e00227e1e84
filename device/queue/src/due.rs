// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! An interrupt that is due.

/// What decides whether an interrupt is due: it is if `event` is one of `old`, `old + 1`, up to
/// `new - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The driver's event index.
    pub event: u16,
    /// The used index when it was last decided.
    pub old: u16,
    /// The used index now.
    pub new: u16,
}

/// An interrupt that the driver asked for by its event index.
///
/// It stays due until it is raised or the driver moves its event index past it, which a driver that
/// polls does. So one that waits has to be looked at again before it is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The driver's event index.
    pub event: u16,
    /// Used entries from the one that the driver asked about on, that one included.
    pub entries: u16,
}
