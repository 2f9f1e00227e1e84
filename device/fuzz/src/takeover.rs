// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Cards of one process after another, each of which finds what the last one left spoilt.

use std::os::fd::AsFd;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use rustix::io::pwrite;
use vnet_card::{Card, Survival};
use vnet_loopback::Loopback;
use vnet_state::mock::Holder;
use vnet_state::{Keeper, Memory};

use crate::input::{bytes, index, rarely};
use crate::registers::{card, Bench};

/// Offsets of the cells, a block for each queue; of the places for a snapshot; of the table of ranges,
/// and of the number of its rows.
const PLACES: [u64; 8] = [
    0x1000, 0x1080, 0x1100, 0x1180, 0x3000, 0x13000, 0x23000, 0x10,
];

/// A process spoils what it leaves, and the next one takes the card over or refuses it. Whatever was
/// left, the card serves its driver, and a reset brings it in order.
pub fn takeover(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let sanitized = rarely(u, 3)?;
    let mut shelter = Shelter::new();
    let first = shelter.card(sanitized).expect("there is no state yet");
    let mut bench = Bench::new(first);
    let mut in_order = true;
    while !u.is_empty() {
        match rarely(u, 6)? {
            false => bench.step(u)?,
            true => {
                let guest = bench.into_guest();
                in_order &= !shelter.spoil(u)?;
                let next = shelter.card(sanitized).unwrap_or_else(|| {
                    assert!(!in_order, "refused as it was left");
                    in_order = true;
                    shelter = Shelter::new();
                    shelter.card(sanitized).expect("there is no state yet")
                });
                bench = Bench::with_guest(next, guest);
            }
        }
        bench.awake();
        match in_order {
            true => bench.assert_rules(),
            false => bench.assert_serves(),
        }
    }
    bench.reset();
    Ok(())
}

/// What outlives the processes.
struct Shelter {
    memory: Arc<Memory>,
    holder: Arc<Holder>,
}

impl Shelter {
    fn new() -> Self {
        Self {
            memory: Memory::create().expect("a state"),
            holder: Arc::default(),
        }
    }

    /// The card of the next process, if it takes what was left.
    fn card(&self, sanitized: bool) -> Option<Card> {
        let mut card = card(Box::new(Loopback::new()), sanitized);
        let fd = self.memory.as_fd().try_clone_to_owned().expect("dup");
        let memory = Memory::open(fd).expect("the head was not touched");
        let keeper = Arc::clone(&self.holder) as Arc<dyn Keeper>;
        let taken = card.survive(Survival { memory, keeper }, &mut self.holder.held());
        taken.is_ok().then_some(card)
    }

    /// Writes something else in some places, or in none.
    fn spoil(&self, u: &mut Unstructured<'_>) -> Result<bool> {
        let mut spoilt = false;
        for _ in 0..u.int_in_range(0..=3)? {
            let at = *u.choose(&PLACES)? + u64::from(u.int_in_range(0..=15u8)?) * 8;
            pwrite(self.memory.as_fd(), bytes(u, 8)?, at).expect("within the memory");
            spoilt = true;
        }
        // One with another sum would count as none.
        let snapshot = self.memory.snapshot().filter(|bytes| !bytes.is_empty());
        if let (Some(mut snapshot), true) = (snapshot, u.arbitrary()?) {
            for _ in 0..u.int_in_range(1..=4)? {
                let at = index(u, snapshot.len())?;
                snapshot[at] = u.arbitrary()?;
            }
            if rarely(u, 8)? {
                snapshot.truncate(index(u, snapshot.len())?);
            }
            assert!(self.memory.commit(&snapshot));
            spoilt = true;
        }
        Ok(spoilt)
    }
}
