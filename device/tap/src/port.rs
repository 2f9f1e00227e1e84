// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One queue of a TAP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;
use vnet_backend::{Attachment, Frame, Meta, Offloads, Queue, RxRing, SharedOffloads, MAX_FRAME};
use vnet_contract::hdr::{self, NetHdr};

use crate::header;
use crate::sys::{self, MAX_PARTS};

/// A frame that the host has no room for is offered again after this time. TAP does not say when
/// it has room, and a frame takes about a microsecond.
const RETRY: Duration = Duration::from_millis(1);
/// Frames thrown away by a reset: the queue of a TAP is not longer by default, and a host that
/// goes on sending must not hold up the reset.
const RESET_FRAMES: usize = 1024;

/// Ethernet header and VLAN tag.
const FRAME_OVERHEAD: usize = 18;

/// What the endpoint tells its queues. All of it only makes the usual case cheap: a frame that is
/// longer than it should be takes another way.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What the guest accepts.
    pub(crate) offloads: SharedOffloads,
    /// MTU of the interface when it was last looked at.
    pub(crate) mtu: AtomicUsize,
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

pub(crate) struct Port {
    tun: Arc<OwnedFd>,
    /// The queue can be detached.
    detachable: bool,
    shared: Arc<Shared>,
    /// What the kernel takes.
    offloads: Offloads,
    /// A frame that did not fit what was asked for, or a place for it.
    buffer: Box<[u8]>,
    /// The frame in `buffer` that waits for the guest.
    held: Option<(usize, Meta)>,
    /// A frame of the guest that was in too many pieces. Not the buffer above: a guest that posts
    /// nothing to receive into must not keep itself from sending.
    gathered: Vec<u8>,
    /// When the host is asked again whether it takes a frame.
    retry: Option<Instant>,
    lost: u64,
}

impl Port {
    pub(crate) fn new(
        tun: Arc<OwnedFd>,
        shared: Arc<Shared>,
        offloads: Offloads,
        detachable: bool,
    ) -> Self {
        Self {
            tun,
            detachable,
            shared,
            offloads,
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
            held: None,
            gathered: Vec::new(),
            retry: None,
            lost: 0,
        }
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<usize> {
        let header = header::build(&frame.meta).to_bytes();
        if frame.parts.len() <= MAX_PARTS {
            return sys::write(self.tun.as_fd(), &header, frame.parts);
        }
        // More buffers than a call takes.
        self.gathered.resize(frame.len, 0);
        let len = frame.read(&mut self.gathered);
        let whole = [VolatileSlice::from(&mut self.gathered[..len])];
        sys::write(self.tun.as_fd(), &header, &whole)
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
        let read = sys::read(self.tun.as_fd(), &mut bytes, room.parts, &mut self.buffer);
        // Any error ends the batch: there is nothing to read, or there never will be again
        // because the interface was deleted.
        let Ok(read) = read else {
            return false;
        };
        let parts = &room.parts[..room.parts.len().min(MAX_PARTS)];
        let fits: usize = parts.iter().map(VolatileSlice::len).sum();
        let byte = |at: usize| match at.checked_sub(fits) {
            Some(behind) => self.buffer.get(behind).copied(),
            None => byte_of(parts, at),
        };
        let meta = read
            .checked_sub(hdr::SIZE)
            .and_then(|len| Some((len, header::parse(&NetHdr::from_bytes(&bytes), len, byte)?)));
        let Some((len, meta)) = meta.filter(|(len, _)| *len <= MAX_FRAME) else {
            self.lost += 1;
            return true;
        };
        if len <= fits {
            ring.commit(len, meta);
            return true;
        }
        // The end is in the buffer. Put the start before it, and ask for more room.
        self.buffer.copy_within(..len - fits, fits);
        let mut done = 0;
        for part in parts {
            done += part.copy_to(&mut self.buffer[done..fits]);
        }
        self.held = Some((len, meta));
        self.deliver_held(ring)
    }
}

impl Queue for Port {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.retry = None;
        for (n, frame) in batch.iter().enumerate() {
            match self.write(frame) {
                Ok(_) => {}
                Err(error) if is_temporary(&error) => {
                    self.retry = Some(Instant::now() + RETRY);
                    return n;
                }
                // The interface is down or gone, or the host finds fault with the frame.
                Err(_) => self.lost += 1,
            }
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        if self.deliver_held(ring) {
            while self.deliver_next(ring) {}
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tun.as_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        self.detachable
            .then(|| Box::new(TapQueue(Arc::clone(&self.tun))) as _)
    }

    fn has_frames(&self) -> bool {
        self.held.is_some()
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn reset(&mut self) {
        self.held = None;
        self.retry = None;
        let mut bytes = [0; hdr::SIZE];
        for _ in 0..RESET_FRAMES {
            if sys::read(self.tun.as_fd(), &mut bytes, &[], &mut self.buffer).is_err() {
                break;
            }
        }
    }
}

/// A queue of an interface that has several.
struct TapQueue(Arc<OwnedFd>);

impl Attachment for TapQueue {
    fn set_attached(&mut self, attached: bool) {
        // Fails only if it is so already, or if the interface is gone.
        let _ = sys::set_attached(self.0.as_fd(), attached);
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

/// True if the same frame may be taken later.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
