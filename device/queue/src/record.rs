// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames for a capture: see [`vnet_capture`].
//!
//! The engine keeps nothing for it. What a chain looked like is read once more when it is done with, and
//! told as it stands then; a guest that has changed it meanwhile deceives nobody but the reader.

use vm_memory::{Bytes, GuestAddress};
use vnet_capture::Recorder;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_SIZE};
use vnet_dma::DmaMap;

use crate::progress::Progress;
use crate::ring::Ring;
use crate::view::View;

/// Those who are told of each received frame: the process that takes over, and a capture. The path asks
/// once a frame for both.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    pub(crate) progress: Option<Progress>,
    pub(crate) recorder: Option<Box<Recorder>>,
}

/// Tells of the chain whose first descriptor is `head`, which is one of the ring. Reads no more of it than
/// the recorder wants, which is little: the driver may have made another chain of it by now, and this is
/// outside of the budget of the round.
pub(crate) fn describe(ring: &Ring, view: &View<'_>, head: u16, recorder: &mut Recorder) {
    let Ok(first) = ring.descriptor(view, head) else {
        return;
    };
    let indirect = first.flags & DESC_F_INDIRECT != 0;
    if !recorder.chain(head, indirect) {
        return;
    }
    if indirect {
        let entries = first.len / DESC_SIZE as u32;
        let entries = u16::try_from(entries).unwrap_or(u16::MAX).min(ring.size());
        let get = |index| entry(view.mem(), first.addr, index);
        follow(entries, 0, get, recorder);
    } else {
        let get = |index| ring.descriptor(view, index).ok();
        follow(ring.size(), head, get, recorder);
    }
}

/// A descriptor of the table at this address.
fn entry(mem: &DmaMap, table: u64, index: u16) -> Option<Desc> {
    let at = table.checked_add(DESC_SIZE as u64 * u64::from(index))?;
    let words: [u64; 2] = mem.read_obj(GuestAddress(at)).ok()?;
    Some(Desc::from_words(words.map(u64::from_le)))
}

/// Follows a chain through a table of so many descriptors, which it leaves or not.
fn follow(
    entries: u16,
    mut index: u16,
    get: impl Fn(u16) -> Option<Desc>,
    recorder: &mut Recorder,
) {
    for _ in 0..entries {
        let Some(desc) = (index < entries).then(|| get(index)).flatten() else {
            return;
        };
        if !recorder.descriptor(desc.len) || desc.flags & DESC_F_NEXT == 0 {
            return;
        }
        index = desc.next;
    }
}
