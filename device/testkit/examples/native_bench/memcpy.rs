// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The limit: frames copied between the buffers of a ring and as many others, or a single one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::{card::RING, cpu};

/// Copies to be made, by name. What has one buffer on a side, as the null backend does, has it in a
/// cache, which the buffers of a ring do not fit if they are large.
pub(crate) const COPIES: [&str; 3] = [RING_TO_RING, RING_TO_ONE, ONE_TO_RING];
pub(crate) const RING_TO_RING: &str = "ring to ring";
pub(crate) const RING_TO_ONE: &str = "ring to one";
pub(crate) const ONE_TO_RING: &str = "one to ring";

/// Frames per second.
pub(crate) fn sample(copy: &str, size: u32, time: Duration) -> f64 {
    cpu::bind(cpu::SERVER);
    let size = size as usize;
    // Buffers lie as those of the card do.
    let stride = (size + vnet_contract::hdr::SIZE).next_multiple_of(64);
    let ring = usize::from(RING);
    let from = vec![1u8; stride * ring];
    let mut to = vec![0u8; stride * ring];
    // How far the next buffer is.
    let step = |moves: bool| if moves { stride } else { 0 };
    let (from_step, to_step) = (step(copy != ONE_TO_RING), step(copy != RING_TO_ONE));
    let mut copied = 0u64;
    let start = Instant::now();
    while start.elapsed() < time {
        for n in 0..ring {
            let (source, at) = (n * from_step, n * to_step);
            to[at..at + size].copy_from_slice(black_box(&from[source..source + size]));
            black_box(&mut to[at..at + size]);
        }
        copied += ring as u64;
    }
    let rate = copied as f64 / start.elapsed().as_secs_f64();
    cpu::unbind();
    rate
}
