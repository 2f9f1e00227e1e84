// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Shadows over the queue engine, with drivers good and bad, in a time of their own.

mod bad;
mod good;
mod rig;
