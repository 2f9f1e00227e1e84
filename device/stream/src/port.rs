// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One queue.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::event::epoll::{add, delete, modify, EventData, EventFlags};
use vnet_backend::{Frame, Losses, Meta, Queue, RxRing};

use crate::connection::{Connection, End};
use crate::decoder::Decoder;

/// How long frames wait for a peer that does not read; then they are lost, until it does.
pub const STALL: Duration = Duration::from_secs(1);

/// Reads of one call. A peer that sends nothing but frames that are none must not keep the worker.
const MAX_READS: usize = 4;
/// The same where what is read is thrown away: more than a socket holds.
const DISCARD_READS: usize = 64;

/// A connection in an epoll instance.
pub(crate) fn watch(epoll: &OwnedFd, connection: &Connection) -> rustix::io::Result<()> {
    add(
        epoll,
        connection.socket(),
        EventData::new_u64(0),
        EventFlags::IN,
    )
}

pub(crate) struct Port {
    index: u16,
    /// The peer, if there is one.
    current: Arc<ArcSwapOption<Connection>>,
    /// The one that this port has used last.
    connection: Option<Arc<Connection>>,
    /// What the worker sleeps on. The first queue's has each new connection in it from the start.
    epoll: Arc<OwnedFd>,
    /// The first queue receives; the card spreads what it gets.
    receiver: Option<Decoder>,
    /// The card has several queues.
    shared: bool,
    /// The worker is to be woken when the peer has room.
    blocked: bool,
    /// The guest has frames that found no room. It is tried with them again when the worker is woken.
    refused: bool,
    /// When frames that wait for the peer have waited long enough.
    due: Option<Instant>,
    /// A frame waits for room in the guest's ring.
    waiting: bool,
    /// There may be more to read than one call may.
    more: bool,
    /// Frames of the guest that found no peer, or one that took nothing or not all of them.
    lost: u64,
    /// Frames that the guest had no room for before the connection ended.
    missed: u64,
}

impl Port {
    pub(crate) fn new(
        current: Arc<ArcSwapOption<Connection>>,
        epoll: Arc<OwnedFd>,
        index: u16,
        shared: bool,
    ) -> Self {
        Self {
            index,
            current,
            connection: None,
            epoll,
            receiver: (index == 0).then(Decoder::default),
            shared,
            blocked: false,
            refused: false,
            due: None,
            waiting: false,
            more: false,
            lost: 0,
            missed: 0,
        }
    }

    /// The peer, if there is one. Takes note when it is another than before.
    fn connection(&mut self) -> Option<Arc<Connection>> {
        let current = self.current.load();
        let current = current.as_ref().filter(|c| !c.is_over());
        let same = match (current, &self.connection) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            let current = current.cloned();
            self.forget();
            self.connection = current;
        }
        let connection = self.connection.clone();
        if let Some(closing) = connection.as_ref().filter(|c| c.is_closing()) {
            // Nothing waits for room that will never be there.
            self.wait_for_room(closing, false);
            (self.refused, self.due) = (false, None);
        }
        connection
    }

    /// Counts what the connection leaves, which is over.
    fn forget(&mut self) {
        let Some(old) = self.connection.take() else {
            return;
        };
        // Fails if it is not in there.
        let _ = delete(&self.epoll, old.socket());
        (self.blocked, self.refused, self.due) = (false, false, None);
        (self.waiting, self.more) = (false, false);
        self.lost += u64::from(old.outgoing().abandon(self.index));
        if let Some(decoder) = &mut self.receiver {
            self.missed += discard(decoder, &old);
            decoder.restart();
        }
    }

    /// Has the worker woken when the peer has room, or no longer. The error is that of a
    /// connection that is over, which wakes it anyway.
    fn wait_for_room(&mut self, connection: &Connection, wait: bool) {
        if self.blocked == wait {
            return;
        }
        self.blocked = wait;
        let data = EventData::new_u64(0);
        let _ = match (&self.receiver, wait) {
            (Some(_), true) => modify(
                &self.epoll,
                connection.socket(),
                data,
                EventFlags::IN | EventFlags::OUT,
            ),
            (Some(_), false) => modify(&self.epoll, connection.socket(), data, EventFlags::IN),
            (None, true) => add(&self.epoll, connection.socket(), data, EventFlags::OUT),
            (None, false) => delete(&self.epoll, connection.socket()),
        };
    }

    /// Sends the rest of a frame that was sent in part, since no other one may come.
    fn flush(&mut self, connection: &Connection) {
        if !self.blocked {
            return;
        }
        let flushed = connection.outgoing().flush(connection.socket());
        match flushed {
            // There was no room a moment ago, and now there is: it is the room that wakes the worker.
            Ok(true) if std::mem::take(&mut self.refused) => {}
            Ok(true) => self.wait_for_room(connection, false),
            Ok(false) => {}
            Err(error) => connection.close(End::Failed(error)),
        }
    }
}

/// Delivers the frames that are there. False: there is no room for the next one.
fn deliver(decoder: &mut Decoder, connection: &Connection, ring: &mut dyn RxRing) -> bool {
    loop {
        match decoder.front() {
            Ok(Some(frame)) => {
                let Some(room) = ring.room(frame.len()) else {
                    return false;
                };
                let len = room.write(frame);
                ring.commit(len, Meta::default());
                decoder.pop();
            }
            Ok(None) => return true,
            Err(too_long) => {
                connection.end(End::Length(too_long));
                return true;
            }
        }
    }
}

/// Throws away what there is to receive. Returns the number of frames.
fn discard(decoder: &mut Decoder, connection: &Connection) -> u64 {
    let mut frames = 0;
    for _ in 0..DISCARD_READS {
        frames += decoder.discard();
        if let Err(too_long) = decoder.front() {
            connection.end(End::Length(too_long));
            return frames;
        }
        let Some(count) = connection.read(decoder.space()) else {
            return frames;
        };
        decoder.filled(count);
    }
    frames + decoder.discard()
}

impl Queue for Port {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let Some(connection) = self.connection().filter(|c| !c.is_closing()) else {
            self.lost += batch.len() as u64;
            return batch.len();
        };
        let mut outgoing = connection.outgoing();
        let (sent, result) = outgoing.send(connection.socket(), self.index, batch);
        let (rest, stuck) = (outgoing.has_rest(), outgoing.stuck());
        drop(outgoing);
        if let Err(error) = result {
            connection.close(End::Failed(error));
        }
        let left = batch.len() - sent;
        self.wait_for_room(&connection, rest || left > 0);
        self.refused = left > 0;
        self.due = stuck.map(|since| since + STALL);
        let given_up = self.due.is_some_and(|due| due <= Instant::now());
        if left > 0 && (given_up || connection.is_closing()) {
            self.lost += left as u64;
            return batch.len();
        }
        sent
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let Some(connection) = self.connection() else {
            return;
        };
        self.flush(&connection);
        (self.waiting, self.more) = (false, false);
        let Some(decoder) = &mut self.receiver else {
            return;
        };
        for _ in 0..MAX_READS {
            self.waiting = !deliver(decoder, &connection, ring);
            if self.waiting {
                return;
            }
            let space = decoder.space();
            let most = space.len();
            let Some(count) = connection.read(space) else {
                return;
            };
            decoder.filled(count);
            if count < most {
                // Nothing was left then. What has come since makes the socket readable.
                self.waiting = !deliver(decoder, &connection, ring);
                return;
            }
        }
        self.more = true;
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        // Once it is past, only the peer can change anything.
        let due = self.due.filter(|_| self.blocked);
        due.filter(|due| *due > Instant::now())
    }

    fn owes(&self) -> Option<Instant> {
        // Room for the rest of a frame makes the descriptor readable.
        let later = || Instant::now() + STALL;
        self.blocked.then(|| self.deadline().unwrap_or_else(later))
    }

    fn has_work(&self) -> bool {
        self.more
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn has_frames(&self) -> bool {
        self.waiting
    }

    fn losses(&self) -> Losses {
        Losses {
            sent: self.lost,
            missed: self.missed,
            received: self.receiver.as_ref().map_or(0, Decoder::runts),
        }
    }

    fn reset(&mut self) {
        let Some(connection) = self.connection() else {
            return;
        };
        (self.waiting, self.more) = (false, false);
        if let Some(decoder) = &mut self.receiver {
            discard(decoder, &connection);
        }
    }
}
