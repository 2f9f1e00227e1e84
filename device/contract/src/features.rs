// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Feature bits and their negotiation.
//!
//! The card offers a set in `DEVICE_FEATURES`; the driver writes the subset that it will use to
//! `DRIVER_FEATURES` and commits it. [`check`] is the rule that the card applies at that moment.

/// One feature bit: what docs/datasheet.md lists.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Bit number, 0…63.
    pub bit: u8,
    /// Features that must be accepted too if this one is (a mask).
    pub needs: u64,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $(needs $($need:ident)|+)?;)*) => {
        $($(#[$doc])* pub const $name: u64 = 1 << $bit;)*

        /// Every feature that is defined, in bit order.
        pub const FEATURES: &[Feature] = &[
            $(Feature { name: stringify!($name), bit: $bit, needs: 0 $($(| $need)+)? },)*
        ];
    };
}

features! {
    /// Transmit: frames may have a partial checksum (`NEEDS_CSUM`); the card completes it.
    TX_CSUM = 0;
    /// Receive: frames may carry a partial checksum or a verdict (`NEEDS_CSUM`, `DATA_VALID`).
    RX_CSUM = 1;
    /// Transmit: TCP over IPv4 segmentation.
    TX_TSO4 = 2 needs TX_CSUM;
    /// Transmit: TCP over IPv6 segmentation.
    TX_TSO6 = 3 needs TX_CSUM;
    /// Transmit: segmentation of TCP frames with ECN's CWR set.
    TX_ECN = 4 needs TX_CSUM;
    /// Transmit: UDP segmentation.
    TX_USO = 5 needs TX_CSUM;
    /// Receive: TCP over IPv4 frames larger than the MTU, with segment size.
    RX_TSO4 = 6 needs RX_CSUM;
    /// Receive: TCP over IPv6 frames larger than the MTU, with segment size.
    RX_TSO6 = 7 needs RX_CSUM;
    /// Receive: large TCP frames may have ECN's CWR set.
    RX_ECN = 8 needs RX_CSUM;
    /// Receive: large UDP frames with segment size.
    RX_USO = 9 needs RX_CSUM;
    /// Receive: a frame may span several buffers, counted in `num_buffers`.
    MRG_RXBUF = 10;
    /// Descriptor chains may sit in an indirect table.
    INDIRECT_DESC = 11;
    /// Receive side scaling: hash, key and indirection table choose the queue pair.
    RSS = 12;
    /// The per-packet header grows to 20 bytes and carries hash value and type.
    HASH_REPORT = 13 needs RSS;
    /// Interrupt moderation by time and frame count.
    MODERATION = 14;
    /// Table of unicast and multicast addresses to receive.
    MAC_FILTER = 15;
    /// Bitmap of VLAN ids to receive.
    VLAN_FILTER = 16;
    /// VLAN tag insertion and removal.
    VLAN_OFFLOAD = 17;
    /// Receive: headers and payload in separate buffers.
    HDR_SPLIT = 18 needs MRG_RXBUF;
    /// Hardware clock and per-packet time stamps.
    TIMESTAMP = 19;
    /// Transmit rate limits per queue.
    SHAPER = 20;
    /// Per-queue 64-bit counters in registers.
    QUEUE_STATS = 21;
}

/// Why the card refuses a feature set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Bits that the card did not offer.
    NotOffered(u64),
    /// Bits that other accepted bits depend on, but that were not accepted.
    Missing(u64),
}

/// Checks the set that a driver accepted against the set that the card offers.
pub const fn check(offered: u64, accepted: u64) -> Result<(), Refusal> {
    let unknown = accepted & !offered;
    if unknown != 0 {
        return Err(Refusal::NotOffered(unknown));
    }
    let mut missing = 0;
    let mut i = 0;
    while i < FEATURES.len() {
        let f = FEATURES[i];
        if accepted & (1 << f.bit) != 0 {
            missing |= f.needs & !accepted;
        }
        i += 1;
    }
    if missing != 0 {
        return Err(Refusal::Missing(missing));
    }
    Ok(())
}

/// What is left of a set without the features that need others which are not in it: what a card
/// can offer.
#[must_use]
pub const fn complete(set: u64) -> u64 {
    let mut set = set;
    // What a feature needs may itself need something.
    while let Some(lacking) = first_lacking(set) {
        set &= !(1 << lacking);
    }
    set
}

/// The first feature in the set that needs one which is not.
const fn first_lacking(set: u64) -> Option<u8> {
    let mut i = 0;
    while i < FEATURES.len() {
        let f = FEATURES[i];
        if set & (1 << f.bit) != 0 && f.needs & !set != 0 {
            return Some(f.bit);
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_listed_once_and_in_order() {
        for pair in FEATURES.windows(2) {
            assert!(
                pair[0].bit < pair[1].bit,
                "{} / {}",
                pair[0].name,
                pair[1].name
            );
        }
    }

    #[test]
    fn a_set_needs_an_offer_and_its_dependencies() {
        assert_eq!(check(TX_CSUM | MRG_RXBUF, MRG_RXBUF), Ok(()));
        assert_eq!(check(MRG_RXBUF, RSS), Err(Refusal::NotOffered(RSS)));
        assert_eq!(
            check(u64::MAX, TX_TSO4 | TX_USO),
            Err(Refusal::Missing(TX_CSUM))
        );
        assert_eq!(check(u64::MAX, 1 << 63), Ok(()));
    }

    #[test]
    fn what_is_left_of_a_set_can_be_accepted() {
        assert_eq!(complete(u64::MAX), u64::MAX);
        assert_eq!(complete(!RSS), !(RSS | HASH_REPORT));
        assert_eq!(complete(RX_TSO4 | HDR_SPLIT | MODERATION), MODERATION);
        for f in FEATURES {
            let left = complete(!(1 << f.bit));
            assert_eq!(check(left, left), Ok(()), "{}", f.name);
            assert_eq!(left & (1 << f.bit), 0, "{}", f.name);
        }
    }
}
