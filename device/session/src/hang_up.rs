// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The end of a session that cannot go on.
//!
//! The loop of the `vfio_user` crate answers a request that failed with the error number zero,
//! which the client takes for success. It would then wait for interrupts or frames for ever, and
//! nothing would say why. The loop cannot be left, either, but by unwinding from it.

use std::any::Any;
use std::fmt::Display;
use std::panic::resume_unwind;

/// What unwinds: why the client is hung up on.
struct Reason(String);

/// Leaves the loop of the session from within. No panic hook runs.
pub(crate) fn hang_up(reason: impl Display) -> ! {
    resume_unwind(Box::new(Reason(reason.to_string())))
}

/// Why the session was left, or that the loop panicked by itself.
pub(crate) fn reason(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<Reason>() {
        Ok(reason) => reason.0,
        Err(_) => "malformed message".into(),
    }
}
