// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A lock on a path, for as long as it takes to put a socket there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{flock, open, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// How often, and how far apart, to try for the lock. Its holder needs it for microseconds.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A file beside the path, named after it, that its holder has locked. It goes when this is
/// dropped; one that a killed server left is no longer locked and does no harm.
///
/// Not the directory itself: others may use it, and may lock it for longer.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits a little for the lock.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let path = PathBuf::from(name);
        for _ in 0..TRIES {
            if let Some(_file) = attempt(&path)? {
                return Ok(Self { _file, path });
            }
            sleep(PAUSE);
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{} stays locked", path.display()),
        ))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that it is ours.
        let _ = fs::remove_file(&self.path);
    }
}

/// The file, locked; `None` if somebody else has it.
fn attempt(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::RUSR | Mode::WUSR)?);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    // The former holder may have removed it after it was opened here.
    let (ours, found) = (file.metadata()?, fs::symlink_metadata(path));
    let same = found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()));
    Ok(same.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn one_holder_at_a_time_and_no_file_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let lock = Lock::take(&path).unwrap();
                        assert_eq!(holders.fetch_add(1, SeqCst), 0);
                        sleep(Duration::from_micros(200));
                        holders.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_on_the_directory_or_a_file_left_behind_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let directory = File::open(dir.path()).unwrap();
        flock(&directory, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::write(dir.path().join("s.lock"), "").unwrap();
        Lock::take(&path).unwrap();
    }
}
