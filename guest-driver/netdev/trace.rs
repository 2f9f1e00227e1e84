// SPDX-License-Identifier: GPL-2.0

//! Trace events: `vnet:vnet_doorbell`, `vnet_irq`, `vnet_poll` and `vnet_complete`.
//!
//! The events are defined in `trace.h`. While an event is off, its call here is a jump that is not
//! taken; nothing is loaded or called.
//!
//! ```text
//! # cd /sys/kernel/tracing; echo 1 > events/vnet/enable; cat trace_pipe
//! ```

use kernel::jump_label::static_branch_unlikely;

use crate::{
    bindings as b,
    NetDevice,
    Operations, //
};

macro_rules! enabled {
    ($event:ident) => {
        // SAFETY: the key of a trace event that this module defines may always be queried.
        unsafe { static_branch_unlikely!(b::$event, b::tracepoint, key) }
    };
}

/// A doorbell is about to be written with this avail index.
#[inline(always)]
pub fn doorbell<T: Operations>(dev: &NetDevice<T>, queue: u16, avail: u16) {
    if enabled!(__tracepoint_vnet_doorbell) {
        // SAFETY: the device is valid.
        unsafe { b::rust_do_trace_vnet_doorbell(dev.as_raw(), queue, avail) }
    }
}

/// Transmitted frames came back from the card.
#[inline(always)]
pub fn complete<T: Operations>(dev: &NetDevice<T>, channel: u16, frames: u32, bytes: u32) {
    if enabled!(__tracepoint_vnet_complete) {
        // SAFETY: the device is valid.
        unsafe { b::rust_do_trace_vnet_complete(dev.as_raw(), channel, frames, bytes) }
    }
}

/// The interrupt of a channel arrived.
#[inline(always)]
pub(crate) fn irq<T: Operations>(dev: &NetDevice<T>, channel: u16) {
    if enabled!(__tracepoint_vnet_irq) {
        // SAFETY: the device is valid.
        unsafe { b::rust_do_trace_vnet_irq(dev.as_raw(), channel) }
    }
}

/// A poll ended.
#[inline(always)]
pub(crate) fn poll<T: Operations>(
    dev: &NetDevice<T>,
    channel: u16,
    done: u32,
    budget: u32,
    idle: bool,
) {
    if enabled!(__tracepoint_vnet_poll) {
        // SAFETY: the device is valid.
        unsafe { b::rust_do_trace_vnet_poll(dev.as_raw(), channel, done, budget, idle) }
    }
}
