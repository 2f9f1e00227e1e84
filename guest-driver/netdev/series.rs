// SPDX-License-Identifier: GPL-2.0

//! What the kernel series that the crate is built for call differently. What an older one lacks has
//! files of its own: error.rs, spinlock.rs. All else, but for the list of modules, does not ask which
//! one it is, and is written for the newest; docs/kernels.md says what changed.

#[cfg(not(kernel_7_2))]
use kernel::sync::barrier;
use kernel::{
    bindings,
    dma::Coherent, //
};

#[cfg(kernel_7_2)]
use crate::bindings as b;

#[cfg(kernel_7_2)]
pub use crate::spinlock::SpinLockIrq;
#[cfg(not(kernel_7_2))]
pub use kernel::{
    new_spinlock_irq,
    sync::SpinLockIrq, //
};

/// The interrupt was the device's.
#[cfg(kernel_7_2)]
pub(crate) const IRQ_HANDLED: bindings::irqreturn_t = bindings::irqreturn_IRQ_HANDLED;
/// The interrupt was the device's.
#[cfg(not(kernel_7_2))]
pub(crate) const IRQ_HANDLED: bindings::irqreturn_t = bindings::irqreturn::IRQ_HANDLED;

/// The timer is to expire again.
#[cfg(kernel_7_2)]
pub(crate) const HRTIMER_RESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart_HRTIMER_RESTART;
/// The timer is to expire again.
#[cfg(not(kernel_7_2))]
pub(crate) const HRTIMER_RESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart::HRTIMER_RESTART;

/// The timer is done.
#[cfg(kernel_7_2)]
pub(crate) const HRTIMER_NORESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart_HRTIMER_NORESTART;
/// The timer is done.
#[cfg(not(kernel_7_2))]
pub(crate) const HRTIMER_NORESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart::HRTIMER_NORESTART;

/// What `pci::Driver::probe` is told about the matching entry of the table.
#[cfg(kernel_7_2)]
pub(crate) type IdInfo<'bound> = &'bound ();
/// What `pci::Driver::probe` is told about the matching entry of the table.
#[cfg(not(kernel_7_2))]
pub(crate) type IdInfo<'bound> = Option<&'bound ()>;

/// Bus address of the first byte.
#[inline]
pub(crate) fn dma_address(memory: &Coherent<[u64]>) -> u64 {
    #[cfg(kernel_7_2)]
    {
        memory.dma_handle()
    }
    #[cfg(not(kernel_7_2))]
    {
        memory.dma_address()
    }
}

/// `kernel::pci_device_table!` with the arguments that it has in the newest kernel.
#[cfg(kernel_7_2)]
#[macro_export]
macro_rules! pci_device_table {
    ($table:ident, $($rest:tt)*) => {
        ::kernel::pci_device_table!($table, MODULE_PCI_TABLE, $($rest)*);
    };
}
/// `kernel::pci_device_table!`.
#[cfg(not(kernel_7_2))]
#[macro_export]
macro_rules! pci_device_table {
    ($($tt:tt)*) => {
        ::kernel::pci_device_table!($($tt)*);
    };
}

/// Orders reads of memory that a device writes: those before against those after.
#[inline]
pub(crate) fn dma_read_barrier() {
    #[cfg(kernel_7_2)]
    // SAFETY: may be called anywhere.
    unsafe {
        b::nd_dma_rmb()
    }
    #[cfg(not(kernel_7_2))]
    barrier::dma_mb(barrier::Read);
}

/// Orders writes to memory that a device reads: those before against those after.
#[inline]
pub(crate) fn dma_write_barrier() {
    #[cfg(kernel_7_2)]
    // SAFETY: may be called anywhere.
    unsafe {
        b::nd_dma_wmb()
    }
    #[cfg(not(kernel_7_2))]
    barrier::dma_mb(barrier::Write);
}

/// Orders all accesses before against all after, for devices too.
#[inline]
pub(crate) fn memory_barrier() {
    #[cfg(kernel_7_2)]
    // SAFETY: may be called anywhere.
    unsafe {
        b::nd_mb()
    }
    #[cfg(not(kernel_7_2))]
    barrier::mb(barrier::Full);
}
