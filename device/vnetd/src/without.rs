// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Features that the card is to go without, on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use vnet_card::IMPLEMENTED;
use vnet_contract::features::{Feature, FEATURES};

/// Bits of features that the card does not offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Without(pub(crate) u64);

const ALL: &str = "ALL";

/// The features that a card has, and so can go without.
fn features() -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().filter(|f| IMPLEMENTED & (1 << f.bit) != 0)
}

/// Reads the name of a feature as the data sheet has it, or [`ALL`].
pub(crate) fn parser() -> impl TypedValueParser<Value = Without> {
    let names = features().map(|f| f.name).chain([ALL]);
    PossibleValuesParser::new(names).map(|name| {
        let named = features().find(|f| f.name.eq_ignore_ascii_case(&name));
        Without(named.map_or(IMPLEMENTED, |f| 1 << f.bit))
    })
}
