// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One range of the address space.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::{Permissions, VolatileMemory, VolatileSlice};

use crate::area::{self, Area, Share};
use crate::files::{Files, Open, Refusal};
use crate::mirror::{Mirror, Mirrors};

/// Granularity of mappings, the page size that the device server negotiates.
///
/// Ranges that start and end on it keep every naturally aligned field of a ring inside one range,
/// and keep the number of pieces that a buffer can fall into small.
pub const PAGE_SIZE: u64 = 4096;

/// A range as the client describes it.
#[derive(Debug)]
pub struct Mapping {
    /// First bus address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// File that holds the memory. `None`: the client does not share it, and the card cannot map
    /// it.
    pub file: Option<File>,
    /// Where in the file the range starts.
    pub offset: u64,
    /// The card may read.
    pub read: bool,
    /// The card may write.
    pub write: bool,
}

/// Why a range cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The size is zero.
    #[error("range at {0:#x} is empty")]
    Empty(u64),
    /// Address, size or file offset is not a multiple of [`PAGE_SIZE`].
    #[error("range at {0:#x} is not page aligned")]
    Alignment(u64),
    /// The range ends above 2^64, or its end in the file does.
    #[error("range at {address:#x} of size {size:#x} ends outside the address space")]
    Overflow {
        /// First bus address.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Part of the range is mapped already.
    #[error("range at {0:#x} overlaps a mapped one")]
    Overlap(u64),
    /// There are [`crate::MAX_MAPPINGS`] ranges already, or the card or all of the process have too many,
    /// or too large ones.
    #[error("too many mapped ranges, or too large ones")]
    TooMany,
    /// The ranges are in too many files, of this card or of all.
    #[error("range at {0:#x} is in one file too many")]
    TooManyFiles(u64),
    /// The file is no memory, or shorter than the range: touching it would be fatal.
    #[error("range at {0:#x} is not within its file")]
    File(u64),
    /// The system refused.
    #[error("mapping the range at {address:#x}: {source}")]
    System {
        /// First bus address.
        address: u64,
        /// What the system said.
        source: io::Error,
    },
}

impl MapError {
    /// The error number that a reply to the client carries.
    pub fn errno(&self) -> i32 {
        match self {
            MapError::Empty(_)
            | MapError::Alignment(_)
            | MapError::Overflow { .. }
            | MapError::File(_) => libc::EINVAL,
            MapError::Overlap(_) => libc::EEXIST,
            MapError::TooMany | MapError::TooManyFiles(_) => libc::ENOSPC,
            MapError::System { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

impl From<MapError> for io::Error {
    fn from(e: MapError) -> Self {
        io::Error::from_raw_os_error(e.errno())
    }
}

/// A mapped range. The end is kept inclusive, so that a range may reach the top of the space.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
    access: Permissions,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Shared {
        area: Area,
        /// Kept open for as long as it is used.
        file: Arc<Open>,
    },
    Unshared(Mirror),
    /// Of a range that must be neither read nor written.
    None,
}

impl Range {
    /// Checks the description and maps the memory.
    pub(crate) fn new(
        m: Mapping,
        files: &mut Files,
        mirrors: &Mirrors,
        share: &Share,
    ) -> Result<Self, MapError> {
        let Mapping { address, size, .. } = m;
        if size == 0 {
            return Err(MapError::Empty(address));
        }
        let last = address
            .checked_add(size - 1)
            .ok_or(MapError::Overflow { address, size })?;
        if (address | size) & (PAGE_SIZE - 1) != 0 {
            return Err(MapError::Alignment(address));
        }
        let access = match (m.read, m.write) {
            (false, false) => Permissions::No,
            (true, false) => Permissions::Read,
            (false, true) => Permissions::Write,
            (true, true) => Permissions::ReadWrite,
        };
        let memory = match m.file {
            _ if access == Permissions::No => Memory::None,
            None => Memory::Unshared(Mirror::new(mirrors, share, size).ok_or(MapError::TooMany)?),
            Some(file) => {
                let (file, len) = files.share(file).map_err(|e| match e {
                    Refusal::NotAFile => MapError::File(address),
                    Refusal::TooMany => MapError::TooManyFiles(address),
                    Refusal::System(source) => MapError::System { address, source },
                })?;
                let area = map_file(&file, len, m.offset, address, size, m.write, share)?;
                Memory::Shared { area, file }
            }
        };
        Ok(Self {
            first: address,
            last,
            access,
            memory,
        })
    }

    /// The file that holds the memory.
    pub(crate) fn file(&self) -> Option<&Arc<File>> {
        match &self.memory {
            Memory::Shared { file, .. } => Some(file.file()),
            Memory::Unshared(_) | Memory::None => None,
        }
    }

    /// True if the range is not shared, but could be reached by way of its client.
    pub(crate) fn has_mirror(&self) -> bool {
        matches!(self.memory, Memory::Unshared(_))
    }

    /// True if the card may write to it, but it is not shared.
    pub(crate) fn is_withheld(&self) -> bool {
        self.has_mirror() && self.access.allow(Permissions::Write)
    }

    /// The part of the range from `addr`, at most `count` bytes, if `access` is allowed; of memory
    /// that is not shared, only if `mirrored`. `addr` must lie in the range.
    pub(crate) fn slice(
        &self,
        addr: u64,
        count: usize,
        access: Permissions,
        mirrored: bool,
    ) -> Option<VolatileSlice<'_, BS<'_, ()>>> {
        if !self.access.allow(access) {
            return None;
        }
        let (memory, lead) = match &self.memory {
            Memory::Shared { area, .. } => (&area.memory.region, area.lead),
            Memory::Unshared(mirror) if mirrored => (mirror.region()?, 0),
            Memory::Unshared(_) | Memory::None => return None,
        };
        // A range with memory has a length that fits a `usize`, and `addr` lies in it.
        let offset = (addr - self.first) as usize;
        let left = (self.last - addr) as usize + 1;
        memory.get_slice(lead + offset, count.min(left)).ok()
    }
}

fn map_file(
    file: &Open,
    file_len: u64,
    offset: u64,
    address: u64,
    size: u64,
    write: bool,
    share: &Share,
) -> Result<Area, MapError> {
    if offset & (PAGE_SIZE - 1) != 0 {
        return Err(MapError::Alignment(address));
    }
    let end = offset
        .checked_add(size)
        .filter(|&end| i64::try_from(end).is_ok())
        .ok_or(MapError::Overflow { address, size })?;
    // A page beyond the end of the file raises SIGBUS when it is touched.
    if file_len < end {
        return Err(MapError::File(address));
    }
    Area::map(file, offset..end, write, share).map_err(|e| match e {
        area::Refusal::TooMany => MapError::TooMany,
        area::Refusal::System(source) => MapError::System { address, source },
        area::Refusal::File => MapError::File(address),
    })
}
