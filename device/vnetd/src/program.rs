// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The program that workers run.
//!
//! It is kept open, so that a file which is put in its place is run when that is asked for, and not
//! before. One that is being run cannot be written either, and there is always somebody who runs it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::{env, io};

/// A program, and how it is run.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    file: File,
    /// Runs the program if the kernel does not, such as a dynamic linker that was named; with its
    /// arguments.
    runner: Vec<OsString>,
    arguments: Vec<OsString>,
}

impl Program {
    /// What this process runs, to be run as a worker.
    pub(crate) fn own() -> io::Result<Self> {
        let own: Vec<_> = env::args_os().collect();
        let line = fs::read("/proc/self/cmdline")?;
        let words = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
        let mut runner: Vec<_> = words.map(OsString::from).collect();
        // Each word ends in a zero. What is before our own was told to somebody else.
        runner.pop();
        runner.truncate(runner.len().saturating_sub(own.len()));
        let mut words = own.into_iter();
        let named = words.next().unwrap_or_default();
        let (path, file) = match runner.is_empty() {
            // Whatever is at the path by now.
            true => (env::current_exe()?, File::open("/proc/self/exe")?),
            false => (PathBuf::from(&named), File::open(&named)?),
        };
        Ok(Self {
            path,
            file,
            runner,
            arguments: words.chain(["--worker".into()]).collect(),
        })
    }

    /// What is at a path, without arguments.
    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            file: File::open(&path)?,
            path,
            runner: Vec::new(),
            arguments: Vec::new(),
        })
    }

    /// What is at the path now.
    pub(crate) fn newest(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            file: File::open(&self.path)?,
            runner: self.runner.clone(),
            arguments: self.arguments.clone(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a worker with its end of the line as its standard input.
    pub(crate) fn start(&self, line: OwnedFd) -> io::Result<Child> {
        let file = self.file.as_raw_fd();
        let mut command = match self.runner.split_first() {
            None => Command::new(format!("/proc/self/fd/{file}")),
            Some((runner, arguments)) => {
                let mut command = Command::new(runner);
                // It opens the file when ours are closed.
                let file = format!("/proc/{}/fd/{file}", process::id());
                command.args(arguments).arg(file);
                command
            }
        };
        command.args(&self.arguments).stdin(line).spawn()
    }
}
