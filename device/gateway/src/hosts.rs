// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Connections of the guest's that the host is asked to take.
//!
//! The guest has its answer when the host has given its own: until then, what it asked with is kept here,
//! and the stack does not see it. So a guest is refused if the host refuses, as if it had asked the host
//! itself. One that the host does not answer is forgotten, and asks again, as TCP does.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::Arc;

use rustix::event::{epoll, eventfd, EventfdFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpEndpoint};
use tracing::{info, warn};

use crate::forward::Forward;
use crate::forwarder::{self, Answer, Dialled, Request};
use crate::host::{add, Host, Tally, Watch};
use crate::share;

/// Most connections that the host is asked for at a time.
const MAX_WAITING: usize = 32;
/// The host is asked again for one that it has not answered for so long, if the guest asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest frame that asks for a connection: all headers with all options, and no data.
const MAX_REQUEST: usize = 256;
/// News that are heard of in one call.
const MAX_NEWS: usize = 64;

/// A socket is no longer on its way to be connected.
const SETTLED: epoll::EventFlags = epoll::EventFlags::OUT
    .union(epoll::EventFlags::ERR)
    .union(epoll::EventFlags::HUP);

/// Whose descriptor is none of a connection's.
const BELL: u64 = u64::MAX;

/// What a guest asked with, for as long as nobody has answered.
pub(crate) struct Asked {
    pub(crate) station: EthernetAddress,
    pub(crate) client: IpEndpoint,
    pub(crate) port: u16,
    /// The frame, and where its TCP segment is.
    pub(crate) frame: Vec<u8>,
    pub(crate) segment: Range<usize>,
}

struct Waiting {
    id: u64,
    asked: Asked,
    target: usize,
    queue: u16,
    since: Instant,
    /// The connection, if it is on its way.
    socket: Option<OwnedFd>,
}

/// A port that leads to the host.
struct Port {
    forward: Forward,
    tally: Arc<Tally>,
    /// The last connection failed, which was said.
    fails: bool,
}

/// What a guest asked with, and its connection to the host. `None`: it is refused.
pub(crate) struct Answered {
    pub(crate) asked: Asked,
    pub(crate) host: Option<Host>,
}

/// The ports that lead to the host, and who waits for it.
pub(crate) struct Hosts {
    ports: Vec<Port>,
    /// One for each queue.
    watches: Vec<Watch>,
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    waiting: Vec<Waiting>,
    next_id: u64,
}

impl Hosts {
    /// `wakes`: what else makes a queue readable.
    pub(crate) fn new(
        forwards: &[Forward],
        wakes: &[Arc<OwnedFd>],
        first: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let mut watches = Vec::new();
        let mut bells = Vec::new();
        for wake in wakes {
            let watch = Watch::new()?;
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            watch.add_counter(&bell, BELL, true)?;
            watch.add_counter(wake, BELL, false)?;
            watches.push(watch);
            bells.push(Arc::new(bell));
        }
        let targets = forwards.iter().map(|forward| forward.target.clone());
        let (requests, answers) = forwarder::start(targets.collect(), bells, MAX_WAITING, first)?;
        let ports = forwards.iter().map(|forward| Port {
            forward: forward.clone(),
            tally: Arc::default(),
            fails: false,
        });
        Ok(Self {
            ports: ports.collect(),
            watches,
            requests,
            answers,
            waiting: Vec::new(),
            next_id: 0,
        })
    }

    /// What makes a queue readable.
    pub(crate) fn watch(&self, queue: u16) -> &Watch {
        &self.watches[usize::from(queue)]
    }

    /// What came of each port.
    pub(crate) fn tallies(&self) -> Vec<(u16, Arc<Tally>)> {
        let tallies = self.ports.iter();
        tallies
            .map(|port| (port.forward.port, Arc::clone(&port.tally)))
            .collect()
    }

    /// Forgets who waits, and will ask again.
    pub(crate) fn reset(&mut self) {
        self.waiting.clear();
    }

    /// True if the port leads to the host.
    pub(crate) fn leads(&self, port: u16) -> bool {
        self.target(port).is_some()
    }

    fn target(&self, port: u16) -> Option<usize> {
        self.ports
            .iter()
            .position(|other| other.forward.port == port)
    }

    /// Asks the host to take a connection from a guest that asks on `queue`. If this one waits already, it is
    /// forgotten. If too many wait, it is too, or one of the station of which most do.
    pub(crate) fn ask(&mut self, queue: u16, asked: Asked, now: Instant) {
        self.waiting
            .retain(|waiting| now < waiting.since + PATIENCE);
        let same = |waiting: &Waiting| {
            (waiting.asked.client, waiting.asked.port) == (asked.client, asked.port)
        };
        let Some(target) = self.target(asked.port) else {
            return;
        };
        if asked.frame.len() > MAX_REQUEST || self.waiting.iter().any(same) {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            let stations = || self.waiting.iter().map(|waiting| waiting.asked.station);
            let crowd = share::crowd(stations(), asked.station);
            match stations().position(|station| Some(station) == crowd) {
                Some(index) => self.waiting.remove(index),
                None => return,
            };
        }
        let (id, bell) = (self.next_id, usize::from(queue));
        let request = Request { id, target, bell };
        // There is no room if a guest asks, and is reset, again and again.
        if self.requests.try_send(request).is_ok() {
            self.next_id += 1;
            self.waiting.push(Waiting {
                id,
                asked,
                target,
                queue,
                since: now,
                socket: None,
            });
        }
    }

    /// Adds who has an answer now, of those that the worker of this queue hears of. The identities of others
    /// that there is news of go to `other`.
    pub(crate) fn hear(
        &mut self,
        queue: u16,
        answered: &mut Vec<Answered>,
        mut other: impl FnMut(u64),
    ) {
        let mut room = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(BELL),
        }; MAX_NEWS];
        let watch = self.watch(queue).clone();
        for event in watch.news(&mut room) {
            // Packed, and thus copied.
            let (id, flags) = (event.data.u64(), event.flags);
            match self.waiting.iter().position(|waiting| waiting.id == id) {
                Some(index) if flags.intersects(SETTLED) => {
                    let waiting = self.waiting.remove(index);
                    answered.extend(self.connected(waiting));
                }
                Some(_) => {}
                None => other(id),
            }
        }
        while let Ok(Answer { id, result }) = self.answers.try_recv() {
            // Of one that was forgotten, the socket is closed.
            if let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) {
                let waiting = self.waiting.remove(index);
                answered.extend(self.dialled(waiting, result));
            }
        }
    }

    /// The answer of the thread that connects. `None`: it is not the last word.
    fn dialled(
        &mut self,
        mut waiting: Waiting,
        result: Result<Dialled, Errno>,
    ) -> Option<Answered> {
        let watch = self.watch(waiting.queue);
        match result {
            Ok(Dialled::Connecting(socket)) => match watch.add(&socket, waiting.id) {
                Ok(()) => {
                    waiting.socket = Some(socket);
                    self.waiting.push(waiting);
                    None
                }
                Err(e) => Some(self.refused(waiting, e)),
            },
            Ok(Dialled::Connected(socket)) => match watch.add(&socket, waiting.id) {
                Ok(()) => Some(self.taken(waiting, socket)),
                Err(e) => Some(self.refused(waiting, e)),
            },
            // As many wait there as may. That is no answer with TCP, either.
            Err(Errno::AGAIN) => None,
            Err(e) => Some(self.refused(waiting, e)),
        }
    }

    /// The socket is connected, or has failed.
    fn connected(&mut self, mut waiting: Waiting) -> Option<Answered> {
        let socket = waiting.socket.take()?;
        match socket_error(&socket).and_then(|result| result) {
            Ok(()) => Some(self.taken(waiting, socket)),
            Err(e) => Some(self.refused(waiting, e)),
        }
    }

    fn taken(&mut self, waiting: Waiting, socket: OwnedFd) -> Answered {
        let at = (waiting.queue, self.watch(waiting.queue).clone());
        let port = &mut self.ports[waiting.target];
        if std::mem::take(&mut port.fails) {
            info!("gateway: {} answers again", port.forward.target);
        }
        add(&port.tally.taken, 1);
        Answered {
            asked: waiting.asked,
            host: Some(Host::new(waiting.id, socket, at, Arc::clone(&port.tally))),
        }
    }

    fn refused(&mut self, waiting: Waiting, error: Errno) -> Answered {
        let port = &mut self.ports[waiting.target];
        if !std::mem::replace(&mut port.fails, true) {
            let Forward { port, target } = &port.forward;
            warn!(
                "gateway: port {port} is refused, as {target} is: {}",
                io::Error::from(error)
            );
        }
        add(&port.tally.refused, 1);
        Answered {
            asked: waiting.asked,
            host: None,
        }
    }
}
