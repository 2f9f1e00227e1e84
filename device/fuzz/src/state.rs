// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a process finds in the memory that the last one left, whatever that one did to it.

use std::os::fd::AsFd;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use rustix::io::pwrite;
use vnet_state::maps::{Maps, Row};
use vnet_state::records::Reader;
use vnet_state::Memory;

use crate::input::{bytes, mostly, rarely};

/// Offsets of the places for a snapshot, and of the table of ranges; the number of its rows is in
/// the third word.
const PLACES: [u64; 2] = [0x3000, 0x13000];
const MAPS: u64 = 0x23000;
const EXTENT: u64 = 16;

/// Snapshots and ranges that are written as they should be and then spoilt. What is read is what
/// was written or nothing, and it can be gone on with.
pub fn state(data: &[u8]) {
    read(data);
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let memory = Memory::create().expect("a state");
    let mut snapshots = Vec::new();
    let (mut maps, _) = Maps::load(&memory);
    let mut spoilt = false;
    while !u.is_empty() {
        match u.int_in_range(0..=5)? {
            0 => {
                let snapshot = bytes(u, 300)?.to_vec();
                assert!(memory.commit(&snapshot));
                snapshots.push(snapshot);
            }
            1 | 2 => {
                let row = Row {
                    address: mostly(u, &[0, 0x1000, 0x10_0000])?,
                    size: mostly(u, &[0x1000])?,
                    offset: u.arbitrary()?,
                    read: u.arbitrary()?,
                    write: u.arbitrary()?,
                    file: u.arbitrary()?,
                };
                assert!(maps.insert(&row));
                assert!(maps.contains(&row) || spoilt);
            }
            3 => {
                let limit = u.arbitrary()?;
                maps.retain(|address, _| address < limit);
            }
            4 => {
                let place = *u.choose(&[PLACES[0], PLACES[1], MAPS, EXTENT])?;
                let at = place + u64::from(u.int_in_range(0..=12u8)?) * 8;
                let most = if rarely(u, 2)? { 8 } else { 1 };
                pwrite(memory.as_fd(), bytes(u, most)?, at).expect("within the memory");
                spoilt = true;
            }
            _ => {
                maps = next(&memory, spoilt, &snapshots);
            }
        }
    }
    next(&memory, spoilt, &snapshots);
    Ok(())
}

/// The next process takes over.
fn next(memory: &Arc<Memory>, spoilt: bool, snapshots: &[Vec<u8>]) -> Maps {
    let found = memory.snapshot();
    if !spoilt {
        assert_eq!(found.as_ref(), snapshots.last());
    }
    read(&found.unwrap_or_default());
    let fd = memory.as_fd().try_clone_to_owned().expect("dup");
    let same = Memory::open(fd).expect("the head was not touched");
    let (maps, rows) = Maps::load(&same);
    for row in &rows {
        assert!(maps.contains(row));
    }
    maps
}

fn read(bytes: &[u8]) {
    let mut records = 0;
    for (_, mut fields) in Reader::new(bytes).into_iter().flatten() {
        let _ = (
            fields.u64(),
            fields.u16(),
            fields.bool(),
            fields.array::<9>(),
        );
        records += 1;
    }
    // Each has a tag and a length.
    assert!(records * 6 <= bytes.len());
}
