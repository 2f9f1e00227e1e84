// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is made of the definition of the command line: manual pages, and completion for shells.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;

/// Writes a manual page for the program and for each of its commands.
pub(crate) fn man(directory: &Path) -> Result<(), Error> {
    clap_mangen::generate_to(Cli::command(), directory).map_err(|source| Error::File {
        path: directory.to_owned(),
        source,
    })
}

/// Prints a script for this shell.
pub(crate) fn completion(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vnetd", &mut script);
    match io::stdout().write_all(&script) {
        // Whoever reads it has had enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::Output),
    }
}
