// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint and its queues.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{eventfd, EventfdFlags};
use rustix::rand::{getrandom, GetRandomFlags};
use vnet_backend::{
    Capabilities, Checksum, Endpoint, Error, Frame, Losses, Meta, Offloads, Queue, RxRing,
};

use crate::config::Config;
use crate::hosts::Hosts;
use crate::outbound::Outbound;
use crate::stack::Stack;

/// Largest MTU of the gateway.
pub const MAX_MTU: u16 = 9000;
/// Smallest MTU of the gateway: IPv6 needs it.
pub const MIN_MTU: u16 = 1280;

/// Most queues.
const MAX_QUEUES: u16 = 64;

/// The endpoint.
pub struct Gateway {
    config: Config,
    /// True while the driver accepts checksum metadata. Independent of everything else that the
    /// queues see, so relaxed accesses do.
    takes_checksum: Arc<AtomicBool>,
    /// What the thread that connects to the host does first.
    first: Box<dyn FnOnce() + Send>,
    clock: fn() -> Instant,
}

impl Gateway {
    /// The endpoint.
    pub fn new(mut config: Config) -> Self {
        config.mtu = config.mtu.clamp(MIN_MTU, MAX_MTU);
        Self {
            config,
            takes_checksum: Arc::default(),
            first: Box::new(|| ()),
            clock: Instant::now,
        }
    }

    /// Has it take the time from here, for a test that does not want to wait.
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self
    }

    /// Has the thread that connects to the host do this first, such as to limit itself. There is none if
    /// no port leads there.
    pub fn connect_after(mut self, first: impl FnOnce() + Send + 'static) -> Self {
        self.first = Box::new(first);
        self
    }
}

impl Endpoint for Gateway {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads {
                checksum: true,
                ..Offloads::default()
            },
            max_queues: MAX_QUEUES,
            max_mtu: self.config.mtu,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let wakes = (0..queues)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Io {
                what: "cannot create an eventfd for the gateway".into(),
                source: error.into(),
            })?;
        let forwards = &self.config.forwards;
        let hosts = match forwards.is_empty() {
            true => None,
            false => {
                let first = std::mem::replace(&mut self.first, Box::new(|| ()));
                let hosts = Hosts::new(forwards, &wakes, first);
                Some(hosts.map_err(|source| Error::Io {
                    what: "cannot lead ports of the gateway to the host".into(),
                    source,
                })?)
            }
        };
        let news = |queue| hosts.as_ref().map(|hosts| hosts.watch(queue).descriptor());
        // With one queue, its own calls are all that can give it frames, but for the host.
        let wake = |(wake, queue)| news(queue).or((queues > 1).then_some(wake)).cloned();
        let ready: Vec<_> = wakes.iter().zip(0..queues).map(wake).collect();
        let outbound = Outbound::new(wakes);
        let stack = Stack::new(&self.config, seed()?, outbound, hosts, self.clock);
        let stack = Arc::new(Mutex::new(stack));
        Ok(ready
            .into_iter()
            .zip(0..queues)
            .map(|(ready, index)| {
                Box::new(Port {
                    index,
                    ready,
                    is_shared: queues > 1,
                    stack: stack.clone(),
                    takes_checksum: self.takes_checksum.clone(),
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.takes_checksum
            .store(receive.checksum, Ordering::Relaxed);
    }
}

/// A random number, so that TCP's sequence numbers differ from run to run.
fn seed() -> Result<u64, Error> {
    let mut seed = [0; 8];
    getrandom(&mut seed, GetRandomFlags::empty()).map_err(|error| Error::Io {
        what: "cannot get random numbers for the gateway".into(),
        source: error.into(),
    })?;
    Ok(u64::from_ne_bytes(seed))
}

/// One queue.
struct Port {
    index: u16,
    /// Readable when others have something for this queue. `None`: that cannot be.
    ready: Option<Arc<OwnedFd>>,
    is_shared: bool,
    stack: Arc<Mutex<Stack>>,
    takes_checksum: Arc<AtomicBool>,
}

impl Port {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        // A panic in another queue's thread leaves a stack that may have lost a frame or a
        // connection, which networks do.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue for Port {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let mut stack = self.stack();
        stack.outbound.serve(self.index);
        for frame in batch {
            stack.take(self.index, frame);
        }
        stack.work();
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        // A TCP frame that stands for several segments is one long segment to the stack. The
        // services of UDP answer datagram by datagram.
        Offloads {
            uso: false,
            ..Offloads::ALL
        }
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let meta = Meta {
            checksum: if self.takes_checksum.load(Ordering::Relaxed) {
                Checksum::Valid
            } else {
                Checksum::Unverified
            },
            gso: None,
        };
        let mut stack = self.stack();
        stack.outbound.serve(self.index);
        let mut worked = false;
        loop {
            let waiting = stack.outbound.waiting(self.index);
            match waiting.front() {
                Some((frame, _)) => {
                    let Some(room) = ring.room(frame.len()) else {
                        // Timers run out also while the guest has no room.
                        if !worked {
                            stack.work();
                        }
                        return;
                    };
                    let len = room.write(frame);
                    ring.commit(len, meta);
                    waiting.pop();
                }
                // Once per call: what else there is to send comes with the next call, for which
                // `deadline` asks.
                None if !worked => {
                    worked = true;
                    stack.work();
                }
                None => return,
            }
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_deref().map(AsFd::as_fd)
    }

    fn deadline(&self) -> Option<Instant> {
        self.stack().deadline(self.index)
    }

    fn has_work(&self) -> bool {
        self.stack().has_work(self.index)
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn has_frames(&self) -> bool {
        self.stack().outbound.has_frames(self.index)
    }

    fn losses(&self) -> Losses {
        // The stack does not count by queue.
        match self.index {
            0 => self.stack().losses(),
            _ => Losses::default(),
        }
    }

    // What happens to one queue happens to all of them together, so it does not matter which comes first.

    fn reset(&mut self) {
        if self.stack.is_poisoned() {
            // Whatever a call panicked over is not met again.
            self.stack.clear_poison();
            self.stack().forget();
        }
        self.stack().reset();
    }

    fn disconnect(&mut self) {
        self.stack().forget();
    }
}
