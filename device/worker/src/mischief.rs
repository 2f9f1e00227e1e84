// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that stand still and interrupts that do not come as they should: see [`vnet_faults`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::queue::{rx_index, tx_index, Error};
use vnet_faults::{Faults, Kind, Site};
use vnet_irq::Vector;
use vnet_queue::{Fault, Rx, RxFilter, Tx};

/// Time between looks of a queue that stands still whether the plan is over.
const PLAN_LOOK: Duration = Duration::from_millis(50);

/// What goes wrong in a pair.
#[derive(Debug)]
pub(crate) struct Mischief {
    pub(crate) rx: Lane,
    pub(crate) tx: Lane,
}

/// What goes wrong with one queue of it.
#[derive(Debug)]
pub(crate) struct Lane {
    site: Site,
    /// It stands still until then.
    stalled: Option<Instant>,
    /// It stands still until it is started anew or the plan ends.
    dead: bool,
    /// An interrupt that is yet to be raised.
    late: Option<Instant>,
}

/// Whether a queue is served in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It is.
    Given,
    /// Not before this time, at which to ask again.
    Withheld(Instant),
    /// It stops with an error.
    Failed(Fault),
}

/// What becomes of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is raised.
    Raised,
    /// It is not.
    Lost,
}

impl Mischief {
    pub(crate) fn new(pair: u16, faults: &Arc<Faults>) -> Self {
        let lane = |queue| Lane::new(Site::queue(Arc::clone(faults), queue));
        Self {
            rx: lane(rx_index(pair)),
            tx: lane(tx_index(pair)),
        }
    }

    /// A receive queue begins.
    pub(crate) fn start_rx(&mut self, rx: &mut Rx) {
        self.rx.begin();
        rx.set_faults(self.rx.site.clone());
    }

    /// A transmit queue begins.
    pub(crate) fn start_tx(&mut self, tx: &mut Tx) {
        self.tx.begin();
        tx.set_faults(self.tx.site.clone());
    }

    /// The filter to receive by: that of the driver, unless frames are to get past it.
    pub(crate) fn filter(&self, filter: &RxFilter) -> Option<RxFilter> {
        self.rx.site.may(&[Kind::FrameOversized]).then(|| RxFilter {
            mtu: u16::MAX,
            ..filter.clone()
        })
    }
}

impl Lane {
    fn new(site: Site) -> Self {
        Self {
            site,
            stalled: None,
            dead: false,
            late: None,
        }
    }

    fn begin(&mut self) {
        (self.stalled, self.dead, self.late) = (None, false, None);
    }

    /// Asked once a round about a queue that runs.
    pub(crate) fn service(&mut self, now: impl Fn() -> Instant) -> Service {
        if let Some(until) = self.stalled {
            if now() < until {
                return Service::Withheld(until);
            }
            self.stalled = None;
        }
        self.dead = match self.dead {
            true => self.site.may(&[Kind::StopFetching]),
            false => self.site.hit(Kind::StopFetching).is_some(),
        };
        if self.dead {
            return Service::Withheld(now() + PLAN_LOOK);
        }
        if let Some(hit) = self.site.hit(Kind::Stall) {
            let until = now() + hit.delay;
            self.stalled = Some(until);
            return Service::Withheld(until);
        }
        match self.site.hit(Kind::DmaError) {
            Some(hit) => Service::Failed(Fault::new(Error::BufferFault, hit.random as u8)),
            None => Service::Given,
        }
    }

    /// True while a queue stands still, without a new event.
    pub(crate) fn is_held(&self, now: impl Fn() -> Instant) -> bool {
        self.dead || self.stalled.is_some_and(|until| now() < until)
    }

    /// Asked when an interrupt is to be raised.
    pub(crate) fn interrupt(&mut self, now: impl Fn() -> Instant) -> Fate {
        if self.site.hit(Kind::LostInterrupt).is_some() {
            return Fate::Lost;
        }
        if let Some(hit) = self.site.hit(Kind::LateInterrupt) {
            self.later(now() + hit.delay);
            return Fate::Lost;
        }
        if let Some(hit) = self.site.hit(Kind::DuplicateInterrupt) {
            self.later(now() + hit.delay);
        }
        Fate::Raised
    }

    fn later(&mut self, at: Instant) {
        // One at a time: a vector has no more to say.
        self.late.get_or_insert(at);
    }

    /// Raises what is late or comes for nothing, once a round. Says when to ask again.
    pub(crate) fn raise_more(
        &mut self,
        vector: Option<&Arc<Vector>>,
        idle: bool,
        now: impl Fn() -> Instant,
    ) -> Option<Instant> {
        let due = self.late.is_some_and(|at| at <= now());
        let spurious = idle && self.site.hit(Kind::SpuriousInterrupt).is_some();
        if due {
            self.late = None;
        }
        if let (true, Some(vector)) = (due || spurious, vector) {
            vector.raise();
        }
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_faults::Plan;

    const MS: Duration = Duration::from_millis(1);

    fn planned(plan: &str) -> (Lane, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        faults.load(&plan.parse().unwrap());
        (Mischief::new(0, &faults).rx, faults)
    }

    fn lane(plan: &str) -> Lane {
        planned(plan).0
    }

    #[test]
    fn a_stall_ends_by_itself() {
        let start = Instant::now();
        let mut lane = lane("stall at=2 delay=5ms");
        let mut service = |at: u32| lane.service(|| start + at * MS);
        let held = Service::Withheld(start + 5 * MS);
        assert_eq!(service(0), Service::Given);
        assert_eq!((service(0), service(4)), (held, held));
        assert_eq!((service(5), service(6)), (Service::Given, Service::Given));
    }

    #[test]
    fn a_dead_queue_lives_again_when_it_is_started_or_the_plan_ends() {
        let start = Instant::now();
        let (mut lane, faults) = planned("stop-fetching count=2");
        let held = Service::Withheld(start + PLAN_LOOK);
        for _ in 0..3 {
            assert_eq!(lane.service(|| start), held);
        }
        assert!(lane.is_held(|| start));
        lane.begin();
        assert!(!lane.is_held(|| start));
        assert_eq!(lane.service(|| start), held, "twice");
        lane.begin();
        assert_eq!(lane.service(|| start), Service::Given);

        faults.load(&"stop-fetching".parse().unwrap());
        assert_eq!(lane.service(|| start), held);
        faults.load(&Plan::default());
        assert_eq!(lane.service(|| start), Service::Given);
    }

    #[test]
    fn a_dma_error_is_a_fault_of_the_queue() {
        let mut lane = lane("dma-error at=1");
        let Service::Failed(fault) = lane.service(Instant::now) else {
            panic!("no fault");
        };
        assert_eq!(fault.error, Error::BufferFault);
        assert_eq!(lane.service(Instant::now), Service::Given);
    }

    #[test]
    fn interrupts_are_lost_late_doubled_and_made_up() {
        let start = Instant::now();
        let vector = Arc::new(Vector::default());
        let more = |lane: &mut Lane, idle, at: u32| {
            let before = vector.raised();
            let next = lane.raise_more(Some(&vector), idle, || start + at * MS);
            (vector.raised() - before, next)
        };

        let mut lost = lane("lost-interrupt every=2");
        let fates = [(); 4].map(|()| lost.interrupt(|| start));
        assert_eq!(fates, [Fate::Raised, Fate::Lost, Fate::Raised, Fate::Lost]);
        assert_eq!(more(&mut lost, true, 9), (0, None));

        let soon = Some(start + 3 * MS);
        let mut late = lane("late-interrupt at=1 delay=3ms");
        assert_eq!(late.interrupt(|| start), Fate::Lost);
        assert_eq!(more(&mut late, true, 2), (0, soon));
        assert_eq!(more(&mut late, true, 3), (1, None));
        assert_eq!(more(&mut late, true, 4), (0, None));
        assert_eq!(late.interrupt(|| start), Fate::Raised);

        let mut twice = lane("duplicate-interrupt delay=3ms");
        assert_eq!(twice.interrupt(|| start), Fate::Raised);
        assert_eq!(more(&mut twice, false, 0), (0, soon));
        assert_eq!(more(&mut twice, false, 3), (1, None));

        let mut spurious = lane("spurious-interrupt every=2");
        assert_eq!(more(&mut spurious, true, 0), (0, None));
        assert_eq!(
            more(&mut spurious, false, 0),
            (0, None),
            "one is due anyway"
        );
        assert_eq!(more(&mut spurious, true, 0), (1, None));
    }

    #[test]
    fn only_oversized_frames_get_past_the_filter() {
        let filter = RxFilter {
            mtu: 1500,
            ..RxFilter::default()
        };
        for (plan, mtu) in [
            ("stall", None),
            ("frame-oversized queue=tx", None),
            ("frame-oversized", Some(u16::MAX)),
        ] {
            let faults = Arc::new(Faults::default());
            faults.load(&plan.parse().unwrap());
            let lax = Mischief::new(0, &faults).filter(&filter);
            assert_eq!(lax.map(|f| f.mtu), mtu, "{plan}");
        }
    }
}
