// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue of the host's network: a descriptor that gives and takes frames one by one, each with a
//! header before it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;
use vnet_backend::{
    Attachment, Frame, GsoKind, Losses, Meta, Offloads, Queue, RxRing, SharedOffloads, MAX_FRAME,
};
use vnet_contract::hdr::{self, NetHdr};
use vnet_state::Intake;

use crate::header;
use crate::vectors::MAX_PARTS;

/// A frame that the host has no room for is offered again after this time. TAP does not say when
/// it has room, and a frame takes about a microsecond.
const RETRY: Duration = Duration::from_millis(1);
/// Frames thrown away by a reset: the queue of a TAP is not longer by default, and a host that
/// goes on sending must not hold up the reset.
const RESET_FRAMES: usize = 1024;

/// Ethernet header and VLAN tag.
const FRAME_OVERHEAD: usize = 18;

/// Destination and source.
const ADDRESSES: usize = 12;

/// A descriptor that carries frames.
pub trait Wire: AsFd + Send {
    /// Sends a frame: the header, then the first [`MAX_PARTS`] of `parts`. Does not wait.
    fn write(&self, header: &[u8; hdr::SIZE], parts: &[VolatileSlice<'_>]) -> io::Result<usize>;

    /// Takes a frame: the header, then into the first [`MAX_PARTS`] of `parts`, and what they have
    /// no room for into `spill`. Does not wait.
    fn read(
        &self,
        header: VolatileSlice<'_>,
        parts: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<Received>;

    /// See [`Queue::attachment`].
    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        None
    }
}

/// A frame that was read.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its length. `None`: less than a header came.
    pub len: Option<usize>,
    /// A VLAN tag that belongs between its addresses and what follows them.
    pub tag: Option<[u8; 4]>,
}

/// What the endpoint tells its queues. All of it only makes the usual case cheap: a frame that is
/// longer than it should be takes another way.
#[derive(Debug, Default)]
pub struct Shared {
    /// What the guest accepts.
    pub offloads: SharedOffloads,
    /// MTU of the interface when it was last looked at.
    pub mtu: AtomicUsize,
}

impl Shared {
    /// What is asked of the guest's ring before a frame is read, whose length is not known yet:
    /// first, and if there is not so much.
    fn lengths(&self) -> [usize; 2] {
        let usual = (self.mtu.load(Ordering::Relaxed) + FRAME_OVERHEAD).min(MAX_FRAME);
        let Offloads {
            tso4, tso6, uso, ..
        } = self.offloads.get();
        match tso4 || tso6 || uso {
            true => [MAX_FRAME, usual],
            false => [usual; 2],
        }
    }
}

/// The queue.
pub struct Port<W> {
    wire: W,
    shared: Arc<Shared>,
    /// What the kernel takes.
    offloads: Offloads,
    /// It has refused a large UDP frame, of which kernels before 6.2 know nothing in this header.
    refuses_uso: bool,
    /// A frame that did not fit what was asked for, or a place for it.
    buffer: Box<[u8]>,
    /// The frame in `buffer` that waits for the guest.
    held: Option<(usize, Meta)>,
    /// A frame of the guest that was in too many pieces. Not the buffer above: a guest that posts
    /// nothing to receive into must not keep itself from sending.
    gathered: Vec<u8>,
    /// When the host is asked again whether it takes a frame.
    retry: Option<Instant>,
    losses: Losses,
    /// Where frames count from the moment at which they are read.
    intake: Option<Intake>,
}

impl<W: Wire> Port<W> {
    /// A queue over this descriptor, whose other side takes frames with this metadata.
    pub fn new(wire: W, shared: Arc<Shared>, offloads: Offloads) -> Self {
        Self {
            wire,
            shared,
            offloads,
            refuses_uso: false,
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
            held: None,
            gathered: Vec::new(),
            retry: None,
            losses: Losses::default(),
            intake: None,
        }
    }

    /// Has the frames counted that are read.
    pub(crate) fn count(&mut self, intake: Intake) {
        intake.begin();
        self.intake = Some(intake);
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<usize> {
        let header = header::build(&frame.meta).to_bytes();
        if frame.parts.len() <= MAX_PARTS {
            return self.wire.write(&header, frame.parts);
        }
        // More buffers than a call takes.
        self.gathered.resize(frame.len, 0);
        let len = frame.read(&mut self.gathered);
        let whole = [VolatileSlice::from(&mut self.gathered[..len])];
        self.wire.write(&header, &whole)
    }

    /// Delivers the frame in the buffer, if there is one. False: the guest has no room for it.
    fn deliver_held(&mut self, ring: &mut dyn RxRing) -> bool {
        let Some((len, meta)) = self.held else {
            return true;
        };
        let Some(room) = ring.room(len) else {
            return false;
        };
        room.write(&self.buffer[..len]);
        ring.commit(len, meta);
        self.held = None;
        true
    }

    /// Reads one frame and delivers it. False: there is none, or the guest has no room.
    fn deliver_next(&mut self, ring: &mut dyn RxRing) -> bool {
        let [most, usual] = self.shared.lengths();
        let len = match most > usual && ring.room(most).is_none() {
            true => usual,
            false => most,
        };
        let Some(room) = ring.room(len) else {
            return false;
        };
        let mut bytes = [0; hdr::SIZE];
        let (wire, buffer) = (&self.wire, &mut self.buffer[..]);
        let (read, counted) = match &self.intake {
            None => {
                let header = VolatileSlice::from(&mut bytes[..]);
                (wire.read(header, room.parts, buffer), false)
            }
            Some(intake) => {
                let place = intake.place(hdr::SIZE);
                let read = wire.read(place, room.parts, buffer);
                place.copy_to(&mut bytes[..]);
                (read, intake.take())
            }
        };
        // A frame that the kernel could not write to the guest's memory is gone, and so is one that it has no
        // header for.
        let gone = read.as_ref().is_err_and(|e| counted || is_invalid(e));
        self.losses.received += u64::from(gone);
        // Any error ends the batch: there is nothing to read, or there never will be again
        // because the interface was deleted.
        let Ok(Received { len, tag }) = read else {
            return false;
        };
        let parts = &room.parts[..room.parts.len().min(MAX_PARTS)];
        let fits: usize = parts.iter().map(VolatileSlice::len).sum();
        let byte = |at: usize| match at.checked_sub(fits) {
            Some(behind) => self.buffer.get(behind).copied(),
            None => byte_of(parts, at),
        };
        let meta =
            len.and_then(|len| Some((len, header::parse(&NetHdr::from_bytes(&bytes), len, byte)?)));
        let longest = MAX_FRAME - tag.map_or(0, |tag| tag.len());
        let Some((len, meta)) = meta.filter(|(len, _)| *len <= longest) else {
            self.losses.received += 1;
            return true;
        };
        if len <= fits && tag.is_none() {
            ring.commit(len, meta);
            return true;
        }
        // The end is in the buffer, if it did not fit. Put the start before it, and ask for more room.
        let start = fits.min(len);
        self.buffer.copy_within(..len - start, start);
        let mut done = 0;
        for part in parts {
            done += part.copy_to(&mut self.buffer[done..start]);
        }
        self.held = Some(match tag {
            None => (len, meta),
            Some(tag) => {
                self.buffer
                    .copy_within(ADDRESSES..len, ADDRESSES + tag.len());
                self.buffer[ADDRESSES..ADDRESSES + tag.len()].copy_from_slice(&tag);
                (len + tag.len(), meta.moved(0, tag.len()))
            }
        });
        self.deliver_held(ring)
    }
}

impl<W: Wire> Queue for Port<W> {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.retry = None;
        for (n, frame) in batch.iter().enumerate() {
            match self.write(frame) {
                Ok(_) => {}
                Err(error) if is_temporary(&error) => {
                    self.retry = Some(Instant::now() + RETRY);
                    return n;
                }
                // It is offered again, as segments.
                Err(error) if is_invalid(&error) && is_uso(frame) && !self.refuses_uso => {
                    self.refuses_uso = true;
                    self.retry = Some(Instant::now());
                    return n;
                }
                // The interface is down or gone, or the host finds fault with the frame.
                Err(_) => self.losses.sent += 1,
            }
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            uso: self.offloads.uso && !self.refuses_uso,
            ..self.offloads
        }
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        if self.deliver_held(ring) {
            while self.deliver_next(ring) {}
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.as_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        self.wire.attachment()
    }

    fn has_frames(&self) -> bool {
        self.held.is_some()
    }

    fn losses(&self) -> Losses {
        self.losses
    }

    fn reset(&mut self) {
        self.held = None;
        self.retry = None;
        // It may have been the frame.
        self.refuses_uso = false;
        let mut bytes = [0; hdr::SIZE];
        for _ in 0..RESET_FRAMES {
            let header = VolatileSlice::from(&mut bytes[..]);
            if self.wire.read(header, &[], &mut self.buffer).is_err() {
                break;
            }
        }
    }
}

fn byte_of(parts: &[VolatileSlice<'_>], mut at: usize) -> Option<u8> {
    for part in parts {
        if let Some(behind) = at.checked_sub(part.len()) {
            at = behind;
            continue;
        }
        let mut byte = [0];
        part.offset(at).ok()?.copy_to(&mut byte[..]);
        return Some(byte[0]);
    }
    None
}

fn is_uso(frame: &Frame<'_>) -> bool {
    let gso = frame.meta.gso;
    gso.is_some_and(|gso| gso.kind == GsoKind::Udp)
}

/// True if the kernel finds fault with the frame.
fn is_invalid(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// True if the same frame may be taken later.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Mutex;

    use vnet_backend::{mock, Gso};

    use super::*;

    /// A kernel before 6.2, as far as UDP segmentation is concerned.
    struct Old {
        fd: File,
        /// Lengths of the frames that it took.
        taken: Arc<Mutex<Vec<usize>>>,
        /// Frames to read that it has no header for.
        odd: AtomicUsize,
    }

    impl AsFd for Old {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    impl Wire for Old {
        fn write(
            &self,
            header: &[u8; hdr::SIZE],
            parts: &[VolatileSlice<'_>],
        ) -> io::Result<usize> {
            if NetHdr::from_bytes(header).gso_type == hdr::GSO_UDP_L4 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let len = parts.iter().map(VolatileSlice::len).sum();
            self.taken.lock().unwrap().push(len);
            Ok(hdr::SIZE + len)
        }

        fn read(
            &self,
            _: VolatileSlice<'_>,
            _: &[VolatileSlice<'_>],
            _: &mut [u8],
        ) -> io::Result<Received> {
            let more = self
                .odd
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |odd| {
                    odd.checked_sub(1)
                });
            Err(match more {
                Ok(_) => io::ErrorKind::InvalidInput,
                Err(_) => io::ErrorKind::WouldBlock,
            }
            .into())
        }
    }

    fn old(odd: usize) -> (Port<Old>, Arc<Mutex<Vec<usize>>>) {
        let taken = Arc::default();
        let wire = Old {
            fd: File::open("/dev/null").unwrap(),
            taken: Arc::clone(&taken),
            odd: odd.into(),
        };
        (Port::new(wire, Arc::default(), Offloads::ALL), taken)
    }

    #[test]
    fn a_kernel_that_does_not_know_udp_segmentation_is_not_asked_for_it_again() {
        let (mut port, taken) = old(0);
        let large = Meta {
            checksum: vnet_backend::Checksum::Partial {
                start: 34,
                offset: 6,
            },
            gso: Some(Gso {
                kind: GsoKind::Udp,
                size: 100,
                hdr_len: 42,
                ecn: false,
            }),
        };
        assert!(port.offloads().uso);
        assert!(!mock::transmit(&mut port, &[0; 342], large));
        assert!(port.deadline().is_some_and(|at| at <= Instant::now()));
        let without_uso = Offloads {
            uso: false,
            ..Offloads::ALL
        };
        assert_eq!((port.offloads(), port.losses().sent), (without_uso, 0));
        assert!(mock::transmit(&mut port, &[0; 142], Meta::default()));
        assert_eq!(taken.lock().unwrap()[..], [142]);
        // Whoever offers it nevertheless loses it, and goes on.
        assert!(mock::transmit(&mut port, &[0; 342], large));
        assert_eq!(port.losses().sent, 1);
        port.reset();
        assert!(port.offloads().uso);
    }

    #[test]
    fn a_frame_that_the_kernel_has_no_header_for_is_counted() {
        let (mut port, _) = old(2);
        for lost in [1, 2, 2] {
            assert!(mock::receive(&mut port, 1, MAX_FRAME).is_empty());
            assert_eq!(port.losses().received, lost);
        }
    }
}
