// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames on their way to the guest.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use vnet_backend::{Fifo, Meta, MAX_FRAME};

use crate::steer::Steering;

/// The stack starts a round of sending while no queue has this many frames waiting: enough for a
/// full batch of the card's, and little enough to stay in the cache.
const LOW: usize = 64;
/// Most frames per queue: [`LOW`], a round of the stack (one frame per socket), and answers.
const MAX_FRAMES: usize = 512;
/// The same in bytes, for jumbo frames.
const MAX_BYTES: usize = MAX_FRAMES * 4608;

/// A queue that has not taken frames for so long does not hold up the others: what is for it is
/// lost when its bounds are reached.
pub(crate) const STALLED_AFTER: Duration = Duration::from_millis(200);

/// The waiting frames of all queues.
pub(crate) struct Outbound {
    ports: Vec<Port>,
    pub(crate) steering: Steering,
    /// The queue that is being served. It needs no wake-up.
    pub(crate) current: u16,
    /// Frames for which there was no room.
    pub(crate) lost: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    scratch: Vec<u8>,
}

struct Port {
    waiting: Fifo,
    wake: Arc<OwnedFd>,
    /// True if `wake` is readable because of us.
    signalled: bool,
    /// Since when there are [`LOW`] frames or more.
    full_since: Option<Instant>,
}

impl Outbound {
    pub(crate) fn new(wakes: Vec<Arc<OwnedFd>>) -> Self {
        let ports = wakes
            .into_iter()
            .map(|wake| Port {
                waiting: Fifo::new(MAX_FRAMES, MAX_BYTES),
                wake,
                signalled: false,
                full_since: None,
            })
            .collect();
        Self {
            ports,
            steering: Steering::default(),
            current: 0,
            lost: 0,
            frames: 0,
            bytes: 0,
            scratch: vec![0; MAX_FRAME],
        }
    }

    /// The frames that wait for one queue.
    pub(crate) fn waiting(&mut self, queue: u16) -> &mut Fifo {
        &mut self.ports[usize::from(queue)].waiting
    }

    /// True if frames wait for `queue`.
    pub(crate) fn has_frames(&self, queue: u16) -> bool {
        !self.ports[usize::from(queue)].waiting.is_empty()
    }

    /// Sends a frame of `len` bytes that `fill` writes, or loses it if its queue is full.
    pub(crate) fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.frames += 1;
        self.bytes += len as u64;
        if self.ports.len() == 1 {
            let waiting = &mut self.ports[0].waiting;
            if let Some(frame) = waiting.grant(len) {
                let result = fill(frame);
                waiting.commit(len, Meta::default());
                self.signal(0);
                return result;
            }
            self.lost += 1;
            return fill(scratch(&mut self.scratch, len));
        }
        // Only the frame itself tells which queue it is for.
        let result = fill(scratch(&mut self.scratch, len));
        let queue = usize::from(self.steering.queue(&self.scratch[..len]));
        let sent = self.ports.get_mut(queue).is_some_and(|port| {
            port.waiting.push(len, Meta::default(), |frame| {
                frame.copy_from_slice(&self.scratch[..len]);
            })
        });
        if sent {
            self.signal(queue);
        } else {
            self.lost += 1;
        }
        result
    }

    /// True if the stack may send: no queue that is alive has many frames waiting.
    pub(crate) fn is_open(&mut self, now: Instant) -> bool {
        let mut open = true;
        for port in &mut self.ports {
            if port.waiting.len() < LOW {
                port.full_since = None;
            } else {
                let since = *port.full_since.get_or_insert(now);
                open &= now >= since + STALLED_AFTER;
            }
        }
        open
    }

    /// When [`Self::is_open`] becomes true even if no queue takes frames.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        let last = self.ports.iter().filter_map(|port| port.full_since).max()?;
        Some(last + STALLED_AFTER)
    }

    /// Begins to serve `queue`, whose wake-up has had its effect.
    pub(crate) fn serve(&mut self, queue: u16) {
        self.current = queue;
        self.ports[usize::from(queue)].clear_signal();
    }

    /// Forgets the frames that wait, and which queues the guest has used. What was counted stays.
    pub(crate) fn reset(&mut self) {
        for port in &mut self.ports {
            port.waiting.clear();
            port.clear_signal();
            port.full_since = None;
        }
        self.steering = Steering::default();
    }

    fn signal(&mut self, queue: usize) {
        let port = &mut self.ports[queue];
        if queue != usize::from(self.current) && !port.signalled {
            // Fails only if the counter would overflow, which it is far from.
            port.signalled = rustix::io::write(&port.wake, &1u64.to_ne_bytes()).is_ok();
        }
    }
}

impl Port {
    fn clear_signal(&mut self) {
        if self.signalled {
            self.signalled = false;
            // Nobody else reads it, so it is readable, and reading makes it unreadable.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
    }
}

fn scratch(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}
