// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What can go wrong.

use std::time::Duration;

/// Where a kind of fault can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In queues of both directions.
    Queue,
    /// In receive queues.
    Rx,
    /// In the card as a whole.
    Card,
}

/// How long something takes: what it is unless the plan says so, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    pub(crate) default: Duration,
    pub(crate) most: Duration,
}

const fn delay(default: Duration, most: Duration) -> Option<Delay> {
    Some(Delay { default, most })
}

const MINUTE: Duration = Duration::from_secs(60);
/// The virtual machine stands still while a register is accessed, and its patience is 5 s.
const SLOWEST_ACCESS: Duration = Duration::from_millis(100);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $place:ident, $delay:expr;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// What a plan calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            pub(crate) fn place(self) -> Place {
                match self {
                    $(Self::$kind => Place::$place,)*
                }
            }

            pub(crate) fn delay(self) -> Option<Delay> {
                match self {
                    $(Self::$kind => $delay,)*
                }
            }
        }
    };
}

kinds! {
    /// An interrupt is not raised.
    LostInterrupt, "lost-interrupt", Queue, None;
    /// An interrupt is raised late.
    LateInterrupt, "late-interrupt", Queue, delay(Duration::from_millis(5), MINUTE);
    /// An interrupt is raised once more a little later.
    DuplicateInterrupt, "duplicate-interrupt", Queue, delay(Duration::from_micros(200), MINUTE);
    /// An interrupt is raised for nothing.
    SpuriousInterrupt, "spurious-interrupt", Queue, None;

    /// A used entry names a descriptor that does not exist.
    UsedIdRange, "used-id-range", Queue, None;
    /// A used entry has the id of the one before.
    UsedIdRepeated, "used-id-repeated", Queue, None;
    /// A used entry changes places with the next one.
    UsedOrder, "used-order", Queue, None;
    /// A used entry tells of more bytes than there is room for.
    UsedLenLong, "used-len-long", Queue, None;
    /// A used entry tells of fewer bytes than there are.
    UsedLenShort, "used-len-short", Rx, None;
    /// A used entry tells of no bytes.
    UsedLenZero, "used-len-zero", Rx, None;
    /// The used index jumps.
    UsedIndex, "used-index", Queue, None;

    /// A queue does nothing for a while.
    Stall, "stall", Queue, delay(Duration::from_millis(500), MINUTE);
    /// A queue fetches nothing any more until it is started anew, or the plan ends.
    StopFetching, "stop-fetching", Queue, None;
    /// A queue cannot reach guest memory, and stops with an error.
    DmaError, "dma-error", Queue, None;

    /// A frame is lost.
    FrameLost, "frame-lost", Queue, None;
    /// A bit of a frame changes.
    FrameCorrupt, "frame-corrupt", Queue, None;
    /// A frame loses its end.
    FrameTruncated, "frame-truncated", Queue, None;
    /// A frame gets longer than the MTU allows.
    FrameOversized, "frame-oversized", Queue, None;
    /// A frame comes twice.
    FrameDuplicated, "frame-duplicated", Queue, None;
    /// A frame comes after the next one.
    FrameReordered, "frame-reordered", Queue, None;
    /// The verdict about a checksum is wrong, or names bytes that do not exist.
    BadChecksum, "bad-checksum", Rx, None;
    /// A frame is said to be made of segments, of impossible size or kind.
    BadSegments, "bad-segments", Rx, None;

    /// The link is down.
    LinkDown, "link-down", Card, None;
    /// A register reads as all ones.
    RegisterOnes, "register-ones", Card, None;
    /// A bit of a register changes on the way to the driver.
    RegisterFlip, "register-flip", Card, None;
    /// Config space reads as all ones.
    ConfigOnes, "config-ones", Card, None;
    /// The card resets itself.
    Reset, "reset", Card, None;
    /// Access to a register takes long.
    SlowMmio, "slow-mmio", Card, delay(Duration::from_millis(1), SLOWEST_ACCESS);
}

impl Kind {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(time: Duration) -> String {
        match time.as_millis() {
            0 => format!("{} us", time.as_micros()),
            ms => format!("{ms} ms"),
        }
    }

    #[test]
    fn the_document_has_the_delays() {
        let document = include_str!("../../../docs/faults.md");
        for kind in Kind::ALL {
            let start = format!("| `{}` |", kind.name());
            let row = document.lines().find(|line| line.starts_with(&start));
            let cell = row.unwrap().trim_end_matches('|').rsplit('|').next();
            let delay = match kind.delay() {
                None => String::new(),
                Some(Delay { default, most }) if most == MINUTE => text(default),
                Some(Delay { default, most }) => {
                    format!("{}, at most {}", text(default), text(most))
                }
            };
            assert_eq!(cell.unwrap().trim(), delay, "{}", kind.name());
        }
    }
}
