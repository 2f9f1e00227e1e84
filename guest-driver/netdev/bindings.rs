// SPDX-License-Identifier: GPL-2.0

//! Bindings to the networking C API, which `kernel::bindings` lacks.
//!
//! bindgen makes them at build time from `bindings.h` with the kernel's own flags and
//! configuration, so that layouts are those of the running kernel; `tests/btf-layout` compares
//! them with the type information in the kernel image.

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unknown_lints,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
// Part of no group that `clippy::all` covers; the kernel asks for them.
#![allow(
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

use kernel::ffi;
use pin_init::{MaybeZeroable, Zeroable};

// Types on the block list of bindgen_parameters. Not every configuration of the kernel uses them all.
#[allow(unused_imports)]
pub use kernel::bindings::{
    cpumask,
    delayed_work,
    device,
    dma_data_direction,
    file,
    hrtimer,
    inode,
    list_head,
    mm_struct,
    module,
    mutex,
    page,
    spinlock_t,
    static_key_false,
    static_key_true,
    task_struct,
    tracepoint,
    work_struct, //
};

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

// SAFETY: `__BindgenBitfieldUnit<Storage>` is a newtype around `Storage`.
unsafe impl<Storage> Zeroable for __BindgenBitfieldUnit<Storage> where Storage: Zeroable {}

include!(env!("NETDEV_BINDINGS"));
