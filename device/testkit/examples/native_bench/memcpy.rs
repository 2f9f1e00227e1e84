// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The limit: frames copied from the buffers of a ring to as many others.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::{card::RING, cpu};

/// Frames per second.
pub(crate) fn sample(size: u32, time: Duration) -> f64 {
    cpu::bind(cpu::SERVER);
    let size = size as usize;
    // Buffers lie as those of the card do.
    let stride = (size + vnet_contract::hdr::SIZE).next_multiple_of(64);
    let ring = usize::from(RING);
    let from = vec![1u8; stride * ring];
    let mut to = vec![0u8; stride * ring];
    let mut copied = 0u64;
    let start = Instant::now();
    while start.elapsed() < time {
        for at in (0..ring).map(|n| n * stride) {
            to[at..at + size].copy_from_slice(black_box(&from[at..at + size]));
            black_box(&mut to[at..at + size]);
        }
        copied += ring as u64;
    }
    let rate = copied as f64 / start.elapsed().as_secs_f64();
    cpu::unbind();
    rate
}
