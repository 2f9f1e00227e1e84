// SPDX-License-Identifier: GPL-2.0

//! Locks that keep interrupts off, which `kernel` has since 7.3: what there is of them for 7.2.

use kernel::{
    bindings,
    ffi,
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

use crate::bindings as b;

/// A spin lock, taken with the interrupts of the CPU off. As for `kernel`'s own, guards may be dropped in
/// no other order than that of their making, reversed.
pub type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

/// What makes the lock one of this kind.
pub struct SpinLockIrqBackend;

// SAFETY: a `spinlock_t` has one owner at a time, and `relock` takes it as `lock` does.
unsafe impl Backend for SpinLockIrqBackend {
    type State = bindings::spinlock_t;
    /// Whether interrupts were on.
    type GuardState = ffi::c_ulong;

    unsafe fn init(
        lock: *mut Self::State,
        name: *const ffi::c_char,
        key: *mut bindings::lock_class_key,
    ) {
        // SAFETY: by the caller.
        unsafe { bindings::__spin_lock_init(lock, name, key) }
    }

    #[inline]
    unsafe fn lock(lock: *mut Self::State) -> Self::GuardState {
        // SAFETY: the lock is initialized, by the caller.
        unsafe { b::nd_spin_lock_irqsave(lock) }
    }

    #[inline]
    unsafe fn try_lock(lock: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: as in `lock`.
        unsafe { b::nd_spin_trylock_irqsave(lock, &mut flags) }.then_some(flags)
    }

    #[inline]
    unsafe fn unlock(lock: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: the caller owns the lock, and took it with these flags.
        unsafe { b::nd_spin_unlock_irqrestore(lock, *flags) }
    }

    #[inline]
    unsafe fn assert_is_held(lock: *mut Self::State) {
        // SAFETY: by the caller.
        unsafe { bindings::spin_assert_is_held(lock) }
    }
}

/// Makes a [`SpinLockIrq`], as `kernel::new_spinlock_irq!` does where that is.
#[macro_export]
macro_rules! new_spinlock_irq {
    ($inner:expr $(,)?) => {
        $crate::SpinLockIrq::new(
            $inner,
            ::kernel::optional_name!(),
            ::kernel::static_lock_class!(),
        )
    };
}
