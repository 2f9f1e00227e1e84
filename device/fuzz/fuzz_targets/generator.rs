// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Runs the target of this name under the fuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vnet_fuzz::generator(data));
