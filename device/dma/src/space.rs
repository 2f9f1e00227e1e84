// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The address space as the message thread changes it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwapOption, Guard};

use crate::area::Share;
use crate::files::Files;
use crate::map::DmaMap;
use crate::mirror::Mirrors;
use crate::range::{MapError, Mapping, Range};
use crate::relay::Relay;

/// Most ranges of a card that can be mapped at a time.
///
/// Each may take one of the process's memory areas. There is another limit to what the cards of a
/// process take together, which leaves room for half as many ranges besides.
pub const MAX_MAPPINGS: usize = 32_768;

/// The address space as it was at one moment.
#[derive(Debug)]
pub struct Snapshot(Guard<Option<Arc<Views>>>);

impl Snapshot {
    /// What the card can reach; `None` while bus mastering is off.
    pub fn memory(&self) -> Option<&DmaMap> {
        self.0.as_deref().map(|views| views.shared.as_ref())
    }

    /// True if there is memory that only its client can reach, and can be asked for.
    pub fn has_mirrors(&self) -> bool {
        self.0.as_deref().is_some_and(|views| views.unshared)
    }
}

/// The DMA address space of one card. Clones are handles to the same space.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    control: Mutex<Control>,
    /// What workers see: the map of `control` while bus mastering is on.
    visible: ArcSwapOption<Views>,
    mirrors: Mirrors,
    share: Share,
    relay: OnceLock<Option<Arc<Relay>>>,
}

/// The map, without and with the mirrors of what is not shared.
#[derive(Debug)]
struct Views {
    shared: Arc<DmaMap>,
    mirrored: Option<Arc<DmaMap>>,
    /// There is something that is not shared.
    unshared: bool,
}

#[derive(Debug, Default)]
struct Control {
    map: Arc<DmaMap>,
    files: Files,
    bus_master: bool,
    /// The client can be asked for what it does not share.
    asks: bool,
}

impl AddressSpace {
    /// An empty space with bus mastering off, as after power-on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range.
    pub fn map(&self, mapping: Mapping) -> Result<(), MapError> {
        match self.map_all([mapping]).pop() {
            Some((_, refused)) => Err(refused),
            None => Ok(()),
        }
    }

    /// Adds ranges, and returns the addresses of those that cannot be, with the reason. For many
    /// it is quick, where one after the other copies the map as often.
    pub fn map_all(&self, mappings: impl IntoIterator<Item = Mapping>) -> Vec<(u64, MapError)> {
        self.change(|control| {
            let (mut ranges, mut refused) = (Vec::new(), Vec::new());
            let Shared { mirrors, share, .. } = &*self.shared;
            for mapping in mappings {
                let address = mapping.address;
                let range = match control.map.len() + ranges.len() < MAX_MAPPINGS {
                    true => Range::new(mapping, &mut control.files, mirrors, share),
                    false => Err(MapError::TooMany),
                };
                match range {
                    Ok(range) => ranges.push(range),
                    Err(e) => refused.push((address, e)),
                }
            }
            if !ranges.is_empty() {
                let (map, overlapping) = control.map.with(ranges);
                control.map = Arc::new(map);
                refused.extend(
                    overlapping
                        .into_iter()
                        .map(|at| (at, MapError::Overlap(at))),
                );
            }
            refused
        })
    }

    /// Removes every range that has a byte in the `size` bytes from `address`, and returns how
    /// many there were. Clients unmap stretches with many ranges in them, or with none; the end
    /// may lie at or beyond 2^64.
    ///
    /// A range that sticks out is removed whole: clients do not cut ranges, and memory that the
    /// card no longer reaches is the safe way to be wrong.
    ///
    /// Batches that started before may still use the ranges: if any was removed, quiesce the
    /// workers before telling the client.
    pub fn unmap(&self, address: u64, size: u64) -> usize {
        let Some(beyond_first) = size.checked_sub(1) else {
            return 0;
        };
        self.change(|control| {
            let before = control.map.len();
            if let Some(map) = control
                .map
                .without(address, address.saturating_add(beyond_first))
            {
                control.map = Arc::new(map);
            }
            before - control.map.len()
        })
    }

    /// Removes every range: the client is gone or asked for it. Quiesce as for [`Self::unmap`].
    pub fn clear(&self) {
        self.change(|control| control.map = Arc::default());
    }

    /// Follows the Bus Master Enable bit. While it is off, workers see no memory. After turning
    /// it off, quiesce the workers; after turning it on, wake them.
    pub fn set_bus_master(&self, on: bool) {
        self.change(|control| control.bus_master = on);
    }

    /// A snapshot for one batch. Takes no lock, and counts no references: workers that take one
    /// for each batch share nothing that changes.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.visible.load())
    }

    /// A snapshot to keep; `None` while bus mastering is off. Takes no lock.
    pub fn memory(&self) -> Option<Arc<DmaMap>> {
        let views = self.shared.visible.load();
        views.as_ref().map(|views| Arc::clone(&views.shared))
    }

    /// The map with the mirrors of what is not shared, for who has those filled by the relay.
    /// `None` while bus mastering is off, or if the client cannot be asked.
    pub fn mirrored(&self) -> Option<Arc<DmaMap>> {
        let views = self.shared.visible.load();
        views.as_ref()?.mirrored.clone()
    }

    /// How memory that is not shared is reached. `None`: there never was a client to ask.
    pub fn relay(&self) -> Option<&Arc<Relay>> {
        self.shared.relay.get()?.as_ref()
    }

    /// From now on there is a client that can be asked for what it does not share, or no longer.
    /// Until this is called for the first time, there is none. Returns whether there is one.
    pub fn set_relayed(&self, on: bool) -> bool {
        if on {
            let new = || Relay::new(self.shared.mirrors.clone()).ok().map(Arc::new);
            self.shared.relay.get_or_init(new);
        }
        let Some(relay) = self.relay() else {
            return false;
        };
        relay.set_open(on);
        self.change(|control| control.asks = on);
        on
    }

    /// All ranges, also while bus mastering is off.
    pub fn all(&self) -> Arc<DmaMap> {
        self.change(|control| Arc::clone(&control.map))
    }

    /// Applies a change and shows the result to the workers.
    fn change<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R {
        // Every change leaves `Control` whole, so it is good after a panic too.
        let mut control = self
            .shared
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut control);
        let views = control.bus_master.then(|| {
            Arc::new(Views {
                shared: Arc::clone(&control.map),
                mirrored: control.asks.then(|| Arc::new(control.map.mirrored())),
                unshared: control.asks && control.map.has_unshared(),
            })
        });
        self.shared.visible.store(views);
        result
    }
}
