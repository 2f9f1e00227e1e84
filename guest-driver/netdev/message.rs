// SPDX-License-Identifier: GPL-2.0

//! Messages of a device.

/// How important a message is.
///
/// What [`NetDevice::print`](crate::NetDevice::print) takes; [`crate::info`], [`crate::err`] and [`crate::debug`] have it in their names.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// if ends.contains(&false) {
///     netdev::err!(dev, "a queue does not stop\n");
///     // So it is kept from memory, all of it.
///     netdev::pci::clear_master(self.dev);
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Worth knowing.
    Info,
    /// For those who want to see the steps.
    Debug,
}

/// Prints an error message of a [`NetDevice`](crate::NetDevice).
#[macro_export]
macro_rules! err {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Error, ::kernel::prelude::fmt!($($f)*))
    };
}

/// Prints a message of a [`NetDevice`](crate::NetDevice).
#[macro_export]
macro_rules! info {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Info, ::kernel::prelude::fmt!($($f)*))
    };
}

/// Prints a debug message of a [`NetDevice`](crate::NetDevice).
#[macro_export]
macro_rules! debug {
    ($dev:expr, $($f:tt)*) => {
        $dev.print($crate::Level::Debug, ::kernel::prelude::fmt!($($f)*))
    };
}
