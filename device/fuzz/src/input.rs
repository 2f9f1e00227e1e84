// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Bytes of the fuzzer as values that are more often right than bytes are.

use arbitrary::{Result, Unstructured};

/// True once in `n` times.
pub(crate) fn rarely(u: &mut Unstructured<'_>, n: u8) -> Result<bool> {
    Ok(u.int_in_range(1..=n)? == 1)
}

/// One of these, or now and then any value.
pub(crate) fn mostly<'a, T>(u: &mut Unstructured<'a>, usual: &[T]) -> Result<T>
where
    T: Copy + arbitrary::Arbitrary<'a>,
{
    match rarely(u, 8)? {
        true => u.arbitrary(),
        false => u.choose(usual).copied(),
    }
}

/// Up to `most` bytes.
pub(crate) fn bytes<'a>(u: &mut Unstructured<'a>, most: usize) -> Result<&'a [u8]> {
    let len = u.int_in_range(0..=most)?.min(u.len());
    u.bytes(len)
}

/// A position in `len` bytes; `len` must not be zero.
pub(crate) fn index(u: &mut Unstructured<'_>, len: usize) -> Result<usize> {
    u.int_in_range(0..=len - 1)
}
