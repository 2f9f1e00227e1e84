// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queue pairs with their threads, driven as the message thread and a driver do.

mod backends;
mod faults;
mod mischief;
mod moderation;
mod polling;
mod replace;
mod rig;
mod service;
mod steering;
mod step;
mod wakeups;
