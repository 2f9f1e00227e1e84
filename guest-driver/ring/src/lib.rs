// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The driver's side of a split ring.

#![no_std]
