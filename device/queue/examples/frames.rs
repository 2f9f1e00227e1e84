// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the engine itself does for a frame of 64 bytes: one queue, one descriptor a frame, and a backend
//! that does nothing. Made to be counted, which other load on the machine does not disturb; the
//! difference between two runs leaves out what starting takes:
//!
//! ```text
//! cargo build --release -p vnet-queue --example frames
//! valgrind --tool=callgrind target/release/examples/frames tx 20000
//! valgrind --tool=callgrind target/release/examples/frames tx 120000
//! ```
//!
//! `tx` sends, `rx` receives, and `hash` receives with the hash of each frame.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing};
use vnet_contract::features::{HASH_REPORT, MRG_RXBUF};
use vnet_contract::hdr::{self, FlowHash};
use vnet_contract::ring::{Desc, DESC_F_WRITE, DESC_SIZE, RING_ENTRIES, RING_IDX};
use vnet_queue::mock::Memory;
use vnet_queue::{Budget, RingConfig, Rx, RxFilter, Steer, Tx};
use vnet_rss::{Rss, RssConfig, Toeplitz, HASH_TYPES, TABLE_SIZE};

const RING: u16 = 256;
const FRAME: usize = 64;
const DESC: u64 = 0x1_0000;
const AVAIL: u64 = 0x2_0000;
const USED: u64 = 0x3_0000;
const BUFFERS: u64 = 0x4_0000;
/// Bytes of a buffer, with room for any header.
const BUFFER: u64 = 256;

/// Takes everything, and has one frame to deliver, again and again.
struct Nothing([u8; FRAME]);

impl Queue for Nothing {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some(room) = ring.room(FRAME) {
            room.write(&self.0);
            ring.commit(FRAME, Meta::default());
        }
    }
}

/// Computes hashes, and leaves every frame where it is.
struct Hasher(Rss);

impl Steer for Hasher {
    fn steer(&mut self, start: &[u8], _frame: &Frame<'_>) -> Option<FlowHash> {
        Some(self.0.choose(start).hash)
    }
}

/// A broadcast datagram of UDP over IPv4, as far as anybody here looks.
fn datagram() -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[12] = 0x08;
    // Version and length of the header, total length, UDP; addresses, ports.
    (frame[14], frame[17], frame[23]) = (0x45, (FRAME - 14) as u8, 17);
    frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
    frame[30..34].copy_from_slice(&[10, 0, 0, 2]);
    (frame[34], frame[36], frame[39]) = (1, 2, (FRAME - 34) as u8);
    frame
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let total: u64 = args.next().unwrap_or_default().parse()?;
    let (receives, features) = match what.as_str() {
        "tx" => (false, MRG_RXBUF),
        "rx" => (true, MRG_RXBUF),
        "hash" => (true, MRG_RXBUF | HASH_REPORT),
        _ => return Err("tx, rx or hash is needed, and a number of frames".into()),
    };

    let mem = Memory::new(&[(DESC, 0x40_0000)]);
    let (flags, len) = match receives {
        true => (DESC_F_WRITE, BUFFER as usize),
        false => (0, hdr::size(features) + FRAME),
    };
    for n in 0..RING {
        let desc = Desc {
            addr: BUFFERS + u64::from(n) * BUFFER,
            len: len as u32,
            flags,
            next: 0,
        };
        for (at, word) in (0..).step_by(8).zip(desc.to_words()) {
            let place = DESC + u64::from(n) * DESC_SIZE as u64 + at;
            mem.write(place, &word.to_le_bytes());
        }
        let entry = AVAIL + RING_ENTRIES as u64 + u64::from(n) * 2;
        mem.write(entry, &n.to_le_bytes());
    }
    let config = RingConfig {
        size: RING.into(),
        desc: DESC,
        avail: AVAIL,
        used: USED,
        index_avail: 0,
        index_used: 0,
        features,
    };
    let (device, mut backend) = (mem.device(), Nothing(datagram()));
    let filter = RxFilter {
        promisc: true,
        mtu: 1500,
        ..RxFilter::default()
    };
    let mut hasher = Hasher(Rss::new(RssConfig {
        key: Arc::new(Toeplitz::new(&[0x6d; 40])),
        types: HASH_TYPES,
        symmetric: false,
        spread: false,
        table: [0; TABLE_SIZE],
        pairs: 1,
    }));

    let fault = |fault| format!("{fault:?}");
    let mut tx = Tx::start(&config, &device).map_err(fault)?;
    let mut rx = Rx::start(&config, &device).map_err(fault)?;
    // A transmit queue gets a batch at a time; a receive queue has all buffers, and gets them back.
    let mut avail = if receives { RING } else { 0 };
    let mut done = 0;
    while done < total {
        if !receives {
            avail = avail.wrapping_add(Budget::default().frames as u16);
        }
        let index = GuestAddress(AVAIL + RING_IDX as u64);
        mem.guest.store(avail.to_le(), index, Ordering::Release)?;
        let budget = Budget::default();
        let outcome = match what.as_str() {
            "tx" => tx.run(&device, &mut backend, budget),
            "rx" => rx.run(&device, &mut backend, &filter, budget),
            _ => rx.run_steered(&device, &mut backend, &filter, &mut hasher, budget),
        };
        if let Some(broken) = outcome.fault {
            return Err(fault(broken).into());
        }
        if receives {
            avail = avail.wrapping_add(outcome.frames as u16);
        }
        done += outcome.frames;
    }
    println!("{done} frames");
    Ok(())
}
