// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is written down, and where.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use vnet_capture::{Selection, WHOLE};

/// Written as options with commas between: `file=/var/lib/vnetd/nic0.pcapng,size=64M,files=8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The files are called like this one, with a number before the extension.
    pub file: PathBuf,
    /// Bytes of a file after which the next one begins.
    pub size: u64,
    /// Files that are kept.
    pub files: u32,
    /// Bytes of each frame that are kept.
    pub snaplen: u32,
    /// Which queues.
    pub queue: Selection,
}

/// Smallest size of a file.
const MIN_SIZE: u64 = 64 << 10;

/// What does not say what to write down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// No such option.
    #[error("{0:?}: file, size, files, snaplen and queue are the options of a record, each with a value behind =")]
    Option(String),
    /// The value is not what the option takes.
    #[error("{0}: {1}")]
    Value(String, String),
    /// The same twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// Nowhere to write to.
    #[error("a record needs file=PATH")]
    NoFile,
}

impl FromStr for Config {
    type Err = BadRecord;

    fn from_str(s: &str) -> Result<Self, BadRecord> {
        let mut config = Self {
            file: PathBuf::new(),
            size: 64 << 20,
            files: 8,
            snaplen: WHOLE,
            queue: Selection::default(),
        };
        let mut seen = Vec::new();
        for option in s.split(',') {
            let unknown = || BadRecord::Option(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            if seen.contains(&name) {
                return Err(BadRecord::Twice(name.to_owned()));
            }
            seen.push(name);
            let bad = |why: &str| BadRecord::Value(option.to_owned(), why.to_owned());
            let number = || {
                let number = value.parse().ok().filter(|n| *n > 0);
                number.ok_or_else(|| bad("a number from 1 on is needed"))
            };
            match name {
                "file" if value.is_empty() => return Err(bad("a path is needed")),
                "file" => config.file = value.into(),
                "size" => {
                    let size = size(value).filter(|size| *size >= MIN_SIZE);
                    config.size = size.ok_or_else(|| bad("bytes are needed, 64K at least"))?;
                }
                "files" => config.files = number()?,
                "snaplen" => config.snaplen = number()?.min(WHOLE),
                "queue" => config.queue = value.parse().map_err(|e| bad(&format!("{e}")))?,
                _ => return Err(unknown()),
            }
        }
        match config.file.file_name() {
            Some(_) => Ok(config),
            None => Err(BadRecord::NoFile),
        }
    }
}

/// A number, with K, M or G for the powers of 1024.
fn size(text: &str) -> Option<u64> {
    let unit = |letter: char| match letter {
        'K' => Some(1 << 10),
        'M' => Some(1 << 20),
        'G' => Some(1u64 << 30),
        _ => None,
    };
    match text.chars().last().and_then(unit) {
        Some(unit) => text[..text.len() - 1]
            .parse::<u64>()
            .ok()?
            .checked_mul(unit),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, size, files, ..
        } = self;
        write!(f, "file={},size={size},files={files}", file.display())?;
        if self.snaplen != WHOLE {
            write!(f, ",snaplen={}", self.snaplen)?;
        }
        if self.queue != Selection::default() {
            write!(f, ",queue={}", self.queue)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_told() {
        let config: Config = "file=/tmp/a.pcapng".parse().unwrap();
        assert_eq!((config.size, config.files), (64 << 20, 8));
        let text = "file=a,size=2097152,files=3,snaplen=96,queue=tx";
        let config: Config = "queue=tx,file=a,files=3,snaplen=96,size=2M"
            .parse()
            .unwrap();
        assert_eq!(config.to_string(), text);
        assert_eq!(text.parse(), Ok(config));
        for (bad, part) in [
            ("", "options of a record"),
            ("size=2M", "needs file"),
            ("file=", "a path"),
            ("file=/", "needs file"),
            ("file=a,size=1K", "64K at least"),
            ("file=a,size=99999999999G", "64K at least"),
            ("file=a,size=M", "64K at least"),
            ("file=a,files=0", "from 1 on"),
            ("file=a,queue=z", "tx0"),
            ("file=a,file=b", "twice"),
            ("file=a,colour=red", "options of a record"),
        ] {
            let error = bad.parse::<Config>().unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
