// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card through its bus: nothing but accesses, and what they answer.

mod again;
mod bench;
mod failure;
mod mischief;
mod operator;
mod queues;
mod random;
mod registers;
mod resumed;
mod shelter;
mod survival;
mod versions;

/// More in a long run.
fn rounds(usual: u32) -> u32 {
    match std::env::var_os("VNET_LONG") {
        Some(_) => usual * 20,
        None => usual,
    }
}
