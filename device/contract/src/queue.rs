// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queue numbering, limits and error codes.

constants! {
    /// Limits and special values of queue registers.
    CONSTANTS;
    /// Smallest ring, in descriptors.
    MIN_SIZE: u16 = 64;
    /// Largest ring, in descriptors.
    MAX_SIZE: u16 = 4096;
    /// Value of a vector register that means "no interrupt".
    NO_VECTOR: u32 = 0xffff;
    /// Shortest frame that can be sent, in bytes: an Ethernet header.
    MIN_FRAME: usize = 14;
    /// Longest frame in bytes: 64 KiB less one of payload, Ethernet header and VLAN tag.
    MAX_FRAME: usize = 65_535 + 18;
    /// Longest receive chain in bytes; bounds what one chain can cost the card.
    MAX_RX_CHAIN: usize = 1 << 20;
}

/// What a queue carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The card writes received frames into the buffers.
    Rx,
    /// The card reads frames to send from the buffers.
    Tx,
}

/// Index of the receive queue of a pair.
#[inline]
pub const fn rx_index(pair: u16) -> u16 {
    2 * pair
}

/// Index of the transmit queue of a pair.
#[inline]
pub const fn tx_index(pair: u16) -> u16 {
    2 * pair + 1
}

/// What the queue with this index carries: even receives, odd transmits.
pub const fn kind(index: u16) -> Kind {
    if index % 2 == 0 {
        Kind::Rx
    } else {
        Kind::Tx
    }
}

/// True for a size that a ring may have: a power of two within the limits.
pub const fn size_is_valid(size: u32) -> bool {
    size >= MIN_SIZE as u32 && size <= MAX_SIZE as u32 && size.is_power_of_two()
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal;)*) => {
        /// Why a queue stopped; the code that `Q_STATUS` shows in its error field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Error {
            $($(#[$doc])* $name = $code,)*
        }

        impl Error {
            /// Every error code that is defined, in order of the codes.
            pub const ALL: &'static [Error] = &[$(Error::$name,)*];

            /// The error with this code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Error::$name),)*
                    _ => None,
                }
            }

            /// Name in the data sheet.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Error::$name => $label,)*
                }
            }
        }
    };
}

errors! {
    /// `Q_SIZE` is not a power of two within the limits.
    Size = 1, "SIZE";
    /// A ring address breaks the alignment rule.
    Alignment = 2, "ALIGNMENT";
    /// Part of a ring is not in memory that the card may access.
    RingFault = 3, "RING_FAULT";
    /// Enabled before the features were committed.
    NotNegotiated = 4, "NOT_NEGOTIATED";
    /// `Q_VECTOR` names a vector that does not exist.
    Vector = 5, "VECTOR";
    /// A register of the queue was written while the queue ran.
    ConfigWhileRunning = 6, "CONFIG_WHILE_RUNNING";
    /// The avail index is more than the ring size ahead of the entry to fetch next.
    AvailIndex = 16, "AVAIL_INDEX";
    /// A descriptor index is not below the size of the ring, or of the indirect table.
    DescIndex = 17, "DESC_INDEX";
    /// A descriptor chain loops or is longer than the ring, or the indirect table.
    ChainLength = 18, "CHAIN_LENGTH";
    /// A descriptor's WRITE flag does not fit the queue.
    Direction = 19, "DIRECTION";
    /// A buffer has length zero, or the chain is too short or too long for its purpose.
    BufferLength = 20, "BUFFER_LENGTH";
    /// A buffer is not wholly in memory that the card may access in that direction.
    BufferFault = 21, "BUFFER_FAULT";
    /// The per-packet header of a transmitted frame contradicts itself, the frame or the features.
    Header = 22, "HEADER";
    /// An indirect descriptor without negotiation, nested or of a bad table length.
    Indirect = 23, "INDIRECT";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for &e in Error::ALL {
            assert_eq!(Error::from_code(e as u8), Some(e));
        }
        assert_eq!(Error::from_code(0), None);
        assert_eq!(Error::from_code(255), None);
    }

    #[test]
    fn sizes() {
        for (size, ok) in [
            (0, false),
            (32, false),
            (64, true),
            (65, false),
            (4096, true),
            (8192, false),
            (u32::MAX, false),
        ] {
            assert_eq!(size_is_valid(size), ok, "{size}");
        }
    }

    #[test]
    fn queues_alternate() {
        assert_eq!((kind(rx_index(3)), kind(tx_index(3))), (Kind::Rx, Kind::Tx));
    }
}
