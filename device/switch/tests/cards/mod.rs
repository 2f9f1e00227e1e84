// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Cards at the ports of a switch.

use std::sync::Arc;

use vnet_backend::{mock, Endpoint, Meta, Offloads, Queue};
use vnet_switch::{Config, Port, Switch};

/// A port with a card.
pub(crate) struct Card {
    port: Port,
    pub(crate) queues: Vec<Box<dyn Queue>>,
}

impl Card {
    pub(crate) fn send(&mut self, frame: &[u8]) {
        assert!(mock::transmit(
            self.queues[0].as_mut(),
            frame,
            Meta::default()
        ));
    }

    /// Says what may come along with frames.
    pub(crate) fn takes(&mut self, offloads: Offloads) {
        self.port.set_offloads(offloads);
    }

    pub(crate) fn got(&mut self) -> Vec<Vec<u8>> {
        let frames = mock::receive(self.queues[0].as_mut(), 10_000, 70_000);
        frames.into_iter().map(|(bytes, _)| bytes).collect()
    }
}

pub(crate) fn join(switch: &Arc<Switch>, config: Config) -> Card {
    let mut port = switch.join(config).unwrap();
    let queues = port.open(1).unwrap();
    let mut card = Card { port, queues };
    card.takes(Offloads::ALL);
    card
}
