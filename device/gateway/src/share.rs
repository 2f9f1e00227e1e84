// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Who has to give way where all places are taken: behind a switch, other stations want some, too.

use smoltcp::wire::EthernetAddress;

/// The station that has the most places of those that these have, if it still has as many as `station` when
/// that has got one of them.
pub(crate) fn crowd(
    places: impl Iterator<Item = EthernetAddress>,
    station: EthernetAddress,
) -> Option<EthernetAddress> {
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    let own = places.iter().filter(|other| **other == station).count();
    let most = places.chunk_by(|a, b| a == b).max_by_key(|all| all.len())?;
    (most.len() >= own + 2).then_some(most[0])
}
