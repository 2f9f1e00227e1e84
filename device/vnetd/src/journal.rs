// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Standard error, if it leads to the journal of systemd: each line says how grave it is (sd-daemon(3)),
//! and the journal says when it came.

use std::io::{self, Write};

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::out::Out;

/// True if standard error is a stream of the journal, which says so by the file's device and inode.
pub(crate) fn is_there() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stat = fstat(io::stderr()).ok();
    stat.is_some_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes records to the journal.
#[derive(Debug)]
pub(crate) struct Journal;

/// Writes one record.
#[derive(Debug)]
pub(crate) struct Record(Level);

impl MakeWriter<'_> for Journal {
    type Writer = Record;

    fn make_writer(&self) -> Record {
        Record(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Record {
        Record(*meta.level())
    }
}

impl Record {
    pub(crate) fn new(level: Level) -> Self {
        Self(level)
    }

    /// How grave it is, in the numbers of syslog(3).
    fn priority(&self) -> u8 {
        match self.0 {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }
}

impl Write for Record {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut line = format!("<{}>", self.priority()).into_bytes();
        line.extend_from_slice(text);
        Out.write_all(&line)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
