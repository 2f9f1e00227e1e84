// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Features: what the card offers, and what its driver accepted.

use vnet_backend::{Capabilities, Offloads};
use vnet_contract::features::{
    self, HASH_REPORT, HDR_SPLIT, INDIRECT_DESC, MAC_FILTER, MODERATION, MRG_RXBUF, QUEUE_STATS,
    RSS, RX_CSUM, RX_ECN, RX_TSO4, RX_TSO6, RX_USO, TX_CSUM, TX_ECN, TX_TSO4, TX_TSO6, TX_USO,
};
use vnet_contract::regs::RX_OFFLOADS_MASK;
use vnet_state::records::{Fields, Writer};

/// What every card does itself. Of a transmitted frame it does what the backend cannot.
const OWN: u64 = TX_CSUM
    | TX_TSO4
    | TX_TSO6
    | TX_ECN
    | TX_USO
    | MRG_RXBUF
    | HDR_SPLIT
    | INDIRECT_DESC
    | RSS
    | HASH_REPORT
    | MODERATION
    | MAC_FILTER
    | QUEUE_STATS;

/// All features that a card can have.
pub const IMPLEMENTED: u64 = OWN | RX_CSUM | RX_TSO4 | RX_TSO6 | RX_ECN | RX_USO;

/// What a card with this backend offers: what the card does itself, and what the backend can
/// deliver.
pub(crate) fn offer(backend: &Capabilities) -> u64 {
    let receive = backend.receive;
    let delivered = [
        (receive.checksum, RX_CSUM),
        (receive.tso4, RX_TSO4),
        (receive.tso6, RX_TSO6),
        (receive.ecn, RX_ECN),
        (receive.uso, RX_USO),
    ];
    delivered
        .into_iter()
        .filter(|(able, _)| *able)
        .fold(OWN, |set, (_, bit)| set | bit)
}

/// The offload metadata that received frames may carry while these features are in use.
pub(crate) fn receive_offloads(accepted: u64) -> Offloads {
    Offloads {
        checksum: accepted & RX_CSUM != 0,
        tso4: accepted & RX_TSO4 != 0,
        tso6: accepted & RX_TSO6 != 0,
        ecn: accepted & RX_ECN != 0,
        uso: accepted & RX_USO != 0,
    }
}

/// The state of negotiation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiation {
    offered: u64,
    written: u64,
    committed: bool,
    receive: u64,
}

impl Negotiation {
    pub(crate) fn new(offered: u64) -> Self {
        Self {
            offered,
            written: 0,
            committed: false,
            receive: 0,
        }
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.u64(self.offered)
            .u64(self.written)
            .bool(self.committed)
            .u64(self.receive);
    }

    /// What another process saved.
    pub(crate) fn load(from: &mut Fields<'_>) -> Self {
        Self {
            offered: from.u64(),
            written: from.u64(),
            committed: from.bool(),
            receive: from.u64(),
        }
    }

    pub(crate) fn offered(&self) -> u64 {
        self.offered
    }

    /// What stands in `DRIVER_FEATURES`.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes half of `DRIVER_FEATURES`; false if the set is locked.
    #[must_use]
    pub(crate) fn write(&mut self, half: Half, value: u32) -> bool {
        if self.committed {
            return false;
        }
        let value = u64::from(value);
        self.written = match half {
            Half::Low => self.written & !0xffff_ffff | value,
            Half::High => self.written & 0xffff_ffff | value << 32,
        };
        true
    }

    /// Checks and locks the set. Returns what is accepted now, if this made the difference.
    pub(crate) fn commit(&mut self) -> Option<u64> {
        if self.committed || features::check(self.offered, self.written).is_err() {
            return None;
        }
        self.committed = true;
        self.receive = self.written & u64::from(RX_OFFLOADS_MASK);
        self.accepted()
    }

    /// The set that was accepted.
    pub(crate) fn accepted(&self) -> Option<u64> {
        self.committed.then_some(self.written)
    }

    /// The receive offloads in use: those that were accepted, until the driver chooses.
    pub(crate) fn receive(&self) -> u64 {
        self.receive
    }

    /// The receive offloads that were accepted but are not in use.
    pub(crate) fn withheld(&self) -> u64 {
        self.accepted().unwrap_or(0) & u64::from(RX_OFFLOADS_MASK) & !self.receive
    }

    /// Chooses the receive offloads to use; false if they could not have been accepted.
    #[must_use]
    pub(crate) fn set_receive(&mut self, value: u32) -> bool {
        let accepted = self.accepted().unwrap_or(0) & u64::from(RX_OFFLOADS_MASK);
        let legal = features::check(accepted, value.into()).is_ok();
        if legal {
            self.receive = value.into();
        }
        legal
    }
}

/// Half of a 64-bit value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Half {
    Low,
    High,
}

impl Half {
    pub(crate) fn of(self, value: u64) -> u32 {
        match self {
            Half::Low => value as u32,
            Half::High => (value >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_can_be_corrected_until_it_is_accepted() {
        let mut n = Negotiation::new(1 << 40 | TX_CSUM);
        assert!(n.write(Half::Low, RX_CSUM as u32));
        assert!(n.write(Half::High, 1 << 8));
        assert_eq!((n.commit(), n.accepted()), (None, None));
        assert!(n.write(Half::Low, TX_CSUM as u32));
        assert_eq!(n.commit(), Some(1 << 40 | TX_CSUM));
        assert!(!n.write(Half::Low, 0));
        assert_eq!((n.commit(), n.written()), (None, 1 << 40 | TX_CSUM));
    }

    #[test]
    fn receive_offloads_are_chosen_from_what_was_accepted() {
        let large = RX_TSO4 | RX_TSO6;
        let mut n = Negotiation::new(u64::MAX);
        assert!(n.set_receive(0) && !n.set_receive(RX_CSUM as u32));
        assert!(n.write(Half::Low, (TX_CSUM | RX_CSUM | large) as u32));
        n.commit();
        assert_eq!((n.receive(), n.withheld()), (RX_CSUM | large, 0));
        assert!(n.set_receive((RX_CSUM | RX_TSO4) as u32));
        assert_eq!((n.receive(), n.withheld()), (RX_CSUM | RX_TSO4, RX_TSO6));
        for illegal in [RX_TSO4, RX_CSUM | RX_USO, TX_CSUM, 1 << 31] {
            assert!(!n.set_receive(illegal as u32), "{illegal:#x}");
        }
        assert_eq!(n.receive(), RX_CSUM | RX_TSO4);
        assert!(n.set_receive(0));
        assert_eq!((n.receive(), n.withheld()), (0, RX_CSUM | large));
    }

    #[test]
    fn the_offer_is_what_the_card_does_and_the_backend_delivers() {
        let plain = Capabilities {
            receive: Offloads::default(),
            max_queues: 1,
            max_mtu: 1500,
        };
        let able = Capabilities {
            receive: Offloads::ALL,
            ..plain
        };
        let checksum = Capabilities {
            receive: Offloads {
                checksum: true,
                ..plain.receive
            },
            ..plain
        };
        let rx = RX_CSUM | RX_TSO4 | RX_TSO6 | RX_ECN | RX_USO;
        let tx = TX_CSUM | TX_TSO4 | TX_TSO6 | TX_ECN | TX_USO;
        assert_eq!(offer(&plain) & (rx | tx), tx);
        assert_eq!(offer(&checksum), offer(&plain) | RX_CSUM);
        assert_eq!(offer(&able), offer(&plain) | rx);
        // Each bit that is accepted turns on one kind of metadata, and no other bit does.
        assert_eq!(receive_offloads(rx), Offloads::ALL);
        assert_eq!(receive_offloads(!rx), Offloads::default());
        assert!(receive_offloads(RX_CSUM).checksum);
        for (bit, gso) in [
            (
                RX_TSO4,
                Offloads {
                    tso4: true,
                    ..Offloads::default()
                },
            ),
            (
                RX_TSO6,
                Offloads {
                    tso6: true,
                    ..Offloads::default()
                },
            ),
            (
                RX_ECN,
                Offloads {
                    ecn: true,
                    ..Offloads::default()
                },
            ),
            (
                RX_USO,
                Offloads {
                    uso: true,
                    ..Offloads::default()
                },
            ),
        ] {
            assert_eq!(receive_offloads(bit), gso);
        }
    }
}
