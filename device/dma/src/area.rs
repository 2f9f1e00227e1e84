// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A piece of a file as memory of this process.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion};

use crate::budget::{Budget, Taken};
use crate::files::Open;
use crate::space::MAX_MAPPINGS;

/// Most areas of all cards together.
///
/// Linux allows a process 65,530 unless told otherwise. A quarter is left for the stacks of threads
/// and what else the process allocates.
const MAX_AREAS: usize = 49_152;

/// Most bytes of all areas, which need not have any memory: a client can have files of any size. It is
/// half of the addresses that a process on x86-64 has.
const MAX_BYTES: usize = 1 << 46;

/// Most bytes of the areas of one card, which more than one can have.
const MAX_CARD_BYTES: usize = MAX_BYTES / 4;

static AREAS: Budget = Budget::new();
static BYTES: Budget = Budget::new();

/// What one card has of these. Areas that somebody still uses count, though the client has unmapped them.
/// Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    areas: Arc<Budget>,
    bytes: Arc<Budget>,
}

/// Something that was taken, from what the card may have and from what all may.
pub(crate) type Part = (Taken<Arc<Budget>>, Taken);

impl Share {
    /// An area.
    pub(crate) fn take(&self) -> Option<Part> {
        let own = Budget::take(Arc::clone(&self.areas), 1, MAX_MAPPINGS)?;
        Some((own, Budget::take(&AREAS, 1, MAX_AREAS)?))
    }

    fn take_bytes(&self, count: usize) -> Option<Part> {
        let own = Budget::take(Arc::clone(&self.bytes), count, MAX_CARD_BYTES)?;
        Some((own, Budget::take(&BYTES, count, MAX_BYTES)?))
    }
}

/// The memory, and its share of the areas that the process may have.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) memory: Memory,
    /// Where in it that starts which was asked for.
    pub(crate) lead: usize,
    _taken: Part,
}

/// The memory of an area, and its share of the addresses.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) region: MmapRegion<()>,
    _taken: Part,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There are [`MAX_AREAS`] already, or they have [`MAX_BYTES`]; or the card has its share.
    TooMany,
    /// The system refused.
    System(io::Error),
    /// What is asked for is not in the file.
    File,
}

impl Area {
    /// Maps that part of the file, shared with whoever else has it.
    ///
    /// Of huge pages Linux maps whole ones only, and takes no part of one back: an area that was
    /// not rounded here would be refused, or be there for good.
    pub(crate) fn map(
        file: &Open,
        part: Range<u64>,
        write: bool,
        share: &Share,
    ) -> Result<Self, Refusal> {
        let taken = share.take().ok_or(Refusal::TooMany)?;
        let lead = part.start % file.page();
        let start = part.start - lead;
        let end = part.end.checked_next_multiple_of(file.page());
        let length = end.and_then(|end| usize::try_from(end - start).ok());
        let place = FileOffset::from_arc(Arc::clone(file.file()), start);
        Ok(Self {
            memory: map(place, length.ok_or(Refusal::File)?, write, share)?,
            lead: lead as usize,
            _taken: taken,
        })
    }
}

/// The memory of an area, for who has its share already.
pub(crate) fn map(
    file: FileOffset,
    length: usize,
    write: bool,
    share: &Share,
) -> Result<Memory, Refusal> {
    let taken = share.take_bytes(length).ok_or(Refusal::TooMany)?;
    let prot = match write {
        // Writing part of a page reads it, on every machine that there is.
        true => libc::PROT_READ | libc::PROT_WRITE,
        false => libc::PROT_READ,
    };
    let region = MmapRegionBuilder::new(length)
        .with_file_offset(file)
        .with_mmap_prot(prot)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|e| match e {
            MmapRegionError::Mmap(source) => Refusal::System(source),
            _ => Refusal::File,
        })?;
    Ok(Memory {
        region,
        _taken: taken,
    })
}
