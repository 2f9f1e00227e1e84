// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Used entries as a broken card would write them: see [`vnet_faults`].

use vnet_contract::ring::USED_ENTRY_SIZE;
use vnet_faults::{Kind, Site};

use crate::view::View;
use crate::Fault;

/// 32-bit words of a used entry: id and length.
const WORDS: usize = USED_ENTRY_SIZE / 4;

/// Spoils `count` entries from used index `first` on, which the driver does not see yet. Gives the
/// used index to show in place of the one behind them.
pub(crate) fn spoil(
    site: &Site,
    view: &View<'_>,
    mask: u16,
    first: u16,
    count: u16,
) -> Result<u16, Fault> {
    let at = |ahead: u16| WORDS * usize::from(first.wrapping_add(ahead) & mask);
    for ahead in 0..count {
        let (id, len) = (at(ahead), at(ahead) + 1);
        // The last one has nobody to change places with.
        if ahead + 1 < count && site.hit(Kind::UsedOrder).is_some() {
            for (word, other) in [(id, at(ahead + 1)), (len, at(ahead + 1) + 1)] {
                let (here, there) = (view.used.load(word)?, view.used.load(other)?);
                view.used.store(word, there)?;
                view.used.store(other, here)?;
            }
        }
        if site.hit(Kind::UsedIdRepeated).is_some() {
            let before = view.used.load(at(ahead.wrapping_sub(1)))?;
            view.used.store(id, before)?;
        }
        if let Some(hit) = site.hit(Kind::UsedIdRange) {
            let size = u32::from(mask) + 1;
            let beyond = size + (hit.random as u32) % (u32::MAX - size);
            view.used.store(id, beyond.to_le())?;
        }
        let written = u32::from_le(view.used.load(len)?);
        if let Some(hit) = site.hit(Kind::UsedLenLong) {
            // More than any buffer holds.
            let long = written.saturating_add((1 << 20) + hit.random as u16 as u32);
            view.used.store(len, long.to_le())?;
        }
        if let Some(hit) = site.hit(Kind::UsedLenShort) {
            let short = (hit.random as u32) % written.max(1);
            view.used.store(len, short.to_le())?;
        }
        if site.hit(Kind::UsedLenZero).is_some() {
            view.used.store(len, 0)?;
        }
    }
    let next = first.wrapping_add(count);
    Ok(match site.hit(Kind::UsedIndex) {
        // Beyond anything that the driver can have given.
        Some(hit) => next.wrapping_add(0x2000 | hit.random as u16 & 0x7fff),
        None => next,
    })
}
