// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a hash costs, by the width of what is looked up, and what all of the choice costs.
//!
//! `cargo run --release -p vnet-rss --example toeplitz`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use vnet_rss::{Rss, RssConfig, Toeplitz, HASH_TYPES, KEY_SIZE, TABLE_SIZE};

const ROUNDS: u32 = 2_000_000;
/// Inputs that take turns, so that tables are met in many places.
const INPUTS: usize = 1024;

/// A table of 16 values for each half of a byte.
struct Halves(Vec<[[u32; 16]; 2]>);

impl Halves {
    fn new(toeplitz: &Toeplitz) -> Self {
        let half = |place: usize, shift: u32| {
            std::array::from_fn(|value| {
                let mut input = [0; 36];
                input[place] = (value as u8) << shift;
                toeplitz.hash(&input)
            })
        };
        Self((0..36).map(|at| [half(at, 4), half(at, 0)]).collect())
    }

    fn hash(&self, input: &[u8]) -> u32 {
        let each = input.iter().zip(&self.0);
        each.fold(0, |sum, (&byte, [high, low])| {
            sum ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)]
        })
    }
}

/// The window of the key for each bit, chosen by masks and without a table.
struct Windows([u32; 288]);

impl Windows {
    fn new(toeplitz: &Toeplitz) -> Self {
        Self(std::array::from_fn(|bit| {
            let mut input = [0; 36];
            input[bit / 8] = 0x80 >> (bit % 8);
            toeplitz.hash(&input)
        }))
    }

    fn hash(&self, input: &[u8]) -> u32 {
        let mut sum = 0;
        for (&byte, windows) in input.iter().zip(self.0.chunks_exact(8)) {
            for (bit, window) in windows.iter().enumerate() {
                sum ^= window & (u32::from(byte) >> (7 - bit) & 1).wrapping_neg();
            }
        }
        sum
    }
}

fn time(what: &str, len: usize, mut f: impl FnMut(&[u8]) -> u32) {
    let mut state = 1u32;
    let inputs: Vec<Vec<u8>> = (0..INPUTS)
        .map(|_| {
            (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect()
        })
        .collect();
    let start = Instant::now();
    let mut sum = 0;
    for i in 0..ROUNDS as usize {
        sum ^= f(black_box(&inputs[i % INPUTS]));
    }
    black_box(sum);
    let each = start.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    println!("{what:24} {len:3} bytes {each:6.1} ns");
}

/// A TCP frame with flows that differ.
fn frame(input: &[u8]) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[23] = 6;
    frame[26..38].copy_from_slice(input);
    frame
}

fn main() {
    let mut key = [0; KEY_SIZE];
    for (i, byte) in (0u8..).zip(&mut key) {
        *byte = i.wrapping_mul(73).wrapping_add(29);
    }
    let start = Instant::now();
    let bytes = Toeplitz::new(&key);
    println!("preparing a key: {:?}", start.elapsed());
    let (halves, windows) = (Halves::new(&bytes), Windows::new(&bytes));
    for len in [12, 36] {
        time("bytes", len, |input| bytes.hash(input));
        time("half bytes", len, |input| halves.hash(input));
        time("masks", len, |input| windows.hash(input));
    }
    let rss = Rss::new(RssConfig {
        key: Arc::new(bytes),
        types: HASH_TYPES,
        symmetric: false,
        spread: true,
        table: [1; TABLE_SIZE],
        pairs: 4,
    });
    time("frame, flow and choice", 12, |input| {
        rss.choose(&frame(input)).hash.value
    });
}
