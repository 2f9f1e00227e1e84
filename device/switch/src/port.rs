// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A port for a card.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vnet_backend::{
    Attachment, Bucket, Capabilities, Endpoint, Error, Fifo, Frame, Losses, Offloads, Queue, RxRing,
};

use crate::inbox::{tray, Inbox};
use crate::member::{Member, Way, MAX_QUEUES};
use crate::switch::Switch;
use crate::uplink::Uplink;

/// What one call does at most, where each frame goes to hundreds of ports: a few milliseconds.
const MAX_WORK: usize = 4096;

/// The endpoint.
#[derive(Debug)]
pub struct Port {
    switch: Arc<Switch>,
    member: Arc<Member>,
    uplink: Option<Uplink>,
}

impl Port {
    pub(crate) fn new(switch: Arc<Switch>, member: Arc<Member>) -> Self {
        Self {
            switch,
            member,
            uplink: None,
        }
    }

    /// Keeps an uplink for as long as the port is there.
    pub fn keep(&mut self, uplink: Uplink) {
        self.uplink = Some(uplink);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.switch.remove(&self.member);
    }
}

impl Endpoint for Port {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::ALL,
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        self.member.open(queues).map_err(|source| Error::Io {
            what: "cannot open a port of the switch".into(),
            source,
        })?;
        let bucket = self.member.config.rate.map(Bucket::new);
        let bucket = bucket.map(|bucket| Arc::new(Mutex::new(bucket)));
        Ok((0..queues)
            .map(|index| {
                Box::new(PortQueue {
                    switch: Arc::clone(&self.switch),
                    member: Arc::clone(&self.member),
                    index,
                    tray: tray(),
                    way: Way::default(),
                    bucket: bucket.clone(),
                    due: None,
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.member.offloads.set(receive);
    }
}

struct PortQueue {
    switch: Arc<Switch>,
    member: Arc<Member>,
    index: u16,
    /// Frames that were taken out of the inbox.
    tray: Fifo,
    way: Way,
    /// Limits what the card sends, by all its queues.
    bucket: Option<Arc<Mutex<Bucket>>>,
    /// When it may send again.
    due: Option<Instant>,
}

impl PortQueue {
    fn inbox(&self) -> Option<&Inbox> {
        self.member.inbox(self.index)
    }
}

impl Queue for PortQueue {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        self.due = None;
        self.way.work = 0;
        for (n, frame) in batch.iter().enumerate() {
            if let Some(bucket) = &self.bucket {
                let now = Instant::now();
                let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                self.due = bucket.due(now);
                if self.due.is_some() {
                    return n;
                }
                bucket.spend(frame.len, now);
            }
            self.switch
                .forward(&self.member, self.index, frame, &mut self.way);
            if self.way.work >= MAX_WORK && n + 1 < batch.len() {
                // At once, but somebody may want the lock.
                self.due = Some(Instant::now());
                return n + 1;
            }
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        // What the receiver does not take is done on the way to it.
        Offloads::ALL
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        loop {
            while let Some((frame, meta)) = self.tray.front() {
                let Some(room) = ring.room(frame.len()) else {
                    return;
                };
                let len = room.write(frame);
                ring.commit(len, meta);
                self.tray.pop();
            }
            let Some(inbox) = self.member.inbox(self.index) else {
                return;
            };
            if !inbox.take(&mut self.tray) {
                return;
            }
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.inbox().map(Inbox::wake)
    }

    fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        Some(Box::new(Listener {
            member: Arc::clone(&self.member),
            queue: self.index,
        }))
    }

    fn has_frames(&self) -> bool {
        !self.tray.is_empty() || self.inbox().is_some_and(Inbox::has_frames)
    }

    fn losses(&self) -> Losses {
        // The port does not count by queue.
        if self.index != 0 {
            return Losses::default();
        }
        let counters = &self.member.counters;
        Losses {
            sent: counters.refused.load(Relaxed),
            missed: counters.full.load(Relaxed),
            received: 0,
        }
    }

    fn reset(&mut self) {
        self.tray.clear();
        self.due = None;
        self.inbox().into_iter().for_each(Inbox::discard);
    }
}

/// Says whether a queue receives.
struct Listener {
    member: Arc<Member>,
    queue: u16,
}

impl Attachment for Listener {
    fn set_attached(&mut self, attached: bool) {
        self.member.attach(self.queue, attached);
        if !attached {
            // A driver that comes later has nothing to do with these.
            self.member
                .inbox(self.queue)
                .into_iter()
                .for_each(Inbox::discard);
        }
    }
}
