// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The primitives that worker and message thread meet with: the standard library's, or those of
//! loom, which tries every order that they allow (`relay::model`).

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
