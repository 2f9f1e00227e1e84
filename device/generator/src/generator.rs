// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint and its queues.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::info;
use vnet_backend::{
    Capabilities, Endpoint, Error, Frame, Meta, Offloads, Queue, RxRing, MAX_FRAME,
};

use crate::config::{Config, Protocol};
use crate::counters::{Counters, Report};
use crate::frame::{self, Content, Station};
use crate::pace::Clock;
use crate::plan::{self, Planned};
use crate::receiver::Receiver;
use crate::stamp;

/// Most queues. Only the first gives frames; the card spreads them.
const MAX_QUEUES: u16 = 64;
/// How often the generator asks where to send to.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often it looks whether another queue has got the answer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The endpoint.
pub struct Generator {
    config: Config,
    counters: Counters,
}

impl Generator {
    /// Traffic as described.
    pub fn new(config: Config) -> Self {
        let receiver = Arc::new(Mutex::new(Receiver::new(&config)));
        Self {
            config,
            counters: Counters(receiver),
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }
}

impl Endpoint for Generator {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let pattern: Arc<[u8]> = (0..MAX_FRAME).map(|n| n as u8).collect();
        let queue = |index| -> Box<dyn Queue> {
            Box::new(Port {
                counters: self.counters.clone(),
                pattern: Arc::clone(&pattern),
                shared: queues > 1,
                frame: vec![0; MAX_FRAME].into(),
                answer: None,
                source: (index == 0).then(|| Source::new(&self.config, &pattern)),
            })
        };
        Ok((0..queues).map(queue).collect())
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}

/// One queue.
struct Port {
    counters: Counters,
    /// What payloads are made of.
    pattern: Arc<[u8]>,
    /// There are several queues.
    shared: bool,
    /// The frame that is looked at or made.
    frame: Box<[u8]>,
    /// Who has asked for our address.
    answer: Option<Station>,
    /// With the first queue.
    source: Option<Source>,
}

/// Where frames come from.
struct Source {
    config: Config,
    clock: Clock,
    /// The frame that comes next.
    number: u64,
    /// Where each flow of each protocol is.
    positions: [Box<[u32]>; 3],
    /// The pattern, with the stamp before it.
    payload: Box<[u8]>,
    /// When to ask again where to send to, if that is not known.
    ask: Option<Instant>,
    /// The driver had no room for the next frame.
    starved: bool,
    /// What was told last.
    told: Report,
}

impl Source {
    fn new(config: &Config, pattern: &[u8]) -> Self {
        let flows = usize::from(config.flows);
        Self {
            config: config.clone(),
            clock: Clock::new(config.pace),
            number: 0,
            positions: std::array::from_fn(|_| vec![0; flows].into()),
            payload: pattern.into(),
            ask: None,
            starved: false,
            told: Report::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.config.count.is_some_and(|count| self.number >= count)
    }

    /// Who gets the next frame; `None`: it is not known yet where that is.
    fn destination(&self, receiver: &Receiver) -> Option<Station> {
        let only_arp = |(protocol, _)| protocol == Protocol::Arp;
        match self.config.traffic.iter().all(only_arp) {
            true => Some(receiver.wanted()),
            false => receiver.destination(),
        }
    }

    /// Gives frames until none is due, there are no more, or the ring has no room.
    fn run(&mut self, receiver: &mut Receiver, ring: &mut dyn RxRing, frame: &mut [u8]) {
        let now = Instant::now();
        self.starved = false;
        // The ring ends it: it lends no more than a batch.
        while !self.is_over() {
            let Some(to) = self.destination(receiver) else {
                self.ask(receiver, ring, frame, now);
                return;
            };
            if self.clock.due(now) > now {
                return;
            }
            let plan = plan::frame(&self.config, self.number);
            let Some(room) = ring.room(plan.len) else {
                self.starved = true;
                return;
            };
            let made = self.make(frame, plan, receiver, to);
            room.write(made);
            receiver.sent(plan.protocol, plan.len);
            ring.commit(plan.len, Meta::default());
            self.clock.sent(plan.len, now);
            self.number += 1;
        }
    }

    fn make<'a>(
        &mut self,
        frame: &'a mut [u8],
        plan: Planned,
        receiver: &Receiver,
        to: Station,
    ) -> &'a [u8] {
        let mut unused = 0;
        let flow = usize::from(plan.flow);
        let position = match plan.protocol {
            Protocol::Arp => &mut unused,
            Protocol::Icmp => &mut self.positions[0][flow],
            Protocol::Udp => &mut self.positions[1][flow],
            Protocol::Tcp => &mut self.positions[2][flow],
        };
        self.payload[..stamp::LEN].copy_from_slice(&receiver.stamp().bytes());
        let content = Content {
            position: *position,
            port: self.config.port,
            payload: &self.payload,
        };
        let made = frame::make(frame, plan, receiver.own, to, content);
        *position = position.wrapping_add(frame::progress(plan, *position));
        made
    }

    /// Asks where to send to, now and then.
    fn ask(&mut self, receiver: &Receiver, ring: &mut dyn RxRing, frame: &mut [u8], now: Instant) {
        if self.ask.is_some_and(|at| at > now) {
            return;
        }
        let len = frame::neighbour_len(self.config.to);
        let Some(room) = ring.room(len) else {
            self.starved = true;
            return;
        };
        let frame = &mut frame[..len];
        frame::ask(frame, receiver.own, self.config.to);
        room.write(frame);
        ring.commit(len, Meta::default());
        self.ask = Some(now + ASK_EVERY);
    }

    fn restart(&mut self, report: Report) {
        if report != self.told {
            info!("generator: {report}");
            self.told = report;
        }
        self.clock.restart();
        self.number = 0;
        self.positions.iter_mut().for_each(|flows| flows.fill(0));
        (self.ask, self.starved) = (None, false);
    }

    /// When [`Self::run`] would do something; `None`: not by itself.
    fn due(&self, receiver: &Receiver) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        match self.destination(receiver) {
            // Before the driver has begun to receive, it is not due either.
            Some(_) => match self.ask {
                Some(_) => Some(self.clock.next().unwrap_or_else(Instant::now)),
                None => self.clock.next(),
            },
            None => self.ask.map(|at| at.min(Instant::now() + LOOK_EVERY)),
        }
    }
}

impl Queue for Port {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let mut receiver = self.counters.lock();
        for frame in batch {
            let len = frame.read(&mut self.frame[..frame.len.min(MAX_FRAME)]);
            let answer = receiver.take(&self.frame[..len], &self.pattern);
            self.answer = answer.or(self.answer);
        }
        batch.len()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let mut receiver = self.counters.lock();
        if let Some(to) = self.answer {
            let len = frame::neighbour_len(to.ip);
            if let Some(room) = ring.room(len) {
                let frame = &mut self.frame[..len];
                frame::answer(frame, receiver.own, to);
                room.write(frame);
                ring.commit(len, Meta::default());
                self.answer = None;
            }
        }
        if let Some(source) = &mut self.source {
            source.run(&mut receiver, ring, &mut self.frame);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let source = self.source.as_ref().filter(|source| !source.starved)?;
        source.due(&self.counters.lock())
    }

    fn has_frames(&self) -> bool {
        let due = |source: &Source| {
            let due = source.due(&self.counters.lock());
            source.starved || due.is_some_and(|due| due <= Instant::now())
        };
        self.answer.is_some() || self.source.as_ref().is_some_and(due)
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn reset(&mut self) {
        self.answer = None;
        if let Some(source) = &mut self.source {
            let mut receiver = self.counters.lock();
            receiver.restart();
            source.restart(receiver.report);
        }
    }
}
