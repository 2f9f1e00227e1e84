// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The backend that swallows everything.

use vnet_backend::{Capabilities, Endpoint, Error, Frame, Offloads, Queue, RxRing};

use crate::MAX_QUEUES;

/// Takes frames without reading them, and never has one to deliver.
#[derive(Debug, Default)]
pub struct Null;

impl Null {
    /// The endpoint.
    pub fn new() -> Self {
        Self
    }
}

impl Endpoint for Null {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            transmit: Offloads::ALL,
            receive: Offloads::ALL,
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|_| Box::new(Sink) as Box<dyn Queue>)
            .collect())
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}

struct Sink;

impl Queue for Sink {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len()
    }

    fn receive(&mut self, _ring: &mut dyn RxRing) {}
}
