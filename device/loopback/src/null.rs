// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The backend that is connected to nothing.

use vnet_backend::{Capabilities, Endpoint, Error, Frame, Meta, Offloads, Queue, RxRing};

use crate::MAX_QUEUES;

/// Takes frames without reading them, and has none to deliver unless it is told otherwise: what is
/// left is the cost of the card itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Null {
    /// Frames that the driver sends are copied out of its memory before they are thrown away, as
    /// a backend would that keeps them.
    pub copy: bool,
    /// Length of the frames that the driver receives, as many as it has buffers for. `None`: it
    /// receives nothing.
    pub source: Option<u16>,
}

impl Null {
    /// The endpoint.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Endpoint for Null {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::ALL,
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|_| {
                Box::new(Sink {
                    copy: if self.copy {
                        vec![0; vnet_backend::MAX_FRAME]
                    } else {
                        Vec::new()
                    },
                    frame: self.source.map(frame),
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}

/// A broadcast frame of the EtherType for local experiments (IEEE 802, 0x88b5).
fn frame(len: u16) -> Box<[u8]> {
    let header = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
    ];
    let len = usize::from(len).max(header.len());
    let payload = (header.len()..len).map(|n| n as u8);
    header.into_iter().chain(payload).collect()
}

struct Sink {
    /// Where frames are copied to; empty if they are not.
    copy: Vec<u8>,
    frame: Option<Box<[u8]>>,
}

impl Queue for Sink {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        if !self.copy.is_empty() {
            for frame in batch {
                frame.read(&mut self.copy);
            }
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let Some(frame) = &self.frame else {
            return;
        };
        // The ring ends it: it lends no more than a batch.
        while let Some(room) = ring.room(frame.len()) {
            room.write(frame);
            ring.commit(frame.len(), Meta::default());
        }
    }

    fn has_frames(&self) -> bool {
        self.frame.is_some()
    }
}
