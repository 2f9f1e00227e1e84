// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Cards of different versions one after another.
//!
//! `state-N.txt` is what version N of the state was for the card that [`set_up`] makes: each line an
//! offset, and the bytes there that are not all zero. When what is written down changes, what is
//! written now is kept as a further file:
//!
//!     VNET_STATE=$PWD/card/src/tests/state-4.txt cargo test -p vnet-card every_version

use std::fmt::Write;
use std::sync::Arc;

use rustix::io::{pread, pwrite};
use vnet_contract::features::{MAC_FILTER, MODERATION, MRG_RXBUF, QUEUE_STATS, RSS, RX_CSUM};
use vnet_contract::regs::{self, queue_reg};
use vnet_state::records::Reader;
use vnet_state::Memory;

use super::bench::Bench;
use super::shelter::{counts_interrupts, registers, Shelter};

const STATES: [&str; 3] = [
    include_str!("state-1.txt"),
    include_str!("state-2.txt"),
    include_str!("state-3.txt"),
];

const LINE: usize = 32;

/// A card with much in its state, and a queue that has sent a frame.
fn set_up(shelter: &Shelter) -> Bench {
    let mut b = shelter.bench();
    b.accept(MRG_RXBUF | MAC_FILTER | RSS | MODERATION | QUEUE_STATS | RX_CSUM);
    for (register, value) in [
        (regs::MTU, 4000),
        (regs::MAC_LO, 0x3322_1102),
        (regs::MAC_HI, 0x5544),
        (regs::EVENT_VECTOR, 1),
        (regs::RX_MODE, regs::RX_MODE_PROMISC),
        (queue_reg(0, regs::Q_SIZE), 128),
        (queue_reg(1, regs::Q_VECTOR), 1),
    ] {
        b.write(register, value);
    }
    b.start(1);
    b.send(1);
    b.wait_used(1, 1);
    // The counters are written down behind the used index.
    b.wait(|b| b.read(regs::stats_reg(1, regs::S_FRAMES)) == 1);
    // With the change of a register, whatever else has changed is.
    b.write(regs::MTU, 4001);
    b
}

fn dump(memory: &Memory) -> String {
    let size = rustix::fs::fstat(memory).unwrap().st_size as u64;
    let mut text = String::new();
    for at in (0..size).step_by(LINE) {
        let mut bytes = [0; LINE];
        pread(memory, &mut bytes, at).unwrap();
        if bytes != [0; LINE] {
            let bytes = bytes.map(|byte| format!("{byte:02x}")).concat();
            writeln!(text, "{at:08x} {bytes}").unwrap();
        }
    }
    text
}

fn load(text: &str) -> Arc<Memory> {
    let memory = Memory::create().unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (at, bytes) = line.split_once(' ').unwrap();
        let at = u64::from_str_radix(at, 16).unwrap();
        let byte = |n| u8::from_str_radix(&bytes[2 * n..2 * n + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..LINE).map(byte).collect();
        pwrite(&memory, &bytes, at).unwrap();
    }
    memory
}

/// The records of a snapshot, whole.
fn records(memory: &Memory) -> Vec<(u16, Vec<u8>)> {
    let saved = memory.snapshot().unwrap();
    let mut rest = &saved[2..];
    let mut list = Vec::new();
    for (tag, _) in Reader::new(&saved).unwrap() {
        let len = u32::from_le_bytes(rest[2..6].try_into().unwrap()) as usize;
        list.push((tag, rest[6..6 + len].to_vec()));
        rest = &rest[6 + len..];
    }
    list
}

#[test]
fn the_state_of_every_version_is_gone_on_with() {
    for text in STATES {
        let shelter = Shelter::new();
        let mut b = set_up(&shelter);
        let before = registers(&mut b);
        // The same guest, with the same descriptors kept.
        let older = Shelter {
            memory: load(text),
            ..shelter
        };
        b.exchange(older.card());
        for (was, is) in before.into_iter().zip(registers(&mut b)) {
            if !counts_interrupts(was.0) {
                assert_eq!(was, is);
            }
        }
        for count in 2..5 {
            b.send_again(1, count);
            b.wait_used(1, count);
        }
        b.exchange(older.card());
        b.send_again(1, 5);
        b.wait_used(1, 5);
        b.wait(|b| b.read(regs::stats_reg(1, regs::S_FRAMES)) == 5);
        assert_eq!(b.illegal(), 0);
    }
}

/// What older versions read of the state has to be what they would have written.
#[test]
fn every_version_can_go_on_with_the_state() {
    let shelter = Shelter::new();
    let _b = set_up(&shelter);
    if let Ok(path) = std::env::var("VNET_STATE") {
        let head = "# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0\n";
        std::fs::write(path, head.to_owned() + &dump(&shelter.memory)).unwrap();
    }
    let now = records(&shelter.memory);
    for text in STATES {
        let older = load(text);
        let then = records(&older);
        let known = |tag: u16| then.iter().any(|(t, _)| *t == tag);
        // Those that it knows are in the same order.
        let mut same = now.iter().filter(|(tag, _)| known(*tag));
        for (tag, fields) in then.iter() {
            let (newer, more) = same.next().unwrap();
            assert_eq!(tag, newer);
            assert_eq!(*fields, more[..fields.len()], "record {tag}");
        }
        assert!(same.next().is_none());
        // Of cells, the number that an older version reads of each; and what it does not use, it
        // leaves alone.
        let (now, then) = (dump(&shelter.memory), dump(&older));
        let row = |text: &str| {
            text.lines()
                .find(|l| l.starts_with("00001080 "))
                .map(str::to_owned)
        };
        let (now, then) = (row(&now).unwrap(), row(&then).unwrap());
        assert_eq!(now[9..13], then[9..13], "used index of queue 1");
        assert_eq!(now[25..], then[25..], "counters of queue 1");
    }
}
