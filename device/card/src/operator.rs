// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What somebody who runs the card sees and changes while it is in use.
//!
//! An [`Operator`] shares nothing but atomics and short locks of its own with the card: it never waits
//! for the message thread or a worker, but for the round that runs where a queue is paused or stepped. What takes the card itself is the `impl` below.

use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use vnet_backend::{Capabilities, Endpoint, Link, Offloads, Queue};
use vnet_capture::{Capture, Watch};
use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_faults::{Faults, Faulty};
use vnet_worker::{
    Counters, Drops, Fill, Gauge, Next, Picture, Refused, Replaced, Replacement, Step, Times, Work,
};

use crate::card::Card;
use crate::config::{is_station_address, Error};
use crate::decode::pair_of;
use crate::events::{Events, Forced};
use crate::monitor::lock;
use crate::negotiation::receive_offloads;

/// A handle on a card for whoever runs it.
#[derive(Clone, Debug)]
pub struct Operator {
    events: Arc<Events>,
    gauges: Vec<Gauge>,
}

/// The link as the driver is told of it, and why it is so.
#[derive(Clone, Copy, Debug)]
pub struct LinkReport {
    /// What the driver is told.
    pub link: Link,
    /// What the backend says.
    pub backend: Link,
    /// What the operator has said.
    pub forced: Forced,
}

/// One queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueReport {
    /// Counters since the card was made.
    pub counters: Counters,
    /// The code of the error that stopped the queue, or zero.
    pub error: u8,
    /// Dropped frames by reason.
    pub drops: Drops,
    /// How full the ring is, while the queue is started and its ring within reach.
    pub fill: Option<Fill>,
    /// How long batches took, if [`Operator::measure`] was called.
    pub times: Option<Times>,
}

/// What the driver has told the card.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// Features that it accepted; `None` if there is no driver, or not yet.
    pub features: Option<u64>,
    /// Queues that it has started, a bit each.
    pub started: u32,
}

impl Operator {
    /// Number of queues: receive and transmit of each pair.
    pub fn queue_count(&self) -> u16 {
        2 * self.gauges.len() as u16
    }

    /// Has the queue of this index wait, also if it is started anew, and go on a step at a time
    /// ([`Self::step`]) until it is resumed. This and what follows waits for the round that runs now.
    pub fn pause(&self, queue: u16) {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].pause(kind);
    }

    /// Lets a queue run again.
    pub fn resume(&self, queue: u16) {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].resume(kind);
    }

    /// Does one step with a paused queue.
    pub fn step(&self, queue: u16) -> Result<Step, Refused> {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].step(kind)
    }

    /// What the next step of a queue would do, if it is paused and runs.
    pub fn next_step(&self, queue: u16) -> Option<Next> {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].next(kind)
    }

    /// Whether a step of a queue would get somewhere, if it is paused and runs.
    pub fn work(&self, queue: u16) -> Option<Work> {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].work(kind)
    }

    /// True if a queue is paused. Waits for nobody.
    pub fn is_paused(&self, queue: u16) -> bool {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].is_paused(kind)
    }

    /// The link.
    pub fn link(&self) -> LinkReport {
        let sources = self.events.sources();
        LinkReport {
            link: self.events.link(),
            backend: sources.backend,
            forced: sources.forced,
        }
    }

    /// Pulls the cable or puts it back, and says how fast it is. The driver hears of it by the event
    /// of a link that changed; without a cable frames are lost in both directions.
    pub fn force_link(&self, forced: Forced) {
        for gauge in &self.gauges {
            gauge.set_plugged(!forced.down);
        }
        if let Some(link) = self.events.force_link(forced) {
            info!(up = link.up, speed = link.speed, "link changed");
        }
    }

    /// Has frames kept by this capture, by no other any more, and by none if there is none. Waits for the
    /// batches that run now.
    pub fn capture(&self, capture: Option<&Capture>) {
        for gauge in &self.gauges {
            gauge.capture(capture.cloned());
        }
    }

    /// What the ring of a queue looks like now, if it runs and is within reach. Its frames are shown to
    /// `watch` from now on, and to no other. Waits for the batch that runs now.
    pub fn look(&self, queue: u16, watch: &Watch) -> Option<Picture> {
        let (pair, kind) = pair_of(queue);
        self.gauges[pair].look(kind, watch)
    }

    /// Has batches timed from now on.
    pub fn measure(&self) {
        self.gauges.iter().for_each(Gauge::measure);
    }

    /// The queues of all pairs in order, receive before transmit.
    pub fn queues(&self) -> impl Iterator<Item = QueueReport> + '_ {
        let queues = 0..2 * self.gauges.len() as u16;
        queues.map(|queue| {
            let (pair, kind) = pair_of(queue);
            let gauge = &self.gauges[pair];
            QueueReport {
                counters: gauge.totals(kind),
                error: self.events.fault(queue).0,
                drops: gauge.drops(kind),
                fill: gauge.fill(kind),
                times: gauge.times(kind),
            }
        })
    }
}

/// A backend that was replaced, until it is gone.
#[must_use = "the old backend is still there"]
pub struct Changed {
    endpoint: Box<dyn Endpoint>,
    queues: Vec<Replaced>,
}

impl Changed {
    /// Ends the old backend; not to be called with the card in hand, since a backend may take its
    /// time. Returns how many frames it still had for the driver, which are lost.
    pub fn settle(self, patience: Duration) -> u64 {
        let queues = self.queues.into_iter();
        let left = queues.map(|queue| queue.settle(patience)).sum();
        drop(self.endpoint);
        left
    }
}

impl Card {
    /// A handle for whoever runs the card.
    pub fn operator(&self) -> Operator {
        Operator {
            events: Arc::clone(&self.events),
            gauges: self.pairs.iter().map(|pair| pair.gauge()).collect(),
        }
    }

    /// What the driver has told the card.
    pub fn driver(&self) -> Driver {
        let queues = (0u16..).zip(&self.queues);
        let started = queues.filter(|(_, registers)| registers.started);
        Driver {
            features: self.negotiation.accepted(),
            started: started.fold(0, |mask, (queue, _)| mask | 1 << queue),
        }
    }

    /// The permanent MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.config.mac
    }

    /// Gives the card another permanent MAC address. A driver reads it when it is loaded, and goes
    /// on with the one that it has until then.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), Error> {
        if !is_station_address(mac) {
            return Err(Error::Mac);
        }
        self.config.mac = mac;
        Ok(())
    }

    /// Connects the card with something else. If this fails, nothing has changed.
    ///
    /// What the driver was offered stays as it is: a backend that can do less does less.
    pub fn set_backend(&mut self, mut endpoint: Box<dyn Endpoint>) -> Result<Changed, Error> {
        let able = endpoint.capabilities();
        let pairs = self.config.queue_pairs;
        if pairs > able.max_queues.min(MAX_QUEUE_PAIRS) {
            return Err(Error::QueuePairs {
                wanted: pairs,
                backend: able.max_queues,
            });
        }
        if able.max_mtu < self.config.max_mtu {
            return Err(Error::SmallMtu {
                card: self.config.max_mtu,
                backend: able.max_mtu,
            });
        }
        if let Some(faults) = &self.faults {
            endpoint = Box::new(Faulty::new(endpoint, Arc::clone(faults)));
        }
        let queues = endpoint.open(pairs)?.into_iter();
        let queues: Vec<_> = queues
            .map(Replacement::new)
            .collect::<Result<_, _>>()
            .map_err(Error::Descriptor)?;
        let link = endpoint.link();
        self.deliverable = able.receive;
        let counted = endpoint.missed();
        let old = replace(&mut *lock(&self.endpoint), endpoint);
        self.missed.exchange(old.missed(), counted);
        self.changed = true;
        self.tell_offloads(receive_offloads(self.negotiation.receive()));
        let pairs = self.pairs.iter_mut().zip(queues);
        let queues = pairs.map(|(pair, queue)| pair.replace(queue)).collect();
        if let Some(link) = self.events.set_link(link) {
            info!(up = link.up, speed = link.speed, "link changed");
        }
        Ok(Changed {
            endpoint: old,
            queues,
        })
    }

    /// Lets a card misbehave that was made without faults, also with queues that run.
    pub fn add_faults(&mut self, faults: &Arc<Faults>) {
        for (index, pair) in (0..).zip(&self.pairs) {
            pair.wrap(|queue| Faulty::queue(queue, index, faults));
        }
        let mut endpoint = lock(&self.endpoint);
        let inner = replace(&mut *endpoint, Box::new(Nothing));
        *endpoint = Box::new(Faulty::new(inner, Arc::clone(faults)));
        drop(endpoint);
        self.set_faults(faults);
    }

    /// Tells the backend which metadata the driver accepts, as far as it can deliver that.
    pub(crate) fn tell_offloads(&self, receive: Offloads) {
        let able = self.deliverable;
        lock(&self.endpoint).set_offloads(Offloads {
            checksum: receive.checksum && able.checksum,
            tso4: receive.tso4 && able.tso4,
            tso6: receive.tso6 && able.tso6,
            ecn: receive.ecn && able.ecn,
            uso: receive.uso && able.uso,
        });
    }
}

/// Holds the place of an endpoint for a moment in which nobody sees it.
struct Nothing;

impl Endpoint for Nothing {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: 0,
            max_mtu: 0,
        }
    }

    fn open(&mut self, _: u16) -> Result<Vec<Box<dyn Queue>>, vnet_backend::Error> {
        Ok(Vec::new())
    }

    fn set_offloads(&mut self, _: Offloads) {}
}
