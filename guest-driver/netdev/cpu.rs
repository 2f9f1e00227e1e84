// SPDX-License-Identifier: GPL-2.0

//! The machine's CPUs, and which of them a channel is for.
//!
//! Channel `i` is for the CPU that is the `i`-th nearest to the device, and for those a multiple
//! of the number of channels further on: by default its interrupt goes to the first
//! (`netif_set_affinity_auto()` in [`crate::Registration`]), and all of them send by it.

use kernel::{
    cpu::CpuId,
    cpumask::CpumaskVar,
    error::to_result,
    prelude::*, //
};

use crate::{
    bindings as b,
    NetDevice,
    Operations, //
};

/// Number of CPUs that are online, at least one. It may change at any time.
pub fn online_cpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { b::nd_online_cpus() }
}

/// The `i`-th nearest CPU to a device.
fn nearest<T: Operations>(dev: &NetDevice<T>, i: u32) -> u32 {
    // SAFETY: the device is valid, and its parent set for its whole life.
    unsafe { b::nd_local_cpu((*dev.as_raw()).dev.parent, i) }
}

/// Has the CPUs of a channel send by its transmit queue.
pub(crate) fn send_from<T: Operations>(dev: &NetDevice<T>, channel: u16) -> Result {
    let mut mask = CpumaskVar::new_zero(GFP_KERNEL)?;
    let channels = usize::from(dev.active_channels().max(1));
    for i in (u32::from(channel)..online_cpus()).step_by(channels) {
        if let Some(cpu) = CpuId::from_u32(nearest(dev, i)) {
            mask.set(cpu);
        }
    }
    // SAFETY: the device is valid, the mask too and copied, and the queue exists.
    to_result(unsafe { b::netif_set_xps_queue(dev.as_raw(), mask.as_raw(), channel) })
}

/// Tells user space which CPU the interrupt of a channel is meant for.
///
/// # Safety
///
/// The interrupt is requested, and [`take_hint`] is called before it is freed.
pub(crate) unsafe fn give_hint<T: Operations>(dev: &NetDevice<T>, channel: u16, irq: u32) {
    // SAFETY: masks of single CPUs are static.
    unsafe { b::nd_irq_hint(irq, b::nd_cpumask_of(nearest(dev, u32::from(channel)))) }
}

/// Takes back what [`give_hint`] told.
///
/// # Safety
///
/// The interrupt is requested.
pub(crate) unsafe fn take_hint(irq: u32) {
    // SAFETY: by the caller.
    unsafe { b::nd_irq_hint(irq, core::ptr::null()) }
}
