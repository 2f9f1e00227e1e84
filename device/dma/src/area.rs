// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A piece of a file as memory of this process.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion};

use crate::budget::{Budget, Taken};
use crate::files::Open;

/// Most areas of all cards together.
///
/// Linux allows a process 65,530 unless told otherwise. A quarter is left for the stacks of threads
/// and what else the process allocates.
const MAX_AREAS: usize = 49_152;

/// Most bytes of all areas, which need not have any memory: a client can have files of any size. It is
/// half of the addresses that a process on x86-64 has.
const MAX_BYTES: usize = 1 << 46;

static AREAS: Budget = Budget::new();
static BYTES: Budget = Budget::new();

/// The memory, and its share of the areas that the process may have.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) memory: Memory,
    /// Where in it that starts which was asked for.
    pub(crate) lead: usize,
    _taken: Taken,
}

/// The memory of an area, and its share of the addresses.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) region: MmapRegion<()>,
    _taken: Taken,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There are [`MAX_AREAS`] already, or they have [`MAX_BYTES`].
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
    pub(crate) fn map(file: &Open, part: Range<u64>, write: bool) -> Result<Self, Refusal> {
        let taken = take().ok_or(Refusal::TooMany)?;
        let lead = part.start % file.page();
        let start = part.start - lead;
        let end = part.end.checked_next_multiple_of(file.page());
        let length = end.and_then(|end| usize::try_from(end - start).ok());
        let place = FileOffset::from_arc(Arc::clone(file.file()), start);
        Ok(Self {
            memory: map(place, length.ok_or(Refusal::File)?, write)?,
            lead: lead as usize,
            _taken: taken,
        })
    }
}

/// The share of one area.
pub(crate) fn take() -> Option<Taken> {
    AREAS.take(1, MAX_AREAS)
}

/// The memory of an area, for who has its share already.
pub(crate) fn map(file: FileOffset, length: usize, write: bool) -> Result<Memory, Refusal> {
    let taken = BYTES.take(length, MAX_BYTES).ok_or(Refusal::TooMany)?;
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
