// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Local copies of memory that the client does not share.
//!
//! Who works on such memory first has what it needs pulled into the mirror of the range, then works
//! there, and has what it wrote pushed; see [`crate::Relay`]. Mirrors have the size of their
//! ranges, but take memory only where they are touched: they lie in one sparse file, from which
//! holes are punched.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{fallocate, ftruncate, memfd_create, FallocateFlags, MemfdFlags};
use vm_memory::{FileOffset, MmapRegion};

use crate::area::{self, Memory, Part, Refusal, Share};

/// Memory that the mirrors of a card may take for longer than a batch. More than the rings and
/// posted buffers of a driver in a bad mood; a guest's whole memory would be too much.
const LIMIT: u64 = 64 << 20;

/// The mirrors of one address space. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirrors(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The file, and where in it the next mirror goes. Made with the first mirror.
    store: Mutex<Option<(Arc<File>, u64)>>,
    /// How often everything was forgotten.
    forgotten: AtomicU64,
}

impl Mirrors {
    fn map(&self, size: u64, share: &Share) -> io::Result<Memory> {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.is_none() {
            let file = memfd_create("vnet-mirrors", MemfdFlags::CLOEXEC)?;
            *store = Some((Arc::new(file.into()), 0));
        }
        let Some((file, next)) = store.as_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let length = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let end = next
            .checked_add(size)
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        ftruncate(&**file, end)?;
        let place = FileOffset::from_arc(Arc::clone(file), *next);
        let memory = area::map(place, length, true, share).map_err(|e| match e {
            Refusal::System(source) => source,
            Refusal::TooMany | Refusal::File => io::ErrorKind::OutOfMemory.into(),
        })?;
        *next = end;
        Ok(memory)
    }

    /// Forgets what is in all mirrors if that has become much. Nobody may be at work in them.
    /// Returns how often that has happened.
    pub(crate) fn trim(&self) -> u64 {
        let store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((file, end)) = store.as_ref() {
            // In units of 512 bytes, whatever the file system's own are.
            let taken = file.metadata().map_or(0, |meta| meta.blocks() * 512);
            if taken > LIMIT && punch(file, 0, *end) {
                self.0.forgotten.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.0.forgotten.load(Ordering::Relaxed)
    }
}

fn punch(file: &File, offset: u64, len: u64) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, offset, len).is_ok()
}

/// The mirror of one range, which is made when somebody looks into it.
#[derive(Debug)]
pub(crate) struct Mirror {
    mirrors: Mirrors,
    share: Share,
    size: u64,
    memory: OnceLock<Option<Memory>>,
    /// Its share of the areas, from the beginning: who looks into it can refuse the client nothing any more.
    _taken: Part,
}

impl Mirror {
    /// `None`: there are too many areas already.
    pub(crate) fn new(mirrors: &Mirrors, share: &Share, size: u64) -> Option<Self> {
        Some(Self {
            mirrors: mirrors.clone(),
            share: share.clone(),
            size,
            memory: OnceLock::new(),
            _taken: share.take()?,
        })
    }

    /// `None`: it is more than what can be mapped. Then the range stays out of reach.
    pub(crate) fn region(&self) -> Option<&MmapRegion<()>> {
        let memory = self
            .memory
            .get_or_init(|| self.mirrors.map(self.size, &self.share).ok());
        memory.as_ref().map(|memory| &memory.region)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let memory = self.memory.get().and_then(Option::as_ref);
        if let Some(place) = memory.and_then(|memory| memory.region.file_offset()) {
            punch(place.file(), place.start(), self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, VolatileMemory};

    fn taken(mirrors: &Mirrors) -> u64 {
        let store = mirrors.0.store.lock().unwrap();
        let (file, _) = store.as_ref().unwrap();
        file.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn a_mirror_takes_memory_where_it_is_touched_and_gives_it_back() {
        let mirrors = Mirrors::default();
        // Far more than there is.
        let large = Mirror::new(&mirrors, &Share::default(), 1 << 40).unwrap();
        let small = Mirror::new(&mirrors, &Share::default(), 4096).unwrap();
        assert!(
            mirrors.0.store.lock().unwrap().is_none(),
            "made when needed"
        );
        for mirror in [&large, &small] {
            let slice = mirror.region().unwrap().get_slice(0, 4096).unwrap();
            slice.write_slice(&[7; 4096], 0).unwrap();
        }
        assert_eq!(taken(&mirrors), 8192);
        drop(large);
        assert_eq!(taken(&mirrors), 4096);
        let slice = small.region().unwrap().get_slice(0, 4096).unwrap();
        assert_eq!(slice.read_obj::<u8>(4095).unwrap(), 7);
    }

    #[test]
    fn what_is_much_is_forgotten() {
        let mirrors = Mirrors::default();
        let mirror = Mirror::new(&mirrors, &Share::default(), LIMIT + (1 << 20)).unwrap();
        let region = mirror.region().unwrap();
        let touch = |pages: u64| {
            for page in 0..pages {
                let at = (page * 4096) as usize;
                region.get_slice(at, 1).unwrap().write_obj(1u8, 0).unwrap();
            }
        };
        touch(LIMIT / 4096);
        assert_eq!(mirrors.trim(), 0);
        touch(LIMIT / 4096 + 1);
        assert_eq!(mirrors.trim(), 1);
        assert_eq!(taken(&mirrors), 0);
        let slice = region.get_slice(0, 1).unwrap();
        assert_eq!(slice.read_obj::<u8>(0).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_mapped_stays_out_of_reach() {
        let mirrors = Mirrors::default();
        assert!(Mirror::new(&mirrors, &Share::default(), 1 << 62)
            .unwrap()
            .region()
            .is_none());
        assert!(Mirror::new(&mirrors, &Share::default(), 4096)
            .unwrap()
            .region()
            .is_some());
    }
}
