// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Why a queue stopped.

use std::fmt;

use vnet_contract::queue::Error;

/// A rule that the driver broke, and what broke it: `Q_STATUS` and `Q_ERROR_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub error: Error,
    /// The descriptor index or value that broke it.
    pub info: u32,
}

impl Fault {
    /// A fault about a descriptor index or a value.
    pub fn new(error: Error, info: impl Into<u32>) -> Self {
        Self {
            error,
            info: info.into(),
        }
    }

    /// A fault about a bus address, of which the register shows the lower half.
    pub fn at(error: Error, address: u64) -> Self {
        Self::new(error, address as u32)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = self.info;
        match self.error {
            Error::Size => write!(f, "{i} is not a ring size"),
            Error::Alignment => write!(f, "ring address ending in {i:#010x} is not aligned"),
            Error::RingFault => write!(f, "ring memory at ...{i:08x} cannot be accessed"),
            Error::NotNegotiated => write!(f, "enabled before the features were committed"),
            Error::Vector => write!(f, "vector {i} does not exist"),
            Error::ConfigWhileRunning => write!(f, "register {i:#x} written while running"),
            Error::AvailIndex => write!(f, "avail index jumped to {i}"),
            Error::DescIndex => write!(
                f,
                "descriptor index {i} is outside the ring or the indirect table"
            ),
            Error::ChainLength => write!(f, "chain at descriptor {i} loops"),
            Error::Direction => write!(f, "descriptor {i} has the wrong direction"),
            Error::BufferLength => write!(f, "buffer at descriptor {i} has a bad length"),
            Error::BufferFault => write!(f, "buffer of descriptor {i} cannot be accessed"),
            Error::Header => write!(f, "header of the frame at descriptor {i} is wrong"),
            Error::Indirect => write!(
                f,
                "descriptor {i} is indirect and must not be, or its table is wrong"
            ),
        }
    }
}

impl std::error::Error for Fault {}
