// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A backend whose queues are open: for threads that serve, which cannot open anything.

use vnet_backend::{Capabilities, Endpoint, Error, Link, Offloads, Queue};

/// The endpoint, and its queues until they are asked for.
pub(crate) struct Opened {
    inner: Box<dyn Endpoint>,
    queues: Vec<Box<dyn Queue>>,
}

impl Opened {
    /// Opens so many queues. Those that it cannot have are for whoever asks for them to refuse.
    pub(crate) fn new(mut inner: Box<dyn Endpoint>, queues: u16) -> Result<Self, Error> {
        let most = inner.capabilities().max_queues;
        let queues = match (1..=most).contains(&queues) {
            true => inner.open(queues)?,
            false => Vec::new(),
        };
        Ok(Self { inner, queues })
    }
}

impl Endpoint for Opened {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn link(&self) -> Link {
        self.inner.link()
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        match self.queues.len() == usize::from(queues) {
            true => Ok(std::mem::take(&mut self.queues)),
            false => Err(Error::Unsupported(format!("{queues} queues are not open"))),
        }
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.inner.set_offloads(receive);
    }

    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}
