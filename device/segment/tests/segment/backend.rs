// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A backend that takes what it is told to, and a driver's buffers.

use vm_memory::VolatileSlice;
use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing};
use vnet_segment::{Segmenter, Taken};

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) offloads: Offloads,
    /// Frames that it takes per call; `None`: all.
    pub(crate) takes: Option<usize>,
    pub(crate) sent: Vec<(Vec<u8>, Meta)>,
    /// Sizes of the batches that it was offered.
    pub(crate) batches: Vec<usize>,
}

impl Backend {
    pub(crate) fn new(offloads: Offloads) -> Self {
        Self {
            offloads,
            takes: None,
            sent: Vec::new(),
            batches: Vec::new(),
        }
    }
}

impl Queue for Backend {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.batches.push(batch.len());
        let n = self.takes.map_or(batch.len(), |t| t.min(batch.len()));
        for frame in &batch[..n] {
            assert!(self.offloads.cover(&frame.meta), "{:?}", frame.meta);
            assert!(frame.parts.iter().all(|p| !p.is_empty()));
            let len: usize = frame.parts.iter().map(|p| p.len()).sum();
            assert_eq!(len, frame.len);
            let mut bytes = vec![0; len];
            frame.read(&mut bytes);
            self.sent.push((bytes, frame.meta));
        }
        n
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn receive(&mut self, _ring: &mut dyn RxRing) {
        unreachable!("nobody receives here")
    }
}

/// A frame in buffers that end at `cuts`, apart from its beginning and its end.
pub(crate) struct Buffers {
    pub(crate) meta: Meta,
    pub(crate) bytes: Vec<u8>,
    pub(crate) cuts: Vec<usize>,
}

impl Buffers {
    pub(crate) fn whole(bytes: Vec<u8>, meta: Meta) -> Self {
        Self {
            meta,
            bytes,
            cuts: Vec::new(),
        }
    }
}

/// Offers a batch once.
pub(crate) fn offer(
    segmenter: &mut Segmenter,
    backend: &mut Backend,
    batch: &mut [Buffers],
) -> Taken {
    let metas: Vec<Meta> = batch.iter().map(|buffers| buffers.meta).collect();
    let parts: Vec<Vec<VolatileSlice<'_>>> = batch
        .iter_mut()
        .map(|buffers| {
            let mut rest = &mut buffers.bytes[..];
            let mut parts = Vec::new();
            let mut start = 0;
            for &cut in &buffers.cuts {
                if cut > start && cut - start < rest.len() {
                    let (part, behind) = rest.split_at_mut(cut - start);
                    parts.push(VolatileSlice::from(part));
                    rest = behind;
                    start = cut;
                }
            }
            parts.push(VolatileSlice::from(rest));
            parts
        })
        .collect();
    let frames: Vec<Frame<'_>> = parts
        .iter()
        .zip(metas)
        .map(|(parts, meta)| Frame {
            meta,
            len: parts.iter().map(|p| p.len()).sum(),
            parts,
        })
        .collect();
    segmenter.transmit(backend, &frames)
}
