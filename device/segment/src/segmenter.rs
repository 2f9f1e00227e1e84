// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What stands between a batch of frames and a backend.

use vm_memory::VolatileSlice;
use vnet_backend::{Checksum, Frame, Meta, Offloads, Queue, MAX_FRAME};

use crate::cursor::Cursor;
use crate::plan::{Plan, MAX_HEADERS, MAX_SEGMENTS};
use crate::sum::Sum;

/// Most segments that are lent to the backend in one call.
const CALL: usize = 64;

/// Sends the batches of one transmit queue.
#[derive(Debug, Default)]
pub struct Segmenter {
    /// Headers that are made here. Empty until the first of them.
    headers: Vec<u8>,
    /// Segments of the next frame that the backend has taken already.
    next: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames from the front of the batch that are done with.
    pub frames: usize,
    /// Those of them that were refused because they are not what their metadata says, or would
    /// make too many segments.
    pub refused: usize,
    /// Bytes of the refused ones.
    pub refused_bytes: usize,
    /// The call ended because it has made [`MAX_SEGMENTS`] segments. The backend takes more.
    pub spent: bool,
}

impl Segmenter {
    /// Offers a batch to the backend. Frames that it did not take are to be offered again, in the
    /// same order: the first of them may be sent in part.
    ///
    /// One call makes [`MAX_SEGMENTS`] segments at most, however many frames ask for that: the
    /// caller holds a lock meanwhile.
    pub fn transmit(&mut self, queue: &mut dyn Queue, batch: &[Frame<'_>]) -> Taken {
        self.transmit_within(&mut { MAX_SEGMENTS }, queue, batch)
    }

    /// The same for a batch that is offered in several calls, which make `left` segments in all.
    pub fn transmit_within(
        &mut self,
        left: &mut usize,
        queue: &mut dyn Queue,
        batch: &[Frame<'_>],
    ) -> Taken {
        let takes = queue.offloads();
        if takes == Offloads::ALL {
            // A frame that was sent in part may be offered to another backend.
            self.next = 0;
            return Taken {
                frames: queue.transmit(batch).min(batch.len()),
                ..Taken::default()
            };
        }
        let mut taken = Taken::default();
        while let Some((first, _)) = batch[taken.frames..].split_first() {
            let rest = &batch[taken.frames..];
            let plain = rest.iter().take_while(|f| takes.cover(&f.meta)).count();
            if plain > 0 {
                // The guest may have changed a frame that was sent in part.
                self.next = 0;
                let sent = queue.transmit(&rest[..plain]).min(plain);
                taken.frames += sent;
                if sent < plain {
                    break;
                }
                continue;
            }
            match self.finish(queue, first, &takes, left) {
                Fate::Sent => {}
                Fate::Waits => break,
                Fate::Spent => {
                    taken.spent = true;
                    break;
                }
                Fate::Refused => {
                    taken.refused += 1;
                    taken.refused_bytes += first.len;
                }
            }
            taken.frames += 1;
            self.next = 0;
        }
        taken
    }

    /// True if some of the segments of the frame that is offered next were sent already.
    pub fn is_midway(&self) -> bool {
        self.next > 0
    }

    /// Sends a frame that the backend cannot take as it is, in `left` segments at most.
    fn finish(
        &mut self,
        queue: &mut dyn Queue,
        frame: &Frame<'_>,
        takes: &Offloads,
        left: &mut usize,
    ) -> Fate {
        // Room for any header, of a segment or a frame.
        self.headers.resize(MAX_FRAME, 0);
        match (frame.meta.gso, frame.meta.checksum) {
            (Some(_), _) => {
                let mut start = [0; MAX_HEADERS];
                let n = frame.read(&mut start);
                match Plan::new(&start[..n], frame.len, &frame.meta) {
                    Some(plan) => self.cut(queue, frame, &plan, takes, left),
                    None => Fate::Refused,
                }
            }
            (None, Checksum::Partial { start, offset }) => {
                self.complete(queue, frame, start.into(), offset.into())
            }
            // Complete already; the backend just does not take the verdict.
            (None, Checksum::Valid | Checksum::Unverified) => send(
                queue,
                &[Frame {
                    meta: Meta::default(),
                    ..*frame
                }],
                &mut 0,
            ),
        }
    }

    /// Sends a frame as segments, of which `left` more may be made.
    fn cut(
        &mut self,
        queue: &mut dyn Queue,
        frame: &Frame<'_>,
        plan: &Plan<'_>,
        takes: &Offloads,
        left: &mut usize,
    ) -> Fate {
        let header_len = plan.header_len();
        let (sum_from, field) = plan.checksum();
        let meta = Meta {
            checksum: match takes.checksum {
                true => frame.meta.checksum,
                false => Checksum::Unverified,
            },
            gso: None,
        };
        let mut payload = Cursor::new(frame.parts);
        payload.skip(header_len + plan.range(self.next).start);
        while self.next < plan.segments() {
            let count = (plan.segments() - self.next).min(CALL).min(*left);
            if count == 0 {
                return Fate::Spent;
            }
            *left -= count;
            let mut parts = Vec::with_capacity(2 * count + frame.parts.len());
            let mut ends = [0; CALL];
            let headers = self.headers.chunks_exact_mut(header_len);
            for ((index, header), end) in (self.next..).zip(headers).zip(&mut ends[..count]) {
                let len = plan.range(index).len();
                plan.write_header(index, header);
                if !takes.checksum {
                    let mut sum = Sum::default();
                    sum.add(&header[sum_from..]);
                    payload.clone().take(len, |piece| sum.add_memory(piece));
                    header[field..field + 2].copy_from_slice(&sum.finish());
                }
                parts.push(VolatileSlice::from(header));
                payload.take(len, |piece| parts.push(piece));
                *end = parts.len();
            }
            let mut frames = Vec::with_capacity(count);
            let mut start = 0;
            for (index, &end) in (self.next..).zip(&ends[..count]) {
                frames.push(Frame {
                    meta,
                    len: header_len + plan.range(index).len(),
                    parts: &parts[start..end],
                });
                start = end;
            }
            match send(queue, &frames, &mut self.next) {
                Fate::Sent => {}
                fate => return fate,
            }
        }
        Fate::Sent
    }

    /// Sends a frame with its checksum.
    fn complete(
        &mut self,
        queue: &mut dyn Queue,
        frame: &Frame<'_>,
        start: usize,
        offset: usize,
    ) -> Fate {
        let field = start + offset;
        let Some(header) = self.headers.get_mut(..field + 2) else {
            return Fate::Refused;
        };
        if frame.read(header) < header.len() {
            return Fate::Refused;
        }
        let mut rest = Cursor::new(frame.parts);
        rest.skip(header.len());
        let left = frame.len - header.len();
        let mut sum = Sum::default();
        sum.add(&header[start..]);
        rest.clone().take(left, |piece| sum.add_memory(piece));
        header[field..].copy_from_slice(&sum.finish());
        let mut parts = Vec::with_capacity(1 + frame.parts.len());
        parts.push(VolatileSlice::from(header));
        rest.take(left, |piece| parts.push(piece));
        let finished = Frame {
            meta: Meta::default(),
            len: frame.len,
            parts: &parts,
        };
        send(queue, &[finished], &mut 0)
    }
}

/// What became of a frame.
enum Fate {
    Sent,
    /// The backend did not take all of it.
    Waits,
    /// The rest is for the next call.
    Spent,
    Refused,
}

/// Sends frames and counts those that were taken.
fn send(queue: &mut dyn Queue, frames: &[Frame<'_>], count: &mut usize) -> Fate {
    let taken = queue.transmit(frames).min(frames.len());
    *count += taken;
    if taken < frames.len() {
        Fate::Waits
    } else {
        Fate::Sent
    }
}
