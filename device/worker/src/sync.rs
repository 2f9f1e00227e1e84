// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The primitives that threads hand a pair over with: the standard library's, or those of loom,
//! which tries every order that they allow (`model`).

#[cfg(loom)]
pub(crate) use loom::sync::{
    atomic::{AtomicBool, Ordering},
    Mutex, MutexGuard,
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    atomic::{AtomicBool, Ordering},
    Mutex, MutexGuard,
};
