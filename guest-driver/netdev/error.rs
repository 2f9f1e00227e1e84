// SPDX-License-Identifier: GPL-2.0

//! Error codes that drivers for the network return, which `kernel` 7.2 does not all have.

#[cfg(not(kernel_7_2))]
pub use kernel::error::code::{
    EADDRNOTAVAIL,
    ENETDOWN,
    EOPNOTSUPP, //
};

#[cfg(kernel_7_2)]
pub use old::{
    EADDRNOTAVAIL,
    ENETDOWN,
    EOPNOTSUPP, //
};

#[cfg(kernel_7_2)]
mod old {
    use kernel::{
        bindings,
        error::Error, //
    };

    const fn error(errno: u32) -> Error {
        // SAFETY: in this kernel an `Error` is a negative error number that is not zero in a structure of
        // its own; that it is as large is checked by the compiler.
        unsafe { core::mem::transmute(-(errno as i32)) }
    }

    /// The address is not one that the device can have.
    pub const EADDRNOTAVAIL: Error = error(bindings::EADDRNOTAVAIL);
    /// The interface is down.
    pub const ENETDOWN: Error = error(bindings::ENETDOWN);
    /// The device or the driver cannot do that.
    pub const EOPNOTSUPP: Error = error(bindings::EOPNOTSUPP);
}
