// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The files that memory comes from.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use rustix::fs::{fcntl_add_seals, fcntl_getfl, OFlags, SealFlags};
use rustix::process::{getrlimit, Resource};

use crate::budget::{Budget, Taken};
use crate::range::PAGE_SIZE;

/// Most files of a card at a time. A client has one for each of its memory backends, of which QEMU
/// allows 256, but any number of ranges in them.
const MAX_FILES: usize = 512;

/// Those of all cards of the process.
static FILES: Budget = Budget::new();

/// Half of the descriptors that the process may have are for the rest of it: with the usual limit of
/// 1024 a card can have all of its files.
fn most_of_all() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |n| usize::try_from(n / 2).unwrap_or(usize::MAX))
}

/// What makes two descriptors the same for a mapping: the inode, and how it was opened.
type Key = (u64, u64, OFlags);

/// The open files. The client sends a descriptor with every range; of those for one file a single
/// one stays open, for as long as a range uses it.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: HashMap<Key, Weak<Open>>,
}

/// One that is open, for as long as a range uses it.
#[derive(Debug)]
pub(crate) struct Open {
    file: Arc<File>,
    page: u64,
    _taken: Taken,
}

impl Open {
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// What a mapping of it is a multiple of, a power of two: [`PAGE_SIZE`], or its huge pages'.
    pub(crate) fn page(&self) -> u64 {
        self.page
    }
}

/// Why a file is not taken.
pub(crate) enum Refusal {
    /// It is no regular file.
    NotAFile,
    /// There are [`MAX_FILES`] already, or [`most_of_all`].
    TooMany,
    /// The system refused.
    System(io::Error),
}

impl Files {
    /// The open file to use for `file`, and its size.
    pub(crate) fn share(&mut self, file: File) -> Result<(Arc<Open>, u64), Refusal> {
        keep_size(&file);
        let meta = file.metadata().map_err(Refusal::System)?;
        if !meta.file_type().is_file() {
            return Err(Refusal::NotAFile);
        }
        let flags = fcntl_getfl(&file).map_err(|e| Refusal::System(e.into()))?;
        // An inode number is not used again while the file is open.
        let key = (meta.dev(), meta.ino(), flags & OFlags::ACCMODE);
        if let Some(shared) = self.open.get(&key).and_then(Weak::upgrade) {
            return Ok((shared, meta.len()));
        }
        if self.open.len() >= MAX_FILES {
            self.open.retain(|_, file| file.strong_count() != 0);
        }
        if self.open.len() >= MAX_FILES {
            return Err(Refusal::TooMany);
        }
        let file = Arc::new(Open {
            file: Arc::new(file),
            page: page(meta.blksize()),
            _taken: Budget::take(&FILES, 1, most_of_all()).ok_or(Refusal::TooMany)?,
        });
        self.open.insert(key, Arc::downgrade(&file));
        Ok((file, meta.len()))
    }
}

/// The block of huge pages is such a page. That of other files may be large, too, or anything, and
/// a mapping of whole ones does no harm there.
fn page(block: u64) -> u64 {
    match block.is_power_of_two() {
        true => block.max(PAGE_SIZE),
        false => PAGE_SIZE,
    }
}

/// Makes the file impossible to shorten, if it can be: to touch a page that is cut off is fatal.
fn keep_size(file: &File) {
    // Fails if it is no memfd, or one without seals. Then its owner is trusted.
    let _ = fcntl_add_seals(file, SealFlags::SHRINK);
}
