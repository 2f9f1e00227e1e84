// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Search for the highest rate that goes through without loss.

use crate::error::{Error, Result};

/// Rates tried, in steps of five per cent: 10 to about 430 thousand a second.
const LEVELS: u32 = 78;
const LOWEST: f64 = 10_000.0;
const STEP: f64 = 1.05;

/// Loss that passes for none.
const NO_LOSS: f64 = 0.001;

/// What became of an offered rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// The rate that the sender reached.
    pub offered: f64,
    /// The part that did not arrive.
    pub loss: f64,
}

fn rate(level: u32) -> f64 {
    LOWEST * STEP.powi(level as i32)
}

/// Halves the range until one level is left. A rate that fails gets a second chance: one pause of
/// some other process is not a limit of the card.
pub fn highest(mut probe: impl FnMut(u64) -> Result<Probe>) -> Result<Probe> {
    let (mut low, mut high) = (0, LEVELS);
    let mut best: Option<Probe> = None;
    while low < high {
        let middle = (low + high) / 2;
        let wanted = rate(middle);
        let mut tried = probe(wanted as u64)?;
        if tried.loss >= NO_LOSS {
            tried = probe(wanted as u64)?;
        }
        if tried.loss >= NO_LOSS {
            high = middle;
            continue;
        }
        if best.is_none_or(|best| best.offered < tried.offered) {
            best = Some(tried);
        }
        // The sender's own limit: no higher rate can be offered.
        if tried.offered < wanted * 0.97 {
            break;
        }
        low = middle + 1;
    }
    best.ok_or_else(|| Error::Peer(format!("loss at every rate from {LOWEST} a second on")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(limit: f64) -> impl FnMut(u64) -> Result<Probe> {
        move |rate| {
            let offered = rate as f64;
            Ok(Probe {
                offered,
                loss: (1.0 - limit / offered).max(0.0),
            })
        }
    }

    #[test]
    fn finds_the_limit_to_a_step() {
        for limit in [11e3, 60e3, 81e3, 104e3, 300e3] {
            let found = highest(card(limit)).unwrap().offered;
            assert!(
                found <= limit * 1.001 && found > limit / STEP,
                "{limit}: {found}"
            );
        }
        assert!(highest(card(5e3)).is_err());
    }

    #[test]
    fn one_hiccup_is_not_a_limit() {
        let mut real = card(100e3);
        let mut n = 0;
        let found = highest(|rate| {
            n += 1;
            let probe = real(rate)?;
            Ok(if n == 1 {
                Probe { loss: 0.5, ..probe }
            } else {
                probe
            })
        });
        assert!(found.unwrap().offered > 95e3);
    }

    #[test]
    fn a_slow_sender_ends_the_search() {
        let mut tries = 0;
        let found = highest(|rate| {
            tries += 1;
            Ok(Probe {
                offered: (rate as f64).min(50e3),
                loss: 0.0,
            })
        });
        assert_eq!(found.unwrap().offered, 50e3);
        assert!(tries < 8);
    }
}
