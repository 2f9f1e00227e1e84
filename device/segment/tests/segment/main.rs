// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Segments against a reference that makes each of them from nothing.

mod backend;
mod complete;
mod cut;
mod packet;
mod refuse;

/// More in a long run.
fn rounds(usual: u32) -> u32 {
    match std::env::var_os("VNET_LONG") {
        Some(_) => usual * 20,
        None => usual,
    }
}
