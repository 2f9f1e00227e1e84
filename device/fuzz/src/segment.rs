// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The segmenter, held to what a segment is.

use arbitrary::{Result, Unstructured};
use vm_memory::VolatileSlice;
use vnet_backend::{checksum, Checksum, Frame, Meta, Offloads, Queue, RxRing, MAX_FRAME};
use vnet_segment::{Segmenter, MAX_SEGMENTS};

use crate::frames;
use crate::input::{index, mostly};

/// Sends frames to a backend that takes some metadata and not other.
pub fn segment(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut sink = Sink {
        offloads: Offloads {
            checksum: u.arbitrary()?,
            tso4: u.arbitrary()?,
            tso6: u.arbitrary()?,
            ecn: u.arbitrary()?,
            uso: u.arbitrary()?,
        },
        takes: mostly(u, &[usize::MAX, 1, 7])?.max(1),
        sent: Vec::new(),
    };
    let mut segmenter = Segmenter::default();
    while !u.is_empty() {
        let (mut bytes, meta) = frames::frame(u)?;
        if bytes.len() > MAX_FRAME {
            return Ok(());
        }
        let whole = bytes.clone();
        let (start, end) = bytes.split_at_mut(index(u, whole.len())?);
        let parts = [start, end]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(VolatileSlice::from)
            .collect::<Vec<_>>();
        let frame = Frame {
            meta,
            len: whole.len(),
            parts: &parts,
        };
        sink.sent.clear();
        let mut calls = 0;
        let refused = loop {
            let before = sink.sent.len();
            let taken = segmenter.transmit(&mut sink, &[frame]);
            assert!(sink.sent.len() - before <= MAX_SEGMENTS);
            calls += 1;
            assert!(calls <= 2 * MAX_SEGMENTS, "does not come to an end");
            if taken.frames == 1 {
                break taken.refused == 1;
            }
        };
        match refused {
            true => assert!(sink.sent.is_empty()),
            false => assert!(is_carried(&whole, &meta, sink.offloads, &sink.sent)),
        }
    }
    Ok(())
}

/// What went out of a frame must be it, or segments from its start on. True if that is all of it.
pub(crate) fn is_carried(
    whole: &[u8],
    meta: &Meta,
    takes: Offloads,
    sent: &[(Vec<u8>, Meta)],
) -> bool {
    match meta.gso {
        Some(gso) if !takes.cover(meta) => {
            let bytes = assert_segments(whole, meta, gso.size.into(), takes, sent);
            bytes == whole.len()
        }
        _ => {
            assert_whole(whole, meta, takes, sent);
            true
        }
    }
}

/// One frame went out; if the backend does not finish checksums, it was finished.
fn assert_whole(whole: &[u8], meta: &Meta, takes: Offloads, sent: &[(Vec<u8>, Meta)]) {
    let [(sent, _)] = sent else {
        panic!("one frame became {}", sent.len());
    };
    let mut expected = whole.to_vec();
    if let (false, Checksum::Partial { start, offset }) = (takes.cover(meta), meta.checksum) {
        assert!(checksum::complete(&mut expected, start, offset));
    }
    assert!(*sent == expected);
}

/// The segments hold the payload in order, in pieces of the size, each with a good checksum. Returns
/// how far they go.
fn assert_segments(
    whole: &[u8],
    meta: &Meta,
    size: usize,
    takes: Offloads,
    sent: &[(Vec<u8>, Meta)],
) -> usize {
    let Checksum::Partial { start, offset } = meta.checksum else {
        panic!("cut without a checksum");
    };
    let transport = usize::from(start);
    let headers = match offset {
        6 => transport + 8,
        16 => transport + usize::from(whole[transport + 12] >> 4) * 4,
        _ => panic!("neither TCP nor UDP"),
    };
    let mut payload = Vec::new();
    for (n, (segment, meta)) in sent.iter().enumerate() {
        let (_, data) = segment.split_at(headers);
        let last = n + 1 == sent.len();
        assert!(data.len() == size || last && data.len() <= size);
        payload.extend_from_slice(data);
        assert_eq!(segment[..12], whole[..12]);
        assert_eq!(meta.gso, None);
        if takes.checksum {
            continue;
        }
        // With the sum of the pseudo header, which what is left to the backend would begin with,
        // all of it adds up; so it is the same for both.
        let field = transport + usize::from(offset);
        let sum = u16::from_be_bytes([segment[field], segment[field + 1]]);
        let mut again = segment.clone();
        let len = (segment.len() - transport) as u16;
        let old = (whole.len() - transport) as u16;
        let pseudo = u16::from_be_bytes([whole[field], whole[field + 1]]);
        let pseudo = checksum::add(checksum::add(pseudo, !old), len);
        again[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        assert!(checksum::complete(&mut again, start, offset));
        let again = u16::from_be_bytes([again[field], again[field + 1]]);
        assert_eq!(sum, again, "segment {n}");
    }
    assert!(whole[headers..].starts_with(&payload));
    headers + payload.len()
}

struct Sink {
    offloads: Offloads,
    takes: usize,
    sent: Vec<(Vec<u8>, Meta)>,
}

impl Queue for Sink {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let n = self.takes.min(batch.len());
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

    fn receive(&mut self, _ring: &mut dyn RxRing) {}
}
