// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The primitives behind a vector: the standard library's, or those of loom, which tries every
//! order that they allow (`model`).

#[cfg(loom)]
pub(crate) use loom::sync::{
    atomic::{AtomicU64, Ordering},
    Mutex, MutexGuard,
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    atomic::{AtomicU64, Ordering},
    Mutex, MutexGuard,
};
