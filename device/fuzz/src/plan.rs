// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The plan of a card that misbehaves: a text of the user, and what is made of it.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use vnet_faults::{Faults, Kind, Plan, Site};

use crate::input::{bytes, rarely};

/// What a line may have, right or wrong.
const WORDS: [&str; 24] = [
    "queue=rx",
    "queue=rx0",
    "queue=tx",
    "queue=rx3",
    "queue=tx1",
    "every=3",
    "every=0",
    "at=1",
    "rate=1/2",
    "rate=2/3",
    "count=2",
    "from=1s",
    "for=10ms",
    "delay=1ms",
    "delay=5us",
    "seed=7",
    "#",
    "=",
    "count=",
    "rate=1/0",
    "at=18446744073709551615",
    "for=99999999999s",
    "rate=50%",
    "queue=rx99",
];

/// A text is a plan or is refused with the line that is wrong, and a plan can be carried out.
pub fn plan(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        look(text);
    }
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut text = String::new();
    while !u.is_empty() && text.len() < 4000 {
        text += u.choose(Kind::ALL)?.name();
        for _ in 0..u.int_in_range(0..=4)? {
            text.push(' ');
            match rarely(u, 6)? {
                true => text += &String::from_utf8_lossy(bytes(u, 20)?),
                false => text += u.choose(&WORDS)?,
            }
        }
        text.push('\n');
    }
    look(&text);
    Ok(())
}

fn look(text: &str) {
    let plan: Plan = match text.parse() {
        Ok(plan) => plan,
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line), "{error}");
            return;
        }
    };
    let faults = Arc::new(Faults::default());
    faults.load(&plan);
    for site in [
        Site::queue(Arc::clone(&faults), 0),
        Site::queue(Arc::clone(&faults), 3),
        Site::card(Arc::clone(&faults)),
    ] {
        for &kind in Kind::ALL {
            let may = site.may(&[kind]);
            for _ in 0..4 {
                assert!(site.hit(kind).is_none() || may);
            }
        }
    }
    let _ = faults.report();
}
