// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The file of faults that the card is to have.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{info, warn};
use vnet_faults::{Faults, ParseError, Plan};

/// Why there are no faults. One line for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("faults {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("faults {}: {source}", path.display())]
    Parse { path: PathBuf, source: ParseError },
}

/// The file, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct FaultFile {
    path: PathBuf,
    pub(crate) faults: Arc<Faults>,
}

impl FaultFile {
    /// Reads the file and puts its plan into force.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let file = Self {
            path,
            faults: Arc::default(),
        };
        file.faults.load(&file.read()?);
        Ok(file)
    }

    /// The same for a card that was there before: it goes on without faults if there is something
    /// wrong with the file by now.
    pub(crate) fn inherit(path: PathBuf) -> Self {
        let file = Self {
            path,
            faults: Arc::default(),
        };
        match file.read() {
            Ok(plan) => file.faults.load(&plan),
            Err(e) => warn!("{e}; going on without"),
        }
        file
    }

    fn read(&self) -> Result<Plan, Error> {
        let path = || self.path.clone();
        let text = fs::read_to_string(&self.path).map_err(|source| Error::Io {
            path: path(),
            source,
        })?;
        text.parse().map_err(|source| Error::Parse {
            path: path(),
            source,
        })
    }

    /// Reads the file again. What was in force stays so if that fails.
    pub(crate) fn reload(&self) {
        match self.read() {
            Ok(plan) => {
                self.report();
                self.faults.load(&plan);
                info!("faults: read again");
            }
            Err(e) => warn!("{e}; what was read before stays in force"),
        }
    }

    /// Says what the plan in force came to.
    pub(crate) fn report(&self) {
        for line in self.faults.report() {
            info!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faults");
        let missing = FaultFile::open(path.clone()).unwrap_err().to_string();
        assert!(
            missing.starts_with(&format!("faults {}: ", path.display())),
            "{missing}"
        );
        fs::write(&path, "stall").unwrap();
        let file = FaultFile::open(path.clone()).unwrap();
        assert_eq!(
            file.faults.report(),
            ["fault in line 1, stall: 0 of 0 events"]
        );
        fs::write(&path, "\nstall every=x").unwrap();
        file.reload();
        assert_eq!(file.faults.report().len(), 1);
        let bad = FaultFile::open(path.clone()).unwrap_err().to_string();
        assert!(
            bad.ends_with("line 2, every: a number above 0 is needed"),
            "{bad}"
        );
        fs::write(&path, "").unwrap();
        file.reload();
        assert!(file.faults.report().is_empty());
        fs::write(&path, "stall").unwrap();
        assert_eq!(FaultFile::inherit(path.clone()).faults.report().len(), 1);
        fs::write(&path, "stal").unwrap();
        assert!(FaultFile::inherit(path).faults.report().is_empty());
    }
}
