// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames for a capture: see [`vnet_capture`].
//!
//! The engine keeps nothing for it. What a chain looked like is read once more when it is done with, and
//! told as it stands then; a guest that has changed it meanwhile deceives nobody but the reader.

use vnet_capture::Recorder;
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT};

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

/// Tells of the chain whose first descriptor is `head`, which is one of the ring.
pub(crate) fn describe(ring: &mut Ring, view: &View<'_>, head: u16, recorder: &mut Recorder) {
    let Ok(first) = ring.descriptor(view, head) else {
        return;
    };
    let indirect = first.flags & DESC_F_INDIRECT != 0;
    recorder.chain(head, indirect);
    if indirect {
        if let Ok(table) = ring.table(view.mem(), head, first) {
            follow(table.len(), 0, |index| Some(table.get(index)), recorder);
        }
    } else {
        let get = |index| ring.descriptor(view, index).ok();
        follow(ring.size(), head, get, recorder);
    }
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
        recorder.descriptor(desc.len);
        if desc.flags & DESC_F_NEXT == 0 {
            return;
        }
        index = desc.next;
    }
}
