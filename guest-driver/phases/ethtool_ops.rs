// SPDX-License-Identifier: GPL-2.0

//! What `ethtool` is told: the other half of phase 6. Process context, one call at a time.

use core::fmt::{
    self,
    Write, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use netdev::{
    ethtool::{
        Names,
        Values, //
    },
    prelude::*,
};

use crate::{
    counters::Counters,
    Nic, //
};

/// Which debug messages are wanted: `NETIF_MSG_*`.
pub(crate) struct MessageLevel(Atomic<u32>);

impl MessageLevel {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn wants(&self, message: u32) -> bool {
        self.0.load(Relaxed) & message != 0
    }
}

#[vtable]
impl ethtool::Operations for Nic {
    fn firmware_version(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_str("tour")
    }

    fn message_level(&self) -> u32 {
        self.message_level.0.load(Relaxed)
    }

    fn set_message_level(&self, level: u32) {
        self.message_level.0.store(level, Relaxed);
    }

    fn stats_names(&self, names: &mut Names<'_>) {
        Counters::names(names);
    }

    fn stats_values(&self, _dev: &NetDevice<Self>, values: &mut Values<'_>) {
        self.counters.values(values);
    }
}
