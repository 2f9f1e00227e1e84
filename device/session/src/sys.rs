// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The socket option that has no safe wrapper: where in a stream the next look begins.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, socklen_t};
use rustix::io::Errno;

const SIZE: socklen_t = size_of::<c_int>() as socklen_t;

/// Bytes of a socket before the place where `MSG_PEEK` looks next. What is read is taken off, what
/// is looked at is added. `None`: it always looks at the first.
pub(crate) fn peek_offset(socket: &OwnedFd) -> Result<Option<usize>, Errno> {
    let (mut offset, mut size): (c_int, _) = (0, SIZE);
    // SAFETY: SO_PEEK_OFF writes one `int`, and no more than `size` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw mut offset).cast(),
            &mut size,
        )
    };
    check(result)?;
    Ok(usize::try_from(offset).ok())
}

/// Sets that.
pub(crate) fn set_peek_offset(socket: &OwnedFd, offset: Option<usize>) -> Result<(), Errno> {
    let offset: c_int = match offset {
        Some(offset) => offset.try_into().map_err(|_| Errno::INVAL)?,
        None => -1,
    };
    // SAFETY: the value is an `int` that is valid during the call, which only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            SIZE,
        )
    };
    check(result)
}

fn check(result: c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}
