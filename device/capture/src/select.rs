// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which queues are captured.

use std::fmt;
use std::str::FromStr;

use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_contract::queue::{kind, Kind};

/// Queues of a card: all, or those of a direction, a pair, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    direction: Option<Kind>,
    pair: Option<u16>,
}

/// Not the name of a queue, or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rx, tx, the number of a pair (0 to {}), or both, such as tx0, is needed", MAX_QUEUE_PAIRS - 1)]
pub struct BadSelection;

/// A card has none of these queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {selection}; pairs are numbered from 0 to {}", .pairs.saturating_sub(1))]
pub struct NoSuchQueue {
    selection: Selection,
    pairs: u16,
}

impl Selection {
    /// True if the queue with this index is one of them.
    pub fn covers(&self, queue: u16) -> bool {
        self.direction
            .is_none_or(|direction| direction == kind(queue))
            && self.pair.is_none_or(|pair| pair == queue / 2)
    }

    /// Sees to it that a card with so many pairs has one of them.
    pub fn check(&self, pairs: u16) -> Result<(), NoSuchQueue> {
        let selection = *self;
        match self.pair.is_none_or(|pair| pair < pairs) {
            true => Ok(()),
            false => Err(NoSuchQueue { selection, pairs }),
        }
    }
}

impl FromStr for Selection {
    type Err = BadSelection;

    fn from_str(text: &str) -> Result<Self, BadSelection> {
        let (direction, pair) = match text.get(..2) {
            Some("rx") => (Some(Kind::Rx), &text[2..]),
            Some("tx") => (Some(Kind::Tx), &text[2..]),
            _ => (None, text),
        };
        let pair = match pair {
            "" if direction.is_some() => None,
            number => {
                let digits = number.bytes().all(|b| b.is_ascii_digit());
                let pair = number
                    .parse()
                    .ok()
                    .filter(|n| *n < MAX_QUEUE_PAIRS && digits);
                Some(pair.ok_or(BadSelection)?)
            }
        };
        Ok(Self { direction, pair })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.direction.map_or("", name))?;
        match self.pair {
            Some(pair) => write!(f, "{pair}"),
            None => Ok(()),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Rx => "rx",
        Kind::Tx => "tx",
    }
}

/// What the queue with this index is called: `rx0`, `tx0`, `rx1` and so on.
pub fn queue_name(queue: u16) -> String {
    format!("{}{}", name(kind(queue)), queue / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_named() {
        for (text, covered) in [
            ("rx", &[0, 2, 4][..]),
            ("tx", &[1, 3, 5]),
            ("1", &[2, 3]),
            ("tx2", &[5]),
            ("rx0", &[0]),
        ] {
            let selection: Selection = text.parse().unwrap();
            let all: Vec<_> = (0..6).filter(|q| selection.covers(*q)).collect();
            assert_eq!(all, covered, "{text}");
            assert_eq!(selection.to_string(), text);
        }
        assert!((0..32).all(|q| Selection::default().covers(q)));
        for (text, pairs, there) in [("rx", 1, true), ("tx1", 2, true), ("tx1", 1, false)] {
            let selection: Selection = text.parse().unwrap();
            assert_eq!(selection.check(pairs).is_ok(), there, "{text}");
        }
        for bad in ["", "16", "rx16", "-1", "+1", "both", "tx0x", "r", "é1"] {
            assert_eq!(bad.parse::<Selection>(), Err(BadSelection), "{bad}");
        }
        assert_eq!([0, 3].map(queue_name), ["rx0", "tx1"]);
    }
}
