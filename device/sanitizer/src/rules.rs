// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The rules, each with its name and its sentence.
//!
//! `docs/rules.md` has a chapter for each: `tests/rules.rs` compares the two.

use std::fmt;

/// How bad it is to break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Data can be lost or damaged, or the queue stops or hangs.
    Error,
    /// It works with this card, today.
    Warning,
}

impl Severity {
    /// Name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

macro_rules! rules {
    ($($rule:ident = $id:literal, $severity:ident, $sentence:literal;)*) => {
        /// A rule of the contract that a driver can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $sentence] $rule,)*
        }

        impl Rule {
            /// All rules, in order of their numbers.
            pub const ALL: &'static [Rule] = &[$(Rule::$rule,)*];

            /// Name of the rule, and of its chapter in `docs/rules.md`.
            pub const fn id(self) -> &'static str {
                match self { $(Rule::$rule => $id,)* }
            }

            /// The rule of this name.
            pub fn by_id(id: &str) -> Option<Rule> {
                Self::ALL.iter().copied().find(|rule| rule.id() == id)
            }

            /// The rule in one sentence, as it is broken.
            pub const fn sentence(self) -> &'static str {
                match self { $(Rule::$rule => $sentence,)* }
            }

            /// How bad it is to break it.
            pub const fn severity(self) -> Severity {
                match self { $(Rule::$rule => Severity::$severity,)* }
            }
        }
    };
}

rules! {
    RegisterWidth = "register-width", Error,
        "A register was accessed with another width or alignment than 4 or 8 bytes.";
    RegisterUnknown = "register-unknown", Error,
        "There is no register at this offset, or its feature or queue is not there.";
    RegisterReadOnly = "register-read-only", Error,
        "A register that can only be read was written.";
    RegisterValue = "register-value", Error,
        "A register was written with a value, or at a time, that it does not take.";
    RegisterReserved = "register-reserved", Warning,
        "Reserved bits of a register were written as ones.";
    FeaturesRefused = "features-refused", Error,
        "A set of features was committed that the card does not offer as it is.";
    QueueSetup = "queue-setup", Error,
        "A queue was started that is not programmed as it must be.";
    QueueRunning = "queue-running", Error,
        "A queue was programmed while it ran.";
    MsixDisabled = "msix-disabled", Error,
        "A queue with a vector was started before MSI-X was enabled.";
    AvailIndex = "avail-index", Error,
        "The avail index is further ahead than the ring is long.";
    ChainIndex = "chain-index", Error,
        "An avail entry or a descriptor names a descriptor that does not exist.";
    ChainLoop = "chain-loop", Error,
        "A chain of descriptors does not end.";
    ChainDirection = "chain-direction", Error,
        "A buffer is for writing on a transmit queue, or for reading on a receive queue.";
    ChainLength = "chain-length", Error,
        "A buffer or a chain is empty, or too short or too long for its purpose.";
    ChainIndirect = "chain-indirect", Error,
        "An indirect descriptor is not allowed here, or its table is wrong.";
    ChainReused = "chain-reused", Error,
        "A chain was made available that the card owns already.";
    ChainChanged = "chain-changed", Error,
        "A descriptor was changed while the card owned it.";
    BufferOverlap = "buffer-overlap", Error,
        "A receive buffer that the card owns shares memory with another buffer that it owns.";
    BufferChanged = "buffer-changed", Error,
        "A buffer was changed while the card owned it.";
    DmaUnreachable = "dma-unreachable", Error,
        "A ring or a buffer lies in memory that the card was not given, or not for this.";
    DmaUnmapped = "dma-unmapped", Error,
        "A ring or a buffer lies in memory that was taken from the card and not given back.";
    HeaderFlags = "header-flags", Error,
        "The per-packet header uses flags or types that are not defined or were not accepted.";
    HeaderChecksum = "header-checksum", Error,
        "The checksum of a frame to transmit lies outside of it, or not where its protocol has it.";
    HeaderSegmentation = "header-segmentation", Error,
        "The segmentation of a frame to transmit does not fit the frame or its protocol.";
    DoorbellEarly = "doorbell-early", Error,
        "The doorbell was rung for entries that are not in the avail ring yet.";
    DoorbellMissing = "doorbell-missing", Error,
        "The card asked for a doorbell and entries came, but no doorbell.";
    DoorbellReset = "doorbell-reset", Error,
        "The doorbell of a queue was rung that was not started since the card was reset.";
    UsedIgnored = "used-ignored", Error,
        "The card interrupted for used entries, and nobody looked at them.";
    RearmRace = "rearm-race", Error,
        "An interrupt was asked for an entry that was there already, and nobody looked again.";
    RearmMissing = "rearm-missing", Error,
        "Received frames wait, and no interrupt was asked for them.";
    TxUnreclaimed = "tx-unreclaimed", Error,
        "Transmitted frames are not taken back, and no interrupt was asked for them.";
    VectorMasked = "vector-masked", Error,
        "An interrupt is due, but its vector stays masked or was never set up.";
    InterruptStorm = "interrupt-storm", Warning,
        "Interrupt after interrupt is asked for, and nothing is done about what they are for.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
