// SPDX-License-Identifier: GPL-2.0

//! Network devices without hardware, which come with their module and go with it.
//!
//! ```ignore
//! netdev::module_software_driver! { type: MyDriver, name: "my_driver", ... }
//! ```

use kernel::prelude::*;

use crate::{
    Config,
    Operations,
    Registration, //
};

/// A driver of a network device that is software only.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// impl software::Driver for Phase2 {
///     type Nic = Nic;
///
///     fn probe() -> Result<Config<'static, Nic>> {
///         Ok(Config {
///             // Locally administered (the 2 in the first byte), and the same at every start.
///             mac: [0x02, 0x76, 0x6e, 0x65, 0x74, 0x20],
///             ..Config::new(Nic::default(), c"vnet%d")
///         })
///     }
/// }
/// ```
pub trait Driver: 'static {
    /// The driver's data of the device.
    type Nic: Operations + 'static;

    /// Makes the device, when the module is loaded. Process context; an error keeps it out.
    fn probe() -> Result<Config<'static, Self::Nic>>;
}

/// The device of a module; made by [`crate::module_software_driver`].
pub struct Device<T: Driver>(#[allow(dead_code)] Registration<'static, T::Nic>);

impl<T: Driver> Device<T> {
    /// Has the driver make its device, and registers that.
    ///
    /// # Safety
    ///
    /// The value must be part of the module's data, which is dropped before its code goes.
    #[doc(hidden)]
    pub unsafe fn new() -> Result<Self> {
        // SAFETY: by the caller; there is no parent.
        Ok(Self(unsafe { Registration::new(None, T::probe()?)? }))
    }
}

/// Makes a [`Driver`] the module of its own: the arguments are those of `module!`.
#[macro_export]
macro_rules! module_software_driver {
    (type: $type:ty, $($f:tt)*) => {
        struct SoftwareModule {
            _device: $crate::software::Device<$type>,
        }

        impl ::kernel::Module for SoftwareModule {
            fn init(_module: &'static ::kernel::ThisModule) -> ::kernel::error::Result<Self> {
                Ok(Self {
                    // SAFETY: this is the module's data.
                    _device: unsafe { $crate::software::Device::new()? },
                })
            }
        }

        ::kernel::prelude::module! {
            type: SoftwareModule,
            $($f)*
        }
    };
}
