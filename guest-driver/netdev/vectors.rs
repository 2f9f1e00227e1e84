// SPDX-License-Identifier: GPL-2.0

//! Interrupt vectors of a PCI device.
//!
//! `kernel::pci` has the like in 7.3. In 7.2 the driver core frees its vectors before it drops the
//! driver's data, in which interrupts are still requested.

use core::num::NonZeroUsize;
use kernel::{
    bindings,
    device::Bound,
    error::to_result,
    pci,
    prelude::*, //
};

use crate::pci::as_raw;

/// MSI-X vectors. Dropping it frees them.
///
/// Process context: both may sleep.
///
/// # Invariants
///
/// The device has so many vectors allocated, and nobody else frees them.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase8_device.rs
/// Ok(Config {
///     vectors: Some(Vectors::new(dev, 1, 1)?),
///     mac,
///     ..Config::new(nic, c"vnet%d")
/// })
/// ```
pub struct Vectors<'a> {
    dev: &'a pci::Device<Bound>,
    count: NonZeroUsize,
}

impl<'a> Vectors<'a> {
    /// Allocates at least `min` and at most `max` vectors.
    pub fn new(dev: &'a pci::Device<Bound>, min: u32, max: u32) -> Result<Self> {
        // SAFETY: the device is bound; the function checks its other arguments.
        let count = unsafe {
            bindings::pci_alloc_irq_vectors(as_raw(dev), min, max, bindings::PCI_IRQ_MSIX)
        };
        to_result(count)?;
        // INVARIANT: allocated above.
        Ok(Self {
            dev,
            count: NonZeroUsize::new(count as usize).ok_or(EINVAL)?,
        })
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// The interrupt of a vector.
    pub(crate) fn irq(&self, index: u16) -> Result<u32> {
        // SAFETY: the device is bound; the function refuses a vector that there is not.
        let irq = unsafe { bindings::pci_irq_vector(as_raw(self.dev), u32::from(index)) };
        to_result(irq)?;
        Ok(irq as u32)
    }
}

impl Drop for Vectors<'_> {
    fn drop(&mut self) {
        // SAFETY: by the type invariant. Their interrupts were freed before.
        unsafe { bindings::pci_free_irq_vectors(as_raw(self.dev)) }
    }
}
