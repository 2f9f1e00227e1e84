// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The features that the data sheet says this revision implements are those that it offers to a
//! backend that can do everything.

use vnet_backend::{Capabilities, Endpoint, Error, Frame, Offloads, Queue, RxRing};
use vnet_card::{Card, Config, IMPLEMENTED};
use vnet_contract::features::{self, FEATURES};
use vnet_contract::regs;

/// Claims to be able to do everything.
struct Able;

impl Endpoint for Able {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::ALL,
            max_queues: u16::MAX,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues).map(|_| Box::new(Able) as _).collect())
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}

impl Queue for Able {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len()
    }

    fn receive(&mut self, _ring: &mut dyn RxRing) {}
}

/// A card that has all features but these, with memory space on.
fn card(withheld: u64) -> Card {
    let config = Config {
        max_mtu: 9000,
        withheld,
        ..Config::new([2, 0, 0, 0, 0, 1])
    };
    let mut card = Card::new(config, Box::new(Able)).unwrap();
    card.write_config(0x04, &0x0002u16.to_le_bytes());
    card
}

/// What the card offers, as its driver reads it.
fn offered(card: &mut Card) -> u64 {
    let mut value = [0; 8];
    card.read_registers(regs::DEVICE_FEATURES_LO.into(), &mut value);
    u64::from_le_bytes(value)
}

/// The "1.0" column of the feature table: bit numbers that have a "yes", and those with a "no".
fn claimed(datasheet: &str) -> (Vec<u8>, Vec<u8>) {
    let rows = datasheet
        .lines()
        .skip_while(|l| *l != "<!-- contract: features::FEATURES -->")
        .skip(1);
    let cells: Vec<Vec<&str>> = rows
        .take_while(|l| l.starts_with('|'))
        .map(|l| l.split('|').map(str::trim).collect())
        .collect();
    let column = |title| cells[0].iter().position(|c| *c == title).unwrap();
    let (bit, implemented) = (column("Bit"), column("1.0"));
    let bits = |answer| {
        cells
            .iter()
            .filter(|row| row[implemented] == answer)
            .map(|row| row[bit].parse().unwrap())
            .collect()
    };
    (bits("yes"), bits("no"))
}

#[test]
fn the_data_sheet_says_what_is_implemented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/datasheet.md");
    let (yes, no) = claimed(&std::fs::read_to_string(path).unwrap());
    assert_eq!(yes.len() + no.len(), FEATURES.len());
    let mask = yes.iter().fold(0u64, |mask, bit| mask | 1 << bit);
    assert_eq!(mask, IMPLEMENTED, "{mask:#x} claimed");
    assert_eq!(mask, offered(&mut card(0)), "{mask:#x} claimed");
}

#[test]
fn what_is_withheld_is_not_there() {
    let read = |card: &mut Card, offset: u32| {
        let mut value = [0; 4];
        card.read_registers(offset.into(), &mut value);
        u32::from_le_bytes(value)
    };
    for feature in FEATURES.iter().filter(|f| IMPLEMENTED & (1 << f.bit) != 0) {
        let name = feature.name;
        let mut card = card(1 << feature.bit);
        let offered = offered(&mut card);
        let gone = IMPLEMENTED & !offered;
        assert_eq!(gone & (1 << feature.bit), 1 << feature.bit, "{name}");
        assert_eq!(features::check(offered, offered), Ok(()), "{name}");
        // Nothing goes but what needs it.
        for other in FEATURES.iter().filter(|f| gone & (1 << f.bit) != 0) {
            assert!(
                other.bit == feature.bit || other.needs & gone != 0,
                "{name}: {}",
                other.name
            );
        }
        for register in regs::GLOBAL
            .iter()
            .filter(|r| r.feature == 1 << feature.bit)
        {
            let before = read(&mut card, regs::ILLEGAL_ACCESSES);
            assert_eq!(read(&mut card, register.offset), 0, "{name}");
            let after = read(&mut card, regs::ILLEGAL_ACCESSES);
            assert_eq!(after, before + 1, "{name}: {}", register.name);
        }
    }
    assert_eq!(offered(&mut card(IMPLEMENTED)), 0);
}
