// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which offload metadata a frame may carry.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Checksum, GsoKind, Meta};

/// Offload metadata that one side can take from the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// [`Checksum::Partial`] and [`Checksum::Valid`].
    pub checksum: bool,
    /// [`GsoKind::TcpV4`].
    pub tso4: bool,
    /// [`GsoKind::TcpV6`].
    pub tso6: bool,
    /// TCP segmentation with [`Gso::ecn`](crate::Gso::ecn).
    pub ecn: bool,
    /// [`GsoKind::Udp`].
    pub uso: bool,
}

impl Offloads {
    /// Everything.
    pub const ALL: Self = Self {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
        uso: true,
    };

    /// True if a frame with this metadata can be taken as it is.
    pub fn cover(&self, meta: &Meta) -> bool {
        let checksum = self.checksum || meta.checksum == Checksum::Unverified;
        let segments = match meta.gso {
            None => true,
            Some(gso) => {
                let kind = match gso.kind {
                    GsoKind::TcpV4 => self.tso4,
                    GsoKind::TcpV6 => self.tso6,
                    GsoKind::Udp => self.uso,
                };
                kind && (self.ecn || !gso.ecn)
            }
        };
        checksum && segments
    }
}

/// What [`Endpoint::set_offloads`](crate::Endpoint::set_offloads) said last, for queues to look at.
///
/// Independent of everything else that a queue sees: one that looks a moment too early sends a
/// frame that the card then drops.
#[derive(Debug, Default)]
pub struct SharedOffloads(AtomicU8);

impl SharedOffloads {
    /// Sets them.
    pub fn set(&self, offloads: Offloads) {
        let Offloads {
            checksum,
            tso4,
            tso6,
            ecn,
            uso,
        } = offloads;
        let bits = [checksum, tso4, tso6, ecn, uso];
        let bits = bits.iter().rev().fold(0, |b, &on| b << 1 | u8::from(on));
        self.0.store(bits, Ordering::Relaxed);
    }

    /// Those that were set last; none at first.
    pub fn get(&self) -> Offloads {
        let bits = self.0.load(Ordering::Relaxed);
        let [checksum, tso4, tso6, ecn, uso] = [0, 1, 2, 3, 4].map(|n| bits >> n & 1 != 0);
        Offloads {
            checksum,
            tso4,
            tso6,
            ecn,
            uso,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gso;

    /// Each kind alone, with a frame that needs it and nothing else that is not `also` there.
    fn kinds() -> [(Offloads, Offloads, Meta); 5] {
        let none = Offloads::default();
        let partial = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        let large = |kind, ecn| Meta {
            checksum: Checksum::Unverified,
            gso: Some(Gso {
                kind,
                ecn,
                size: 1000,
                hdr_len: 54,
            }),
        };
        let checksum = Offloads {
            checksum: true,
            ..none
        };
        let tso4 = Offloads { tso4: true, ..none };
        let tso6 = Offloads { tso6: true, ..none };
        let ecn = Offloads { ecn: true, ..none };
        let uso = Offloads { uso: true, ..none };
        let unfinished = Meta {
            checksum: partial,
            gso: None,
        };
        [
            (checksum, none, unfinished),
            (tso4, none, large(GsoKind::TcpV4, false)),
            (tso6, none, large(GsoKind::TcpV6, false)),
            (ecn, tso6, large(GsoKind::TcpV6, true)),
            (uso, none, large(GsoKind::Udp, false)),
        ]
    }

    fn or(a: Offloads, b: Offloads) -> Offloads {
        Offloads {
            checksum: a.checksum || b.checksum,
            tso4: a.tso4 || b.tso4,
            tso6: a.tso6 || b.tso6,
            ecn: a.ecn || b.ecn,
            uso: a.uso || b.uso,
        }
    }

    #[test]
    fn a_frame_is_covered_by_what_it_needs() {
        for (offload, also, meta) in kinds() {
            assert!(or(offload, also).cover(&meta), "{meta:?}");
            assert!(Offloads::ALL.cover(&meta), "{meta:?}");
            assert!(!also.cover(&meta), "{meta:?}");
            assert!(also.cover(&Meta::default()));
            let valid = Meta {
                checksum: Checksum::Valid,
                gso: None,
            };
            assert_eq!(offload.cover(&valid), offload.checksum);
        }
    }

    #[test]
    fn what_was_set_is_what_is_got() {
        let shared = SharedOffloads::default();
        assert_eq!(shared.get(), Offloads::default());
        for (offload, also, _) in kinds() {
            shared.set(or(offload, also));
            assert_eq!(shared.get(), or(offload, also));
        }
        shared.set(Offloads::ALL);
        assert_eq!(shared.get(), Offloads::ALL);
    }
}
