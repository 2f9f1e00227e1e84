// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A port with another backend behind it instead of a card.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use tracing::info;
use vm_memory::VolatileSlice;
use vnet_backend::{
    Bucket, Endpoint, Error, Fifo, Frame, Offloads, Queue, Relay, Taker, MAX_FRAME,
};
use vnet_segment::Segmenter;

use crate::inbox::tray;
use crate::member::{Member, Way};
use crate::switch::Switch;
use crate::Config;

/// How often the backend is asked for its link, in which some do what has to be done from time to
/// time.
const LINK_PERIOD: Duration = Duration::from_millis(500);
/// Frames that are taken from the backend before it is its turn to get some.
const BATCH: usize = 256;
/// The same the other way round, in exchanges with those who send.
const TRAYS: usize = 2;

/// Joins a switch with a backend, by a thread that ends when this is dropped.
#[derive(Debug)]
pub struct Uplink {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
}

impl Uplink {
    /// Makes the backend a port of the switch. One queue of it is used.
    pub fn start(
        switch: &Arc<Switch>,
        config: Config,
        mut endpoint: Box<dyn Endpoint>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            what: "cannot start the uplink of a switch".into(),
            source,
        };
        let queue = endpoint
            .open(1)?
            .pop()
            .ok_or_else(|| Error::Unsupported("the uplink of a switch has no queue".to_owned()))?;
        let receive = endpoint.capabilities().receive;
        endpoint.set_offloads(receive);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            wake,
        });
        let bucket = config.rate.map(Bucket::new);
        let member = switch.add(config)?;
        member.open(1).map_err(failed)?;
        // The backend's queue may finish frames by itself; what it cannot, a segmenter does.
        member.offloads.set(Offloads::ALL);
        let bridge = Bridge {
            switch: Arc::clone(switch),
            member,
            endpoint,
            queue,
            tray: tray(),
            segmenter: Segmenter::default(),
            ingress: Ingress {
                buffer: vec![0; MAX_FRAME].into_boxed_slice(),
                way: Way::default(),
                bucket,
            },
        };
        let for_thread = Arc::clone(&stop);
        let thread = Builder::new()
            .name("vnet-uplink".into())
            .spawn(move || bridge.run(&for_thread))
            .map_err(failed)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How far sending came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// There may be more.
    Some,
    /// The backend does not take more now.
    Blocked,
}

/// What the thread works with.
struct Bridge {
    switch: Arc<Switch>,
    member: Arc<Member>,
    endpoint: Box<dyn Endpoint>,
    queue: Box<dyn Queue>,
    tray: Fifo,
    segmenter: Segmenter,
    ingress: Ingress,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.switch.remove(&self.member);
    }
}

impl Bridge {
    fn run(mut self, stop: &Stop) {
        let mut look = Instant::now();
        let mut up = None;
        while !stop.asked.load(Ordering::Acquire) {
            let now = Instant::now();
            if look <= now {
                let link = self.endpoint.link().up;
                if up.replace(link).is_some_and(|before| before != link) {
                    info!(up = link, "link of the switch's uplink changed");
                }
                look = now + LINK_PERIOD;
            }
            let sent = self.send();
            let left = self.receive();
            if left == 0 || sent == Sent::Some || self.queue.has_work() {
                continue;
            }
            let due = self.queue.deadline().into_iter();
            let due = due.chain(self.ingress.due(now)).min();
            let until = due.map_or(look, |due| due.min(look));
            // While frames wait for the backend, more of them are no reason to wake.
            if let Err(error) = self.sleep(stop, sent == Sent::All, until) {
                tracing::debug!("uplink: {error}");
            }
        }
    }

    /// Sends what waits for the backend.
    fn send(&mut self) -> Sent {
        // Those who send may go on while this does.
        for _ in 0..TRAYS {
            while let Some((bytes, meta)) = self.tray.front() {
                let frame = [Frame {
                    meta,
                    len: bytes.len(),
                    parts: &[VolatileSlice::from(bytes)],
                }];
                let taken = self.segmenter.transmit(self.queue.as_mut(), &frame);
                if taken.frames > 0 {
                    self.tray.pop();
                } else if !taken.spent {
                    return Sent::Blocked;
                }
            }
            let inbox = self.member.inbox(0);
            if !inbox.is_some_and(|inbox| inbox.take(&mut self.tray)) {
                return Sent::All;
            }
        }
        Sent::Some
    }

    /// Takes a batch from the backend; returns how many more it might have taken.
    fn receive(&mut self) -> usize {
        let Ingress {
            buffer,
            way,
            bucket,
        } = &mut self.ingress;
        let batch = Batch {
            switch: &self.switch,
            member: &self.member,
            way,
            bucket,
            left: BATCH,
        };
        let mut relay = Relay::new(buffer, batch);
        self.queue.receive(&mut relay);
        relay.into_taker().left
    }

    fn sleep(&self, stop: &Stop, listen: bool, until: Instant) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&stop.wake, PollFlags::IN)];
        if let Some(inbox) = self.member.inbox(0).filter(|_| listen) {
            fds.push(PollFd::from_borrowed_fd(inbox.wake(), PollFlags::IN));
        }
        // A rate that is used up ends by itself.
        let limited = self.ingress.due(Instant::now()).is_some();
        if let Some(readiness) = self.queue.readiness().filter(|_| !limited) {
            fds.push(PollFd::from_borrowed_fd(readiness, PollFlags::IN));
        }
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        poll(&mut fds, Some(&timeout))?;
        Ok(())
    }
}

/// Frames that come from the backend.
struct Ingress {
    buffer: Box<[u8]>,
    way: Way,
    bucket: Option<Bucket>,
}

impl Ingress {
    fn due(&self, now: Instant) -> Option<Instant> {
        self.bucket.as_ref().and_then(|bucket| bucket.due(now))
    }
}

/// Switches the frames of a batch.
struct Batch<'b> {
    switch: &'b Switch,
    member: &'b Arc<Member>,
    way: &'b mut Way,
    bucket: &'b mut Option<Bucket>,
    left: usize,
}

impl Taker for Batch<'_> {
    fn is_ready(&mut self) -> bool {
        let due = self.bucket.as_ref().and_then(|b| b.due(Instant::now()));
        self.left > 0 && due.is_none()
    }

    fn take(&mut self, frame: &Frame<'_>) {
        self.left -= 1;
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(frame.len, Instant::now());
        }
        self.switch.forward(self.member, 0, frame, self.way);
    }
}
