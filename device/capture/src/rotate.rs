// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Where blocks go: to a file, or to one after the other.

use std::ffi::OsString;
use std::fs::{read_dir, remove_file, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{access, Access};

/// Files one after the other, of which the last ones are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// What they are called, but for the number before the extension.
    pub file: PathBuf,
    /// Bytes after which the next one begins.
    pub size: u64,
    /// How many are kept.
    pub files: u32,
}

/// Digits of a number, at least.
const DIGITS: usize = 6;

impl Rotation {
    /// The file with this number.
    fn path(&self, number: u64) -> PathBuf {
        let mut name = self.stem();
        name.push(format!("-{number:0DIGITS$}"));
        if let Some(extension) = self.file.extension() {
            name.push(".");
            name.push(extension);
        }
        self.file.with_file_name(name)
    }

    fn stem(&self) -> OsString {
        self.file.file_stem().unwrap_or_default().to_owned()
    }

    fn directory(&self) -> &Path {
        match self.file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Says why no file can be made, as far as that shows before there is one.
    pub fn check(&self) -> io::Result<()> {
        access(self.directory(), Access::WRITE_OK | Access::EXEC_OK)?;
        self.numbers().map(drop)
    }

    /// The numbers of the files that are there, in order.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in read_dir(self.directory())? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let number = name
                .rsplit_once('-')
                .and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
            if let Some(number) = number {
                if self.path(number).file_name() == Some(name.as_ref()) {
                    numbers.push(number);
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Begins the next file, and removes those that are too many with it. Numbers go on from the highest that
    /// there is, so that nothing of an earlier run is written over.
    pub(crate) fn next(&self) -> io::Result<File> {
        let mut numbers = self.numbers()?;
        let number = numbers.last().map_or(0, |last| last.saturating_add(1));
        let file = File::options()
            .write(true)
            .create_new(true)
            // Frames are nobody else's: those who may read them are given the file.
            .mode(0o600)
            .open(self.path(number))?;
        numbers.push(number);
        let most = usize::try_from(self.files).unwrap_or(usize::MAX).max(1);
        let surplus = numbers.len().saturating_sub(most);
        for number in &numbers[..surplus] {
            // One that somebody else has removed is none too many.
            let _ = remove_file(self.path(*number));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_last_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let rotation = Rotation {
            file: path("a.pcapng"),
            size: 1,
            files: 2,
        };
        // What only looks similar stays.
        for other in ["a.pcapng", "a-1.pcapng", "a-000001.txt", "b-000009.pcapng"] {
            File::create(path(other)).unwrap();
        }
        for _ in 0..3 {
            rotation.next().unwrap();
        }
        assert_eq!(rotation.numbers().unwrap(), [1, 2]);
        let mode = path("a-000002.pcapng")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another run goes on.
        rotation.next().unwrap();
        assert_eq!(rotation.numbers().unwrap(), [2, 3]);
        assert!(path("a-000003.pcapng").exists() && path("a-1.pcapng").exists());
        assert!(path("b-000009.pcapng").exists() && path("a.pcapng").exists());
        let nowhere = Rotation {
            file: path("none/a"),
            ..rotation
        };
        assert!(nowhere.check().is_err() && nowhere.next().is_err());
    }
}
