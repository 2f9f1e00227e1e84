// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the RSS registers say, applied to a frame.

use std::sync::Arc;

use vnet_contract::hdr::{self, FlowHash};
use vnet_contract::regs::{
    RSS_HASH_IPV4, RSS_HASH_IPV6, RSS_HASH_MASK, RSS_HASH_TCPV4, RSS_HASH_TCPV6, RSS_HASH_UDPV4,
    RSS_HASH_UDPV6,
};

use crate::flow::{self, Addresses, Flow, Ports, Transport};
use crate::toeplitz::{Toeplitz, MAX_INPUT};

/// Entries of the indirection table: as many as the contract has room for.
pub const TABLE_SIZE: usize = 128;

/// Hash types that can be computed: all.
pub const HASH_TYPES: u32 = RSS_HASH_MASK;

/// The registers.
#[derive(Clone, Debug)]
pub struct RssConfig {
    /// The key.
    pub key: Arc<Toeplitz>,
    /// `RSS_HASH_*`: types in use.
    pub types: u32,
    /// Same hash for both directions of a flow.
    pub symmetric: bool,
    /// Whether the hash chooses the pair.
    pub spread: bool,
    /// Queue pair by hash modulo [`TABLE_SIZE`].
    pub table: [u8; TABLE_SIZE],
    /// Number of queue pairs of the card.
    pub pairs: u16,
}

/// A set of registers in force. Immutable: a change of a register makes a new one.
#[derive(Clone, Debug)]
pub struct Rss {
    config: RssConfig,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its hash.
    pub hash: FlowHash,
    /// The queue pair that it goes to; `None`: the one that it came from.
    pub pair: Option<u16>,
}

impl Rss {
    /// Takes the registers as they are. Entries of the table that name no pair of the card count
    /// as pair 0.
    pub fn new(mut config: RssConfig) -> Self {
        for entry in &mut config.table {
            if u16::from(*entry) >= config.pairs {
                *entry = 0;
            }
        }
        Self { config }
    }

    /// Whether frames may have to go to another pair than the one that they came from.
    pub fn spreads(&self) -> bool {
        self.config.spread && self.config.pairs > 1
    }

    /// Decides about an Ethernet frame of which `start` are the first bytes.
    pub fn choose(&self, start: &[u8]) -> Choice {
        let hash = flow::parse(start).map_or(FlowHash::default(), |flow| self.hash(&flow));
        let pair = self.spreads().then(|| {
            let index = match hash.report {
                hdr::HASH_NONE => 0,
                _ => hash.value as usize % TABLE_SIZE,
            };
            self.config.table[index].into()
        });
        Choice { hash, pair }
    }

    /// The hash of a flow, over as much of it as the types in use allow.
    fn hash(&self, flow: &Flow<'_>) -> FlowHash {
        let in_use = |kind: u32| self.config.types & kind != 0;
        match flow.addresses {
            Addresses::V4(addresses) => {
                let kinds = match flow.ports {
                    Some((Transport::Tcp, p)) => Some((RSS_HASH_TCPV4, hdr::HASH_TCPV4, p)),
                    Some((Transport::Udp, p)) => Some((RSS_HASH_UDPV4, hdr::HASH_UDPV4, p)),
                    None => None,
                };
                match kinds {
                    Some((kind, report, ports)) if in_use(kind) => {
                        self.sum(addresses, Some(ports), report)
                    }
                    _ if in_use(RSS_HASH_IPV4) => self.sum(addresses, None, hdr::HASH_IPV4),
                    _ => FlowHash::default(),
                }
            }
            Addresses::V6(addresses) => {
                let kinds = match flow.ports {
                    Some((Transport::Tcp, p)) => Some((RSS_HASH_TCPV6, hdr::HASH_TCPV6, p)),
                    Some((Transport::Udp, p)) => Some((RSS_HASH_UDPV6, hdr::HASH_UDPV6, p)),
                    None => None,
                };
                match kinds {
                    Some((kind, report, ports)) if in_use(kind) => {
                        self.sum(addresses, Some(ports), report)
                    }
                    _ if in_use(RSS_HASH_IPV6) => self.sum(addresses, None, hdr::HASH_IPV6),
                    _ => FlowHash::default(),
                }
            }
        }
    }

    /// Hashes two addresses of half of `N` bytes each, and ports.
    fn sum<const N: usize>(
        &self,
        addresses: &[u8; N],
        ports: Option<Ports>,
        report: u16,
    ) -> FlowHash {
        let mut input = [0; MAX_INPUT];
        input[..N].copy_from_slice(addresses);
        let len = match ports {
            Some(ports) => {
                input[N..N + 4].copy_from_slice(&ports);
                N + 4
            }
            None => N,
        };
        if self.config.symmetric {
            merge(&mut input[..N]);
            merge(&mut input[N..N + 4]);
        }
        FlowHash {
            value: self.config.key.hash(&input[..len]),
            report,
        }
    }
}

/// Replaces both halves by their exclusive or.
fn merge(pair: &mut [u8]) {
    let (a, b) = pair.split_at_mut(pair.len() / 2);
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= *b;
        *b = *a;
    }
}
