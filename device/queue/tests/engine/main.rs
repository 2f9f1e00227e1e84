// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The queue engine against drivers good and bad.

mod backend;
mod hostile;
mod indirect;
mod mischief;
mod observer;
mod picture;
mod random;
mod resume;
mod rx;
mod split;
mod steer;
mod tx;
mod wrap;

/// More in a long run.
fn rounds(usual: u32) -> u32 {
    match std::env::var_os("VNET_LONG") {
        Some(_) => usual * 20,
        None => usual,
    }
}
