// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Whether the mistakes of the driver are looked for, and what follows from them.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use vnet_card::Sanitizer;

use crate::args::Args;
use crate::error::Error;
use crate::out::Out;

/// What to do about mistakes of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// They are not looked for
    Off,
    /// They are logged, and listed at the end
    Report,
    /// The same, and the exit status is 3 if there were any
    Strict,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Off => "off",
            Mode::Report => "report",
            Mode::Strict => "strict",
        })
    }
}

/// The sanitizer of the card that these arguments ask for.
pub(crate) fn sanitizer(args: &Args) -> Option<Arc<Sanitizer>> {
    let patience = Duration::from_secs(args.sanitize_patience.into());
    match args.sanitize {
        Mode::Off => None,
        Mode::Report | Mode::Strict => Some(Arc::new(Sanitizer::new(patience, Instant::now()))),
    }
}

/// Lists what was found, and judges it.
pub(crate) fn verdict(mode: Mode, sanitizer: &Sanitizer) -> Result<(), Error> {
    let findings = sanitizer.findings();
    // Whether anybody reads it or not.
    let _ = Out.write_all(format!("{findings}\n").as_bytes());
    match (mode, findings.total()) {
        (Mode::Strict, total @ 1..) => Err(Error::Rules(total)),
        _ => Ok(()),
    }
}
