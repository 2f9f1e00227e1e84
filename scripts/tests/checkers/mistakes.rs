// SPDX-License-Identifier: GPL-2.0

//! A module that makes the mistake it is told to, when it is loaded: see checkers.sh. What is about
//! memory and locks is made in Rust, since that is what the driver is written in.

use kernel::{
    error::to_result,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        Mutex,
        SpinLock, //
    }, //
};

extern "C" {
    fn mistake_in_c(which: i32) -> i32;
}

struct Mistakes;

impl kernel::Module for Mistakes {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match module_parameters::mistake.value() {
            1 => lock_order()?,
            2 => sleep_under_spinlock()?,
            3 => leak()?,
            4 => use_after_free()?,
            5 => out_of_bounds()?,
            6 => overflow(),
            // SAFETY: any number will do. What it does to the kernel is the point.
            which => to_result(unsafe { mistake_in_c(which) })?,
        }
        Ok(Self)
    }
}

fn lock_order() -> Result {
    let first: Pin<KBox<Mutex<u32>>> = KBox::pin_init(new_mutex!(0, "first"), GFP_KERNEL)?;
    let second: Pin<KBox<Mutex<u32>>> = KBox::pin_init(new_mutex!(0, "second"), GFP_KERNEL)?;
    {
        let a = first.lock();
        *second.lock() += *a;
    }
    let b = second.lock();
    *first.lock() += *b;
    Ok(())
}

fn sleep_under_spinlock() -> Result {
    let spin: Pin<KBox<SpinLock<u32>>> = KBox::pin_init(new_spinlock!(0, "spin"), GFP_KERNEL)?;
    let mutex: Pin<KBox<Mutex<u32>>> = KBox::pin_init(new_mutex!(0, "mutex"), GFP_KERNEL)?;
    let mut guard = spin.lock();
    *guard += *mutex.lock();
    Ok(())
}

fn leak() -> Result {
    for n in 0..16u8 {
        KBox::leak(KBox::new([n; 200], GFP_KERNEL)?);
    }
    Ok(())
}

fn use_after_free() -> Result {
    let memory = KBox::into_raw(KBox::new([7u64; 16], GFP_KERNEL)?);
    // SAFETY: the box was just taken apart. The read is the mistake.
    let read = unsafe {
        drop(KBox::from_raw(memory));
        memory.cast::<u64>().add(3).read_volatile()
    };
    pr_info!("read {read:#x} from memory that was freed\n");
    Ok(())
}

fn out_of_bounds() -> Result {
    let mut memory = KVec::from_elem(0u8, 40, GFP_KERNEL)?;
    // SAFETY: none, the write is the mistake. It stays inside of the 48 or 64 bytes that the
    // allocator gives for 40.
    unsafe { memory.as_mut_ptr().add(41).write_volatile(1) };
    Ok(())
}

fn overflow() {
    let length = core::hint::black_box(u16::MAX);
    pr_info!("{}\n", length + core::hint::black_box(1));
}

module! {
    type: Mistakes,
    name: "checkers",
    authors: ["The vnet authors"],
    description: "Mistakes for checkers to find",
    license: "GPL",
    params: {
        mistake: i32 {
            default: 0,
            description: "Which",
        },
    },
}
