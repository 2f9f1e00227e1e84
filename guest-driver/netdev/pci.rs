// SPDX-License-Identifier: GPL-2.0

//! PCI functions that are one network device each, and the callbacks that `kernel::pci::Driver`
//! lacks: shutdown, system sleep, and function level reset.
//!
//! ```ignore
//! kernel::module_driver!(<T>, netdev::pci::Adapter<T>, { type: MyDriver, ... });
//! ```

use kernel::{
    bindings,
    container_of,
    device::{
        Bound,
        Core,
        CoreInternal,
        Device, //
    },
    dma::{
        Device as _,
        DmaMask, //
    },
    driver,
    error::VTABLE_DEFAULT_ERROR,
    pci,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

use crate::{
    series,
    vtable::Table,
    Config,
    Locked,
    Operations,
    Registration, //
};

/// A driver for PCI functions that are network devices.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// impl netdev::pci::Driver for Phase8 {
///     type Nic<'bound> = Nic<'bound>;
///
///     const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;
///
///     fn probe<'bound>(dev: &'bound pci::Device<Core<'_>>) -> Result<Config<'bound, Nic<'bound>>> {
///         let nic = Nic {
///             dev,
///             card: Card::new(dev)?,
///             rx_packets: Counter::new(),
///             rx_bytes: Counter::new(),
///             rx_dropped: Counter::new(),
///             tx_packets: Counter::new(),
///             tx_bytes: Counter::new(),
///             tx_dropped: Counter::new(),
///         };
///         let mac = nic.card.mac();
///         Ok(Config {
///             vectors: Some(Vectors::new(dev, 1, 1)?),
///             mac,
///             ..Config::new(nic, c"vnet%d")
///         })
///     }
/// }
/// ```
pub trait Driver: 'static {
    /// The driver's data of one device.
    type Nic<'bound>: Operations + Power + 'bound;

    /// Devices that the driver knows.
    const ID_TABLE: pci::IdTable<()>;

    /// Finds out what the device is. Memory decoding is on and the DMA mask is set to 64 bits; an
    /// error undoes that. Bus mastering is switched on afterwards: the device, which may have been
    /// left in any state, must be reset by then.
    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
    ) -> Result<Config<'bound, Self::Nic<'bound>>>;
}

/// What a device does when power or reset comes from outside.
///
/// All is optional: a device that cannot be put to sleep or reset does not do the first two, and one that
/// does not do the last loses bus mastering all the same.
///
/// Called with the RTNL lock held. The stack does not use the device between the first and the
/// second of a pair, and [`Operations::work`] does not run.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// /// Neither sleep nor reset, for now.
/// #[vtable]
/// impl netdev::pci::Power for Nic<'_> {}
/// ```
#[vtable]
#[allow(unused_variables)] // of methods that are not implemented
pub trait Power: Operations {
    /// The device is about to lose its state, by sleep or reset: stops it if it is running.
    fn prepare_loss(&self, dev: &Locked<'_, Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device has lost its state: sets it up again, starts it if it was running, and gives it back to
    /// the stack by [`Locked::attach`]. Also one that does not answer, if [`Operations::tick`] is to find
    /// out when it does.
    fn recover(&self, dev: &Locked<'_, Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The system goes down: stops all DMA.
    fn shutdown(&self, dev: &Locked<'_, Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A device with memory decoding on; that, and bus mastering, are off when dropped.
struct Enabled<'bound>(&'bound pci::Device<Bound>);

impl<'bound> Enabled<'bound> {
    fn new(dev: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        dev.enable_device_mem()
            .inspect_err(|e| dev_err!(dev, "cannot enable the device: {e:?}\n"))?;
        let this = Self(dev);
        // SAFETY: the driver is only being bound, so nothing is allocated or mapped yet.
        unsafe { dev.dma_set_mask_and_coherent(DmaMask::new::<64>()) }
            .inspect_err(|e| dev_err!(dev, "cannot use 64-bit DMA addresses: {e:?}\n"))?;
        Ok(this)
    }
}

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        // SAFETY: the device is bound, and was enabled.
        unsafe { bindings::pci_disable_device(as_raw(self.0)) }
    }
}

pub(crate) fn as_raw(dev: &pci::Device<Bound>) -> *mut bindings::pci_dev {
    let dev: &Device<Bound> = dev.as_ref();
    // SAFETY: the device is part of a PCI device.
    unsafe { container_of!(crate::dma::as_raw(dev), bindings::pci_dev, dev) }
}

/// Takes the device's access to memory and its interrupts away, until [`set_master`].
///
/// For a device that cannot be made to stop otherwise. Process context.
pub fn clear_master(dev: &pci::Device<Bound>) {
    // SAFETY: the device is bound.
    unsafe { bindings::pci_clear_master(as_raw(dev)) }
}

/// Gives back what [`clear_master`] took, or the device lost by itself. Process context.
pub fn set_master(dev: &pci::Device<Bound>) {
    // SAFETY: the device is bound.
    unsafe { bindings::pci_set_master(as_raw(dev)) }
}

/// What the PCI core keeps for a bound device: dropped top to bottom.
///
/// No driver makes one: [`Adapter`] does.
pub struct Data<'bound, T: Driver> {
    registration: Registration<'bound, T::Nic<'bound>>,
    _enabled: Enabled<'bound>,
}

/// Makes a [`Driver`] one that the PCI core knows.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// kernel::module_driver!(<T>, netdev::pci::Adapter<T>, {
///     type: Phase8,
///     name: "vnet_phase8",
///     authors: ["The vnet authors"],
///     description: "vnet tour, phase 8: the device",
///     license: "GPL",
/// });
/// ```
pub struct Adapter<T>(T);

impl<T: Driver> pci::Driver for Adapter<T> {
    type IdInfo = ();
    type Data<'bound> = Data<'bound, T>;
    const ID_TABLE: pci::IdTable<()> = T::ID_TABLE;

    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
        _info: series::IdInfo<'bound>,
    ) -> impl PinInit<Data<'bound, T>, Error> + 'bound {
        Self::bind(dev).inspect_err(|e| {
            // Other failures have said what they are.
            if *e == ENOMEM {
                dev_err!(dev, "no memory for the device\n");
            }
        })
    }
}

// SAFETY: `pci_driver` is a C type that embeds a `device_driver` at this offset, and the data are
// those of the `pci::Driver` above.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = Data<'bound, T>;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(bindings::pci_driver, driver);
}

// SAFETY: registering and unregistering are left to `pci::Adapter`.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        drv: &Opaque<bindings::pci_driver>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: fields may be set before registration; the rest is the caller's promise.
        unsafe {
            (*drv.get()).shutdown = Some(Self::shutdown);
            if <T::Nic<'static> as Power>::HAS_PREPARE_LOSS {
                (*drv.get()).err_handler = &Self::RESET.0;
                (*drv.get()).driver.pm = &Self::SLEEP.0;
            }
            <pci::Adapter<Self> as driver::RegistrationOps>::register(drv, name, module)
        }
    }

    unsafe fn unregister(drv: &Opaque<bindings::pci_driver>) {
        // SAFETY: by the caller.
        unsafe { <pci::Adapter<Self> as driver::RegistrationOps>::unregister(drv) }
    }
}

impl<T: Driver> Adapter<T> {
    fn bind<'bound>(dev: &'bound pci::Device<Core<'_>>) -> Result<Data<'bound, T>> {
        let enabled = Enabled::new(dev)?;
        let config = T::probe(dev)?;
        dev.set_master();
        // SAFETY: the value becomes the private data of the bound device, which the driver core
        // drops when it unbinds the driver.
        let registration = unsafe { Registration::new(Some(dev.as_ref()), config)? };
        Ok(Data {
            registration,
            _enabled: enabled,
        })
    }

    const SLEEP: &'static Table<bindings::dev_pm_ops> = &Table(bindings::dev_pm_ops {
        suspend: Some(Self::suspend),
        resume: Some(Self::resume),
        freeze: Some(Self::suspend),
        thaw: Some(Self::resume),
        poweroff: Some(Self::suspend),
        restore: Some(Self::resume),
        ..pin_init::zeroed()
    });

    const RESET: &'static Table<bindings::pci_error_handlers> =
        &Table(bindings::pci_error_handlers {
            reset_prepare: Some(Self::reset_prepare),
            reset_done: Some(Self::reset_done),
            ..pin_init::zeroed()
        });

    /// Runs `f` on the device's data under the RTNL lock.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver and stays so meanwhile.
    unsafe fn with<R>(
        dev: *mut bindings::device,
        f: impl FnOnce(&Locked<'_, T::Nic<'_>>) -> R,
    ) -> R {
        // SAFETY: `device::Device` is transparent over `struct device`; by the caller the device is
        // bound, and callbacks of a bound device run between probe and remove.
        let data =
            unsafe { (*dev.cast::<Device<CoreInternal<'_>>>()).drvdata_borrow::<Data<'_, T>>() };
        data.get_ref().registration.device().with_lock(f)
    }

    fn prepare_loss(dev: &Locked<'_, T::Nic<'_>>) {
        dev.ticker().stop();
        dev.detach();
        dev.ops().prepare_loss(dev);
        // While the device does not answer, nobody may ask it what the matter is.
        Self::disable_control(dev);
    }

    fn recover(dev: &Locked<'_, T::Nic<'_>>) {
        dev.ops().recover(dev);
        if dev.is_present() && dev.is_running() {
            dev.start_ticker();
        }
        // Not before: what the interrupt's thread finds may be cause to detach the device again.
        if let Some(irq) = dev.control_irq() {
            // SAFETY: the interrupt is requested; disabled by `prepare_loss`.
            unsafe { bindings::enable_irq(irq) };
        }
    }

    fn disable_control(dev: &Locked<'_, T::Nic<'_>>) {
        if let Some(irq) = dev.control_irq() {
            // SAFETY: the interrupt is requested for as long as the device is registered, and its
            // thread takes no lock that is held here.
            unsafe { bindings::disable_irq(irq) };
        }
    }

    /// The system goes to sleep, or its memory is saved.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver, and the device lock is held.
    unsafe extern "C" fn suspend(dev: *mut bindings::device) -> c_int {
        // SAFETY: the PM core calls this for bound devices, under the device lock.
        unsafe { Self::with(dev, |dev| Self::prepare_loss(dev)) };
        0
    }

    /// The system wakes up.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver, and the device lock is held.
    unsafe extern "C" fn resume(dev: *mut bindings::device) -> c_int {
        // SAFETY: the PM core calls this for bound devices, under the device lock.
        unsafe { Self::with(dev, |dev| Self::recover(dev)) };
        0
    }

    /// The system goes down.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver, and the device lock is held.
    unsafe extern "C" fn shutdown(dev: *mut bindings::pci_dev) {
        // SAFETY: the driver core calls this for bound devices, under the device lock.
        unsafe {
            Self::with(&raw mut (*dev).dev, |dev| {
                dev.ticker().stop();
                dev.detach();
                dev.timer().stop();
                if <T::Nic<'static> as Power>::HAS_SHUTDOWN {
                    dev.ops().shutdown(dev);
                }
                // Never enabled again: there is nothing to be said any more.
                Self::disable_control(dev);
            });
            bindings::pci_clear_master(dev);
        }
    }

    /// The function is about to be reset.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver, and the device lock is held.
    unsafe extern "C" fn reset_prepare(dev: *mut bindings::pci_dev) {
        // SAFETY: the PCI core calls this for bound devices, under the device lock.
        unsafe { Self::with(&raw mut (*dev).dev, |dev| Self::prepare_loss(dev)) }
    }

    /// The function was reset.
    ///
    /// # Safety
    ///
    /// `dev` is bound to this driver, and the device lock is held.
    unsafe extern "C" fn reset_done(dev: *mut bindings::pci_dev) {
        // SAFETY: the PCI core calls this for bound devices, under the device lock.
        unsafe { Self::with(&raw mut (*dev).dev, |dev| Self::recover(dev)) }
    }
}
