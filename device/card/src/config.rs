// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a card is configured, and why it cannot be made.

use std::io;

use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_worker::Options;

use crate::card::LEAST_MAX_MTU;

/// What the user chooses about a card.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Permanent MAC address.
    pub mac: [u8; 6],
    /// Number of queue pairs, 1…[`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Largest MTU that the driver may set; the backend's limit holds as well.
    pub max_mtu: u16,
    /// Features that the card does not offer, though it has them, as bits of the contract. What needs
    /// one of them is not offered either.
    pub withheld: u64,
    /// How its queue pairs are served.
    pub service: Options,
}

impl Config {
    /// The least that there is: one queue pair, and frames of the size that every driver expects. Nothing
    /// is withheld.
    pub fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            queue_pairs: 1,
            max_mtu: LEAST_MAX_MTU,
            withheld: 0,
            service: Options::default(),
        }
    }
}

/// Why a card cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More queue pairs than the card or its backend has, or none.
    #[error("{wanted} queue pairs: this card can have 1 to {most}", most = MAX_QUEUE_PAIRS.min(*backend))]
    QueuePairs {
        /// What the user asked for.
        wanted: u16,
        /// What the backend can serve.
        backend: u16,
    },
    /// A MAC address that no single station can have.
    #[error("MAC address is a group address or zero")]
    Mac,
    /// The largest MTU, by configuration or backend, is below what every driver expects.
    #[error("largest MTU {0}: less than 1500")]
    Mtu(u16),
    /// A backend that is to take another's place cannot carry the frames that the driver may send.
    #[error("its largest MTU is {backend}, less than the {card} of the card")]
    SmallMtu {
        /// What the card was made with.
        card: u16,
        /// What the backend can carry.
        backend: u16,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] vnet_backend::Error),
    /// The card that another process left is not the one that is to be made.
    #[error("the card to go on with has another {0}")]
    Differs(&'static str),
    /// What another process left cannot be read.
    #[error("the card to go on with was left by a version that is not understood")]
    Foreign,
    /// There are too many descriptors.
    #[error("backend: {0}")]
    Descriptor(#[source] io::Error),
    /// A thread could not be started.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
}

/// True for an address that one station can have.
pub(crate) fn is_station_address(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}
